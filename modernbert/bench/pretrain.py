"""Throughput of pre-training: the real loop on real shards, with loader, head, optimizer and log; transformers beside it.

    modernbert bench pretrain SHARDS

Each case is a run of `pretrain` with its checkpoint at the end; the first lines of its log, in which the compiler works, are left out.
transformers trains the same shape on full rows of random ids: AdamW, autocast, SDPA, its loss over the masked positions.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from modernbert.bench.record import environment, summary
from modernbert.config import ModelConfig, preset
from modernbert.errors import MissingExtraError
from modernbert.model.losses import IGNORE
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.pretrain import pretrain
from modernbert.train.report import read_log
from modernbert.train.settings import Phase, PretrainConfig

try:
    import transformers
except ImportError as error:
    raise MissingExtraError("this record compares with transformers: pip install 'modernbert[hf]'") from error

MASK_RATE = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One shape of model and rows."""

    name: str
    model: ModelConfig
    length: int
    micro_batch_tokens: int = 65_536
    peer_tokens: int = 32_768
    """Tokens of a step of transformers, which holds the scores of every position."""


CASES = (
    Case(name="base, rows of 1,024", model=preset("base"), length=1024),
    Case(name="base, rows of 8,192", model=preset("base"), length=8192),
    Case(name="17m, rows of 1,024", model=preset("ettin_17m"), length=1024, micro_batch_tokens=131_072),
    Case(name="large, rows of 1,024", model=preset("large"), length=1024, peer_tokens=16_384),
)


def pretrain_record(
    shards: str | Path, *, steps: int = 60, warm: int = 20, device: str = "auto", cases: tuple[Case, ...] = CASES
) -> dict[str, Any]:
    """Measures every case on one device.

    Args:
        shards: token shards; rows hold documents of the lengths that these have, and the vocabulary is theirs.
        steps: logged optimizer steps of each case, ours and transformers'.
        warm: steps at the beginning that do not count.
        device: as in `PretrainConfig`.
        cases: shapes.
    """
    return {
        "subject": "pretrain",
        "environment": environment("torch", "transformers"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "steps": steps,
        "cases": {case.name: _measure(case, shards, steps, warm, device) for case in cases},
    }


def markdown(record: dict[str, Any]) -> str:
    """The record as a table."""
    lines = [
        "| case | ours, tokens/s (least … most) | TFLOP/s | GiB | waiting | transformers, tokens/s | GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, case in record["cases"].items():
        ours, peer = case["tokens_per_second"], case["transformers"]
        lines.append(
            f"| {name} | {ours['median']:,.0f} ({ours['min']:,.0f} … {ours['max']:,.0f}) | {case['tflops']:.1f} | {case['peak_gib']:.2f} "
            f"| {case['waiting']:.2%} | {peer['tokens_per_second']['median']:,.0f} | {peer['peak_gib']:.2f} |"
        )
    return "\n".join(lines)


def _measure(case: Case, shards: str | Path, steps: int, warm: int, device: str) -> dict[str, Any]:
    on_gpu = torch.cuda.is_available() and device != "cpu"
    with tempfile.TemporaryDirectory() as folder:
        config = PretrainConfig(
            model=case.model,
            shards=(str(shards),),
            out=folder,
            phases=(Phase(tokens=int((steps + warm) * case.micro_batch_tokens * 0.99), length=case.length, mask_rate=MASK_RATE),),
            optimizer=OptimizerConfig(lr=1e-4),
            micro_batch_tokens=case.micro_batch_tokens,
            compute_dtype="bfloat16" if on_gpu else "float32",
            compile=on_gpu,
            device=device,
            save_every_tokens=10**15,
            log_every_steps=max(1, steps // 10),
        )
        _forget_peak()
        pretrain(config)
        lines = [line for line in read_log(Path(folder))[0] if line["step"] > warm]
        peak = _peak_gib()
    speeds = [line["tokens_per_second"] for line in lines]
    return {
        "tokens_per_second": summary(speeds),
        "tflops": lines[len(lines) // 2]["tflops"],
        "fill": lines[-1]["fill"],
        "waiting": max(line["waiting"] for line in lines),
        "peak_gib": peak,
        "transformers": _transformers(case, steps, warm, torch.device("cuda" if on_gpu else "cpu")),
    }


def _transformers(case: Case, steps: int, warm: int, device: torch.device) -> dict[str, Any]:
    config = transformers.ModernBertConfig.from_dict(case.model.to_json(), attn_implementation="sdpa")
    model = transformers.ModernBertForMaskedLM(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type == "cuda")
    rows = max(1, case.peer_tokens // case.length)
    _forget_peak()
    seconds = []
    for _ in range(warm + steps):
        ids_BL = torch.randint(case.model.vocab_size - 100, (rows, case.length), device=device)
        labels_BL = ids_BL.masked_fill(torch.rand(ids_BL.shape, device=device) > MASK_RATE, IGNORE)
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(input_ids=ids_BL, labels=labels_BL).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return {"tokens_per_second": summary([rows * case.length / s for s in seconds[warm:]]), "peak_gib": _peak_gib()}


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gib() -> float:
    """Of the GPU; 0 without one, where the process's peak would be that of all cases before."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
