"""Going on from a model's weights with another tokenizer: the layers stay, the embedding is made anew from the old one.

A token that both vocabularies spell alike takes its row. Another one takes the mean of the rows of the pieces that the old tokenizer
cuts its text into. The decoder's bias goes the same way. A mask is a mask under any name: special tokens follow their role.

Source: the mean of pieces after Gee et al. 2022 (arXiv 2402.09977, Fast Vocabulary Transfer).
"""

import torch
from torch import Tensor

from modernbert.model.heads import MaskedLM
from modernbert.text.tokenizer import Tokenizer


def pieces_of(new: Tokenizer, old: Tokenizer) -> list[list[int]]:
    """For each id of the new tokenizer, the ids of the old one whose mean it begins from; none where nothing of it is known."""
    roles = {
        getattr(new, f"{role}_id"): getattr(old, f"{role}_id")
        for role in ("cls", "sep", "pad", "mask", "unk")
        if getattr(new, f"{role}_id") is not None and getattr(old, f"{role}_id") is not None
    }
    found: list[list[int]] = []
    for id in range(new.vocab_size):
        token = new.token(id)
        same = roles.get(id, old.id(token))
        if same is not None:
            found.append([same])
            continue
        text = new.decode([id])
        whole = text and "\N{REPLACEMENT CHARACTER}" not in text  # else it is a part of a character
        spelled = [old.id(letter) for letter in token]  # byte by byte, where both are byte-level
        pieces = old.encode([text], special=False)[0] if whole else [piece for piece in spelled if piece is not None]
        found.append([piece for piece in pieces if piece != old.unk_id])
    return found


@torch.no_grad()
def with_vocabulary(model: MaskedLM, old: Tokenizer, new: Tokenizer) -> MaskedLM:
    """The same model with the vocabulary and the special ids of `new`.

    Args:
        model: a masked language model whose tokenizer is `old`.
        old: its tokenizer.
        new: the tokenizer to go on with.
    """
    pieces = pieces_of(new, old)
    ids = {f"{role}_token_id": getattr(new, f"{role}_id") for role in ("unk", "cls", "sep", "pad", "mask")}
    made = MaskedLM(model.config.with_(vocab_size=new.vocab_size, **ids))
    weights = model.state_dict()
    for name in ("model.embeddings.tok_embeddings.weight", "decoder.weight", "decoder.bias"):
        weights[name] = _means(weights[name], pieces)
    made.load_state_dict(weights)
    return made


def _means(old: Tensor, pieces: list[list[int]]) -> Tensor:
    """A row a token: the mean of the rows of its pieces, or of all rows."""
    mean = old.mean(0)
    return torch.stack([old[ids].mean(0) if ids else mean for ids in pieces])
