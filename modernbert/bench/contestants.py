"""Who runs beside us in the inference records: each a function from a size to a model that takes rows of ids.

Every contestant has random weights and is given ids that lie on the device already. Peers get their rows padded to the longest, with
an attention mask, as their users do.

B rows · L padded length · T tokens · D hidden.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from modernbert.batch import pack
from modernbert.config import preset
from modernbert.engine.hardware import choose_dtype
from modernbert.errors import MissingExtraError
from modernbert.model.encoder import Encoder
from modernbert.model.fp8 import quantize_fp8
from modernbert.runtime.padding import padded

Rows = Sequence[Sequence[int]]
Prepare = Callable[[str, torch.device], Callable[[Rows], Callable[[], Tensor]]]
"""Size, device → a model: rows → a call that gives their hidden states, on the device."""


def ours(*, fp8: bool = False, float32: bool = False) -> Prepare:
    """Our encoder, packed."""

    def prepare(size: str, device: torch.device) -> Callable[[Rows], Callable[[], Tensor]]:
        torch.manual_seed(0)
        with device:
            model = Encoder(preset(size)).to(torch.float32 if float32 else choose_dtype(device)).eval()
        if fp8:
            quantize_fp8(model)
        return lambda rows: functools.partial(model, pack(rows).to(device))

    return prepare


def peer(model_type: str, attention: str, *, compile: bool = False, float32: bool = False) -> Prepare:
    """An encoder of transformers with one of its attention implementations (eager, sdpa, flash_attention_2)."""

    def prepare(size: str, device: torch.device) -> Callable[[Rows], Callable[[], Tensor]]:
        try:
            import transformers
        except ImportError as error:
            raise MissingExtraError("this record compares with transformers: pip install 'modernbert[hf]'") from error
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(model_type, **_PEER_SIZES[model_type](size))
        dtype = torch.float32 if float32 else choose_dtype(device)
        with device:  # random weights are made there: on the host they take seconds
            model = transformers.AutoModel.from_config(config, attn_implementation=attention, dtype=dtype).eval()
        if compile:
            model = torch.compile(model)

        def encode(ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
            return model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state

        return lambda rows: functools.partial(encode, *(torch.from_numpy(array).to(device) for array in padded(rows, 0)))

    return prepare


IMPLEMENTATIONS: dict[str, Prepare] = {
    "modernbert": ours(),
    "modernbert, fp8": ours(fp8=True),
    "transformers, sdpa": peer("modernbert", "sdpa"),
    "transformers, FlashAttention-2": peer("modernbert", "flash_attention_2"),
    "transformers, sdpa, compiled": peer("modernbert", "sdpa", compile=True),
}
"""The same architecture, run by others."""

_PEERS = {
    "BERT": "bert",
    "RoBERTa": "roberta",
    "NomicBERT": "nomic_bert",
    "EuroBERT": "eurobert",
    "Jina v3": "jina_embeddings_v3",
}
ARCHITECTURES: dict[str, Prepare] = {
    "ModernBERT, ours": ours(),
    "DeBERTa-v3": peer("deberta-v2", "eager"),  # has no other attention
    **{name: peer(model_type, "sdpa") for name, model_type in _PEERS.items()},
    **{f"{name}, FlashAttention-2": peer(model_type, "flash_attention_2") for name, model_type in _PEERS.items()},
}
"""Other architectures, each with every fast attention that transformers has for it (the announcement's efficiency table)."""

TABLES = {"implementations": IMPLEMENTATIONS, "architectures": ARCHITECTURES}
"""By name, as a process of its own is told whom to measure."""


def _shape(size: str, *, positions: int, vocab: int, ratio: float = 4.0) -> dict[str, int]:
    """The classic BERT shapes: base 12 × 768, large 24 × 1,024, MLP four times as wide."""
    layers, width = {"base": (12, 768), "large": (24, 1024)}.get(size, (2, 64))
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": width // 64,
        "intermediate_size": int(ratio * width),
        "vocab_size": vocab,
        "max_position_embeddings": positions,
    }


def _modernbert(size: str) -> dict[str, object]:
    config = preset(size).to_json()
    return {name: value for name, value in config.items() if name not in ("model_type", "architectures")}


def _deberta(size: str) -> dict[str, object]:
    relative = {"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True}
    return {
        **_shape(size, positions=512, vocab=128_100),
        **relative,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    }


_PEER_SIZES: dict[str, Callable[[str], dict]] = {
    "modernbert": _modernbert,
    # BERT and RoBERTa have 512 positions as published; the long columns need more.
    "bert": lambda size: _shape(size, positions=8192, vocab=30_522),
    "roberta": lambda size: _shape(size, positions=8194, vocab=50_265),
    "deberta-v2": _deberta,
    "nomic_bert": lambda size: _shape(size, positions=8192, vocab=30_528),
    "eurobert": lambda size: {**_shape(size, positions=8192, vocab=128_256, ratio=8 / 3), "num_key_value_heads": None},
    "jina_embeddings_v3": lambda size: _shape(size, positions=8194, vocab=250_002),
}
