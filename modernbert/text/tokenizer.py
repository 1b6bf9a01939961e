"""Texts to token ids and back. The only door to the `tokenizers` library.

Rows are never cut or padded here: callers cut in their own code, so that they can report it.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import processors

from modernbert.errors import TextError, TokenizerError, naming

UNK, CLS, SEP, PAD, MASK = "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"
ROLES = {"unk": UNK, "cls": CLS, "sep": SEP, "pad": PAD, "mask": MASK}
"""The five special tokens by role, under the names that ModernBERT gives them."""

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIALS = "special_tokens_map.json"


class EncodedWords(NamedTuple):
    """One row of words as tokens."""

    ids: list[int]
    words: list[int]
    """For each token the index of its word; -1 for a special token that we added."""


class EncodedText(NamedTuple):
    """One text as tokens, with their places in it."""

    ids: list[int]
    spans: list[tuple[int, int]]
    """For each token the characters of the text that it stands for, from and up to; (0, 0) for a special token that we added."""


class Tokenizer:
    """A tokenizer with ModernBERT's special tokens; safe to share between threads, because nothing changes its state."""

    def __init__(self, raw: tokenizers.Tokenizer, names: Mapping[str, str]) -> None:
        """Wraps `raw`; most callers want `Tokenizer.load` or `train_tokenizer`.

        Args:
            raw: a tokenizer of the library; its truncation and padding are switched off.
            names: the special tokens by role: cls, sep, pad, mask, and perhaps unk.

        Raises:
            TokenizerError: when a special token other than unk is not in the vocabulary.
        """
        raw.no_truncation()
        raw.no_padding()
        found = {role: raw.token_to_id(name) for role, name in names.items()}
        ids = {role: id for role, id in found.items() if id is not None}
        missing = [name for role, name in names.items() if role not in ids and role != "unk"]
        if missing:
            raise TokenizerError(
                f"the tokenizer has no {' '.join(missing)}; ModernBERT needs them: name its own ones in a {CONFIG} beside it, "
                'such as {"mask_token": "<mask>"}, or train one with `modernbert prepare tokenizer`'
            )
        # a token of the vocabulary that is not marked as special would be cut in pieces when a text names it
        marked = {token.content for token in raw.get_added_tokens_decoder().values()}
        raw.add_special_tokens([names[role] for role in ids if names[role] not in marked])
        if not raw.encode("").ids:
            raw.post_processor = template(raw, names["cls"], names["sep"])
        self._raw = raw
        self._names = {role: names[role] for role in ids}
        self.cls_id, self.sep_id, self.pad_id, self.mask_id = (ids[role] for role in ("cls", "sep", "pad", "mask"))
        self.unk_id = ids.get("unk")
        self.special_ids = frozenset(ids.values())
        self.vocab_size: int = raw.get_vocab_size(with_added_tokens=True)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Loads any `tokenizer.json`: byte-level BPE, WordPiece, Unigram.

        Args:
            path: the file, or the folder that holds it. A tokenizer_config.json or special_tokens_map.json beside it
                says which tokens are special; without them they are `[CLS] [SEP] [PAD] [MASK]` (and `[UNK]`).

        Returns:
            The tokenizer, without the truncation and padding that the file may ask for. A file without a template
            gets `[CLS] A [SEP] B [SEP]`.

        Raises:
            TokenizerError: when the file is missing or damaged, or lacks a special token.
        """
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise TokenizerError(f"no tokenizer at {file}: wanted a {FILE}, or a folder that holds one")
        try:
            raw = tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(f"{file} is damaged or is not a {FILE} ({error}); fetch or write it again") from error
        names = _special_names(file.parent)
        try:
            return cls(raw, names)
        except TokenizerError as error:
            raise TokenizerError(f"{file}: {error}") from None

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids of each text, at full length.

        Args:
            texts: the texts, of any length; `[MASK]` and its kind are read as special tokens.
            special: whether to write `[CLS]` before and `[SEP]` after.

        Raises:
            TextError: when a text is not valid Unicode; says which.
        """
        return [encoding.ids for encoding in self._encode(texts, special=special)]

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Token ids of each pair, `[CLS] A [SEP] B [SEP]`, at full length.

        Raises:
            TextError: when a text is not valid Unicode; says which.
        """
        return [encoding.ids for encoding in self._encode([(first, second) for first, second in pairs], special=True)]

    def encode_words(self, rows: Sequence[Sequence[str]]) -> list[EncodedWords]:
        """Token ids of rows of words, with the word that each token belongs to.

        The tokens are those of the words joined by single spaces. Words encoded on their own lose their leading space,
        which no running text does: NER drops to about 90.5 F1 (facts §2.9).

        Raises:
            TextError: when a word is not valid Unicode; says in which row.
        """
        encodings = self._encode([" ".join(row) for row in rows], special=True, offsets=True)
        return [_words_of(row, encoding) for row, encoding in zip(rows, encodings, strict=True)]

    def encode_with_spans(self, texts: Sequence[str]) -> list[EncodedText]:
        """Token ids of each text at full length, `[CLS]` and `[SEP]` included, with each token's place in the text.

        Raises:
            TextError: when a text is not valid Unicode; says which.
        """
        return [EncodedText(e.ids, e.offsets) for e in self._encode(texts, special=True, offsets=True)]

    def encode_with_bytes(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Token ids of each text without `[CLS]` and `[SEP]`, and how many UTF-8 bytes of it each token stands for.

        In a byte-level vocabulary these are the token's own bytes, so that the bytes of a text add up to its length in the
        tokenizer's Unicode form (NFC). In another one they are those of the characters that it was made from; characters
        cut into several tokens count for the first, and spaces may belong to none.

        Raises:
            TextError: when a text is not valid Unicode; says which.
        """
        sizes = self._byte_level_sizes
        encodings = self._encode(texts, special=False, offsets=sizes is None)
        if sizes is not None:
            return [(encoding.ids, [sizes[id] for id in encoding.ids]) for encoding in encodings]
        return [(e.ids, _bytes_of(text, e.offsets)) for text, e in zip(texts, encodings, strict=True)]

    @cached_property
    def _byte_level_sizes(self) -> dict[int, int] | None:
        """Bytes of each token where the vocabulary spells a byte as a character; None where it does not."""
        if "ByteLevel" not in json.dumps(json.loads(self._raw.to_str())["decoder"]):
            return None
        added = self._raw.get_added_tokens_decoder()
        sizes = {id: len(token) for token, id in self._raw.get_vocab(with_added_tokens=True).items()}
        return sizes | {id: len(token.content.encode()) for id, token in added.items()}

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of `ids`; special tokens are left out unless `special` is true."""
        return self._raw.decode(list(ids), skip_special_tokens=not special)

    def token(self, id: int) -> str:
        """The token as the vocabulary spells it, "ĠParis" for " Paris" in a byte-level one.

        Raises:
            TokenizerError: when there is no such id.
        """
        token = self._raw.id_to_token(id) if 0 <= id < 1 << 32 else None
        if token is None:
            raise TokenizerError(f"no token has id {id}; ids go from 0 to {self.vocab_size - 1}")
        return token

    def id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it; None when it has no such token."""
        return self._raw.token_to_id(token)

    @cached_property
    def sha256(self) -> str:
        """A digest of what the tokenizer does, the same after saving and loading; ties token shards to it."""
        content = json.dumps(json.loads(self._raw.to_str()), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json and the two files by which `transformers.AutoTokenizer` loads it.

        No token type ids are asked for, so that `model(**inputs)` just works. A file appears whole or not at all.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        specials = {f"{role}_token": self._as_json(name) for role, name in self._names.items()}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": 8192,
            # the clean-up would turn " ." into ".", and decoding would not give the text back
            "clean_up_tokenization_spaces": False,
            **{name: {"__type": "AddedToken", **token} for name, token in specials.items()},
        }
        _write(folder / FILE, self._raw.to_str())
        _write(folder / SPECIALS, json.dumps(specials, indent=2, ensure_ascii=False))
        _write(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False))

    def _as_json(self, name: str) -> dict[str, Any]:
        added = next(token for token in self._raw.get_added_tokens_decoder().values() if token.content == name)
        return {
            "content": name,
            "lstrip": added.lstrip,
            "rstrip": added.rstrip,
            "normalized": added.normalized,
            "single_word": added.single_word,
            "special": True,
        }

    def _encode(
        self, inputs: Sequence[str] | Sequence[tuple[str, str]], *, special: bool, offsets: bool = False
    ) -> list[tokenizers.Encoding]:
        encode = self._raw.encode_batch if offsets else self._raw.encode_batch_fast
        try:
            return encode(list(inputs), add_special_tokens=special)
        except TypeError as error:  # all that the library says of a lone surrogate or of what is no string
            raise TextError(_what_is_wrong(inputs)) from error


def template(raw: tokenizers.Tokenizer, cls: str, sep: str) -> processors.PostProcessor:
    """The post-processor that writes `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, without token types."""
    specials = [(name, raw.token_to_id(name)) for name in (cls, sep)]
    return processors.TemplateProcessing(single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B {sep}", special_tokens=specials)


def _special_names(folder: Path) -> dict[str, str]:
    names = dict(ROLES)
    for file in (folder / SPECIALS, folder / CONFIG):
        if not file.is_file():
            continue
        try:
            stated = json.loads(file.read_text(encoding="utf-8"))
            tokens = {role: stated.get(f"{role}_token") for role in ROLES}
        except (ValueError, AttributeError) as error:
            raise TokenizerError(f"{file} is not a JSON object ({error}); fetch it again or delete it") from error
        names |= {role: t["content"] if isinstance(t, dict) else t for role, t in tokens.items() if t}
    return names


def _words_of(row: Sequence[str], encoding: tokenizers.Encoding) -> EncodedWords:
    # word i owns the space before it, where its first token begins
    starts = list(accumulate((len(word) + 1 for word in row[:-1]), initial=-1)) if row else []
    words = [
        -1 if added else bisect_right(starts, end - 1) - 1
        for added, (_, end) in zip(encoding.special_tokens_mask, encoding.offsets, strict=True)
    ]
    return EncodedWords(encoding.ids, words)


def _bytes_of(text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    sizes, done = [], 0
    for start, end in spans:
        sizes.append(len(text[max(start, done) : end].encode()))
        done = max(done, end)
    return sizes


def _what_is_wrong(inputs: Sequence[Any]) -> str:
    for number, text in enumerate(inputs):
        for part in text if isinstance(text, tuple) else (text,):
            if not isinstance(part, str):
                return f"text {number} is of type {type(part).__name__}; wanted a string"
            try:
                part.encode()
            except UnicodeEncodeError as error:
                place = f"a lone surrogate {part[error.start]!r} at character {error.start}"
                return f"text {number} is not valid Unicode: {place}; decode its bytes with errors='replace'"
    raise AssertionError(inputs)


def _write(path: Path, content: str) -> None:
    part = path.with_name(f".{path.name}.part")
    with naming(path):
        part.write_text(content + "\n", encoding="utf-8")
        os.replace(part, path)
