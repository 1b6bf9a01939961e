"""Texts of 100 words to vectors on a CPU: `tiny-embed` beside all-MiniLM-L6-v2 in sentence-transformers and in ONNX Runtime's int8.

    python dev/embed_cpu.py MINILM CORPUS --threads 2            # texts a second by the clock
    python dev/embed_cpu.py MINILM CORPUS --threads 1 --process  # of a core's own time: for a machine that others use, too

MINILM is a folder of sentence-transformers, CORPUS a file with a `text` in each row, such as nq_oracle's; its first 64 texts of 100 words
and more are cut to 100. All contestants take turns in one process. MiniLM cuts texts at its 256 tokens and runs in batches of 32, as its
users run it; its graph is exported by torch.onnx with mean and norm, quantised dynamically per tensor, and reads texts sorted by length.
"""

import argparse
import functools
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.bench.record import environment, summary
from modernbert.data.tables import read_table
from modernbert.engine.engine import load

WORDS, TEXTS, BATCH = 100, 64, 32


class Pooled(nn.Module):
    """A sentence-transformers encoder with mean pooling, from two tensors to one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        states_BLD = self.model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        weight_BL1 = mask_BL[..., None].to(states_BLD)
        return F.normalize((states_BLD * weight_BL1).sum(1) / weight_BL1.sum(1), dim=-1)


def onnx_int8(peer: Any, folder: Path, threads: int) -> Callable[[list[str]], np.ndarray]:
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    ids_BL = torch.randint(5, 1000, (2, 70))
    any_size = {0: torch.export.Dim("rows", min=1, max=512), 1: torch.export.Dim("tokens", min=2, max=256)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Pooled(peer[0].auto_model).eval(),
            (ids_BL, torch.ones_like(ids_BL)),
            folder / "model.onnx",
            input_names=["ids", "mask"],
            dynamo=True,
            dynamic_shapes=(any_size, any_size),
            external_data=False,
            verbose=False,
        )
    quantize_dynamic(folder / "model.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(folder / "int8.onnx", options, providers=["CPUExecutionProvider"])

    def embed(texts: list[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: list[Any] = [None] * len(texts)
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            rows = peer.tokenizer([texts[i] for i in some], padding=True, truncation=True, max_length=256, return_tensors="np")
            (vectors,) = session.run(None, {"ids": rows["input_ids"], "mask": rows["attention_mask"]})
            for place, vector in zip(some, vectors, strict=True):
                found[place] = vector
        return np.stack(found)

    return embed


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("minilm")
    given.add_argument("corpus")
    given.add_argument("--threads", type=int, default=2)
    given.add_argument("--process", action="store_true", help="process time in place of the clock's")
    given.add_argument("--turns", type=int, default=10)
    options = given.parse_args()
    torch.set_num_threads(options.threads)
    from sentence_transformers import SentenceTransformer

    long = (str(row["text"]).split() for _, row in read_table(options.corpus))
    texts = [
        " ".join(words[:WORDS]) for words, _ in zip((words for words in long if len(words) >= WORDS), range(TEXTS), strict=False)
    ]
    peer = SentenceTransformer(options.minilm, device="cpu")
    contestants: dict[str, Callable[[list[str]], np.ndarray]] = {
        "MiniLM, sentence-transformers": functools.partial(peer.encode, batch_size=BATCH),
        **{
            f"tiny-embed, {dtype}": functools.partial(load("tiny-embed", device="cpu", dtype=dtype).embed, prompt_name="document")
            for dtype in ("float32", "bfloat16", "int8")
        },
    }
    clock = time.process_time if options.process else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        contestants["MiniLM, ONNX Runtime int8"] = onnx_int8(peer, Path(folder), options.threads)
        cosine = (contestants["MiniLM, ONNX Runtime int8"](texts) * peer.encode(texts)).sum(-1)
        speeds: dict[str, list[float]] = {name: [] for name in contestants}
        loads = [os.getloadavg()[0]]
        for turn in range(options.turns + 1):
            for name, embed in contestants.items():
                start = clock()
                embed(texts)
                if turn:  # the first warms up
                    speeds[name].append(len(texts) / (clock() - start))
        loads.append(os.getloadavg()[0])
    base = np.array(speeds["MiniLM, sentence-transformers"])
    quick = np.array(speeds["MiniLM, ONNX Runtime int8"])
    record = {
        "environment": environment("torch", "sentence-transformers", "onnxruntime"),
        "texts": len(texts),
        "threads": options.threads,
        "time": "process" if options.process else "clock",
        "load": loads,
        "cosine_of_minilm_int8": float(cosine.mean()),
        "texts_per_second": {name: summary(found) for name, found in speeds.items()},
        "times_minilm": {name: summary((np.array(found) / base).tolist()) for name, found in speeds.items()},
        "times_minilm_int8": {name: summary((np.array(found) / quick).tolist()) for name, found in speeds.items()},
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
