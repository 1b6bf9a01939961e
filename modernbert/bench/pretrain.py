"""Throughput of pre-training: the real loop with loader, head, optimizer and log; transformers beside it.

    modernbert bench pretrain

Each case is a run of `pretrain`; the first lines of its log, in which the compiler works, are left out. Its documents are made up: ids
by Zipf's law over the whole vocabulary of the model, lengths as the case says, written as shards and read, packed and masked as any
others. transformers trains the same shape on full rows of random ids, or where the case says so on rows padded to the longest: AdamW,
autocast, SDPA, its loss over the masked positions.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modernbert.bench.record import environment, summary
from modernbert.config import ModelConfig, preset
from modernbert.data.packing import SPECIALS
from modernbert.data.shard_writing import write_rows_of_ids
from modernbert.engine.hardware import choose_device
from modernbert.errors import MissingExtraError
from modernbert.model.losses import IGNORE
from modernbert.text.train import train_tokenizer
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
    documents: tuple[float, float] | None = None
    """Mean and standard deviation of the documents' lengths in tokens; None fills every row with one document."""
    micro_batch_tokens: int = 65_536
    micro_batches: int = 1
    peer_tokens: int = 32_768
    """Tokens of a step of transformers, padding included: it holds the scores of every position; 0 leaves it out."""


def _cases() -> dict[str, Case]:
    base, small, large = preset("base"), preset("ettin_17m"), preset("large")
    return {
        "base": Case(name="base, rows of 1,024, full", model=base, length=1024),
        "base-packed": Case(name="base, rows of 1,024, documents of 400 ± 300", model=base, length=1024, documents=(400, 300)),
        "base-8k": Case(name="base, rows of 8,192, one document each", model=base, length=8192),
        "base-8k-packed": Case(name="base, rows of 8,192, documents of 4,096 ± 2,048", model=base, length=8192, documents=(4096, 2048)),
        "17m": Case(name="17m, rows of 1,024, full", model=small, length=1024, micro_batch_tokens=131_072),
        "17m-packed": Case(
            name="17m, rows of 1,024, documents of 400 ± 300", model=small, length=1024, documents=(400, 300), micro_batch_tokens=131_072
        ),
        "large": Case(
            name="large, rows of 1,024, full", model=large, length=1024, micro_batch_tokens=32_768, micro_batches=2, peer_tokens=16_384
        ),
    }  # fmt: skip


CASES = _cases()


def pretrain_record(
    shards: str | Path | None = None,
    *,
    steps: int = 60,
    warm: int = 20,
    device: str = "auto",
    cases: Sequence[Case] = tuple(CASES.values()),
    peers: bool = True,
    deterministic: bool = False,
    norms_again: bool = False,
) -> dict[str, Any]:
    """Measures every case on one device.

    Args:
        shards: token shards to read in place of made-up ones; rows then hold documents of their lengths, and the vocabulary is theirs.
        steps: logged optimizer steps of each case; transformers takes half as many.
        warm: steps at the beginning that do not count, in which the compiler works; transformers' are at most five.
        device: as in `PretrainConfig`.
        cases: shapes.
        peers: whether transformers trains, too.
        deterministic, norms_again: as in `PretrainConfig`.

    Raises:
        HardwareError: the device is not there.
    """
    choose_device(None if device == "auto" else device)  # now, not after a case's documents are made
    changes = {"deterministic": deterministic, "norms_again": norms_again}
    return {
        "subject": "pretrain",
        "environment": environment("torch", "transformers"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "steps": steps,
        "deterministic": deterministic,
        "norms_again": norms_again,
        "cases": {case.name: measure(case, shards, steps, warm, device, peers, changes) for case in cases},
    }


def made_up_shards(folder: str | Path, case: Case, tokens: int) -> Path:
    """Shards of `tokens` random tokens in documents of the case's lengths, with a tokenizer of the model's vocabulary."""
    rng = np.random.default_rng(0)
    room, vocab = case.length - SPECIALS, case.model.vocab_size
    tokenizer = train_tokenizer(["made up"], vocab)
    ordinary = np.setdiff1d(np.arange(vocab), list(tokenizer.special_ids))
    common = np.cumsum(1 / (np.arange(len(ordinary)) + 2.7))  # Zipf and Mandelbrot's law
    ids = rng.permutation(ordinary)[np.searchsorted(common / common[-1], rng.random(tokens))]
    mean, spread = case.documents or (room, 0)
    count = int(tokens / mean) + 1
    lengths = rng.normal(mean, spread, count).clip(min(16, room), room).astype(int)
    ends = np.cumsum(lengths)
    write_rows_of_ids(np.split(ids, ends[ends < tokens])[:-1], tokenizer, folder)
    return Path(folder)


def run_of(case: Case, shards: str | Path, out: str | Path, *, steps: int, warm: int, device: str) -> PretrainConfig:
    """A run of a case's shape: `warm` steps, and `steps` more in ten lines of the log or more; on a CPU in float32, not compiled."""
    step_tokens = case.micro_batch_tokens * case.micro_batches
    return PretrainConfig(
        model=case.model,
        shards=(str(shards),),
        out=str(out),
        phases=(Phase(tokens=int((steps + warm) * step_tokens * 0.9), length=case.length, mask_rate=MASK_RATE),),
        optimizer=OptimizerConfig(lr=1e-4),
        micro_batch_tokens=case.micro_batch_tokens,
        micro_batches=case.micro_batches,
        compute_dtype="float32" if device == "cpu" else "bfloat16",
        compile=device != "cpu",
        device=device,
        save_every_tokens=10**15,
        log_every_steps=max(1, steps // 12),
    )


def markdown(record: dict[str, Any]) -> str:
    """The record as a table."""
    spread = "tokens/s (least – most, n)"
    columns = ["case", f"ours, {spread}", "TFLOP/s", "of peak", "GiB", "waiting", f"transformers, {spread}", "GiB", "times"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, case in record["cases"].items():
        speeds, peer = case["tokens_per_second"], case["transformers"]
        peak = f"{case['of_peak']:.1%}" if case["of_peak"] else "–"
        ours = f"| {name} | {_spread(speeds)} | {case['tflops']:.1f} | {peak} | {case['peak_gib']:.2f} | {case['waiting']:.2%} |"
        if peer:
            theirs = peer["tokens_per_second"]
            beside = f" {_spread(theirs)} | {peer['peak_gib']:.2f} | {speeds['median'] / theirs['median']:.2f} |"
        else:
            beside = " – | – | – |"
        lines.append(ours + beside)
    return "\n".join(lines)


def _spread(speeds: dict[str, Any]) -> str:
    return f"{speeds['median']:,.0f} ({speeds['min']:,.0f} – {speeds['max']:,.0f}, {speeds['n']})"


def measure(
    case: Case, shards: str | Path | None, steps: int, warm: int, device: str, peers: bool, changes: dict[str, bool]
) -> dict[str, Any]:
    """One case's figures, with some settings changed."""
    on_gpu = torch.cuda.is_available() and device != "cpu"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokens = max(1 << 22, 8 * case.micro_batch_tokens) if on_gpu else 1 << 15
        source = shards or made_up_shards(folder / "shards", case, tokens)
        config = run_of(case, source, folder / "run", steps=steps, warm=warm, device=device if on_gpu else "cpu")
        _forget_peak()
        pretrain(dataclasses.replace(config, **changes))  # type: ignore[arg-type]
        lines = [line for line in read_log(folder / "run")[0] if line["step"] > warm]
        peak = _peak_gib()
    speeds = [line["tokens_per_second"] for line in lines]
    return {
        "tokens_per_second": summary(speeds),
        "tflops": statistics.median(line["tflops"] for line in lines),
        "of_peak": statistics.median(line["of_peak"] for line in lines) if "of_peak" in lines[0] else None,
        "fill": lines[-1]["fill"],
        "waiting": max(line["waiting"] for line in lines),
        "peak_gib": peak,
        "loss": lines[-1]["loss"],
        "transformers": _transformers(case, steps // 2, min(warm, 5), torch.device("cuda" if on_gpu else "cpu"))
        if peers and case.peer_tokens
        else None,
    }


def _transformers(case: Case, steps: int, warm: int, device: torch.device) -> dict[str, Any]:
    config = transformers.ModernBertConfig.from_dict(case.model.to_json(), attn_implementation="sdpa")
    model = transformers.ModernBertForMaskedLM(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type == "cuda")
    rng, room = np.random.default_rng(0), case.length - SPECIALS
    mean, spread = case.documents or (room, 0)
    rows = max(1, case.peer_tokens // case.length)  # padded to the longest: documents of any length take the memory of full rows
    _forget_peak()
    speeds = []
    for _ in range(warm + steps):
        lengths = SPECIALS + rng.normal(mean, spread, rows).clip(min(16, room), room).astype(int)
        ids_BL = torch.randint(case.model.vocab_size - 100, (rows, int(lengths.max())), device=device)
        there_BL = torch.arange(ids_BL.shape[1], device=device) < torch.from_numpy(lengths).to(device)[:, None]
        chosen_BL = (torch.rand(ids_BL.shape, device=device) < MASK_RATE) & there_BL
        labels_BL = ids_BL.masked_fill(~chosen_BL, IGNORE)
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(input_ids=ids_BL, attention_mask=there_BL.long() if spread else None, labels=labels_BL).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        speeds.append(int(lengths.sum()) / (time.perf_counter() - began))
    return {"tokens_per_second": summary(speeds[warm:]), "peak_gib": _peak_gib()}


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gib() -> float:
    """Of the GPU; 0 without one, where the process's peak would be that of all cases before."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
