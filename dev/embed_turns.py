"""Passes of `embed` over many texts by several settings in turn, in one process, and where the GPU stands still.

python dev/embed_turns.py texts.jsonl out.json [--turns 7] [--only NAME ...] [--theirs 2] [--seconds 200]

Base with random weights and `tiny`'s tokenizer. Each setting has two passes that do not count, in which kernels and graphs are made.
What is measured is written after every turn.
"""

import argparse
import functools
import json
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from modernbert.bench.measures import compiled
from modernbert.bench.record import environment, summary
from modernbert.checkpoint.folder import save_model
from modernbert.checkpoint.names import resolve
from modernbert.config import preset
from modernbert.engine import stream
from modernbert.engine.engine import Engine, load
from modernbert.model.heads import Embedder
from modernbert.model.init import init_weights
from modernbert.text.rows import TruncationWarning
from modernbert.text.tokenizer import Tokenizer

SETTINGS: dict[str, dict[str, Any]] = {
    "bf16": {"dtype": None},
    "bf16, no graphs": {"dtype": None, "graphs": False},
    "fp8": {"dtype": "fp8"},
    "fp8, no graphs": {"dtype": "fp8", "graphs": False},
    "fp8, 131,072 tokens": {"dtype": "fp8", "tokens": 131_072},
}


def engine_of(folder: Path, device: str, setting: dict[str, Any]) -> Engine:
    engine = load(folder, device=device, dtype=setting["dtype"])
    if not setting.get("graphs", True):
        engine._runner.stream.graphs = None
    engine._runner._tokens = setting.get("tokens", 65_536) - 1
    return engine


def one_pass(engine: Engine, texts: list[str], setting: dict[str, Any]) -> None:
    stream.GPU_TOKENS = setting.get("tokens", 65_536)
    stream.FULL_FROM = stream.GPU_TOKENS - stream.GPU_TOKENS // 16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        engine.embed(texts, truncate=True)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def busy(call: Callable[[], object]) -> dict[str, Any]:
    """Seconds from the GPU's first work to its last, and of these with none."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    spans = sorted(
        (event.start_ns(), event.end_ns())
        for event in profile.profiler.kineto_results.events()
        if event.device_type() == torch.autograd.DeviceType.CUDA
    )
    end, gaps = spans[0][1], []
    for begin, until in spans:
        if begin > end:
            gaps.append((begin - end, end - spans[0][0]))
        end = max(end, until)
    whole = (end - spans[0][0]) / 1e9
    idle = sum(gap for gap, _ in gaps) / 1e9
    long = [[round(gap / 1e6, 2), round(at / 1e6)] for gap, at in gaps if gap > 1_000_000]
    return {"whole_s": whole, "idle_s": idle, "starts": len(spans), "gaps_over_1_ms_and_where_ms": long}


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("texts")
    given.add_argument("out")
    given.add_argument("--turns", type=int, default=7)
    given.add_argument("--only", nargs="*", default=list(SETTINGS))
    given.add_argument("--theirs", type=int, default=2, help="passes of sentence-transformers, FlashAttention-2, 512 rows")
    given.add_argument("--seconds", type=float, default=1e9, help="no turn begins later")
    given.add_argument("--device", default="cuda")
    given.add_argument("--size", default="base")
    options = given.parse_args()
    begun = time.perf_counter()
    texts = [json.loads(line)["text"] for line in Path(options.texts).read_text().splitlines()]
    record: dict[str, Any] = {"environment": environment("torch"), "seconds": {}, "tokens_per_second": {}}
    if options.device == "cuda":
        record["device"] = torch.cuda.get_device_name()

    def keep() -> None:
        for name, times in record["seconds"].items():
            record["tokens_per_second"][name] = summary([tokens / s for s in times])
        Path(options.out).write_text(json.dumps(record, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        config = preset(options.size)
        model = Embedder(config)
        init_weights(model, config, torch.Generator().manual_seed(0))
        tokenizer = Tokenizer.load(resolve("tiny"))
        save_model(model, config, folder, tokenizer=tokenizer)
        start = time.perf_counter()
        tokens = sum(min(len(row), config.max_position_embeddings) for row in tokenizer.encode(texts))
        record |= {"tokens": tokens, "tokenizer_tokens_per_second": tokens / (time.perf_counter() - start), "first_passes_s": {}}
        print(f"{time.perf_counter() - begun:.0f} s: {tokens:,} tokens", flush=True)
        engines = {name: engine_of(folder, options.device, SETTINGS[name]) for name in options.only}
        for name in list(engines):
            try:
                times = [seconds(functools.partial(one_pass, engines[name], texts, SETTINGS[name])) for _ in range(2)]
                record["first_passes_s"][name] = times
            except RuntimeError as error:
                traceback.print_exc()
                record["first_passes_s"][name] = f"{error}"[:500]
                del engines[name]
                continue
            kept = engines[name]._runner.stream.graphs
            print(
                f"{time.perf_counter() - begun:.0f} s: {name}",
                record["first_passes_s"][name],
                list(kept.kept) if kept else 0,
                flush=True,
            )
        before = compiled()
        for _ in range(options.turns):
            for name, engine in engines.items():
                if time.perf_counter() - begun < options.seconds:
                    one = seconds(functools.partial(one_pass, engine, texts, SETTINGS[name]))
                    record["seconds"].setdefault(name, []).append(one)
            keep()
        record["compiled_in_turns"] = compiled() - before
        print(f"{time.perf_counter() - begun:.0f} s: {record['tokens_per_second']}", flush=True)
        if options.device == "cuda":
            record["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            record["busy"] = {n: busy(functools.partial(one_pass, e, texts, SETTINGS[n])) for n, e in engines.items()}
            keep()
            print(f"{time.perf_counter() - begun:.0f} s: {record['busy']}", flush=True)
        if options.theirs:
            from sentence_transformers import SentenceTransformer

            attention = "flash_attention_2" if options.device == "cuda" else "sdpa"
            settings = {"attn_implementation": attention, "dtype": torch.bfloat16}
            theirs = SentenceTransformer(str(folder), device=options.device, model_kwargs=settings)
            theirs.encode(texts[:3000], batch_size=512)
            for _ in range(options.theirs):
                name = "sentence-transformers, FlashAttention-2, 512 rows"
                record["seconds"].setdefault(name, []).append(seconds(lambda: theirs.encode(texts, batch_size=512)))
                keep()
                print(f"{time.perf_counter() - begun:.0f} s: {record['tokens_per_second'][name]}", flush=True)


if __name__ == "__main__":
    main()
