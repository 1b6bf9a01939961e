"""Encoding on the CPU beside its peers: real tokens a second of one core, and one long document on two.

    modernbert bench cpu --out records

Every contestant is a process of its own with random weights; all take turns, so that a busy machine slows all of them. Time is the CPU
time of one thread, which a busy machine disturbs less than the clock; the document's is the clock's, for two threads.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from modernbert.bench.cpu_contestants import CONTESTANTS
from modernbert.bench.record import environment, summary
from modernbert.config import ModelConfig, preset
from modernbert.errors import ConfigError
from modernbert.kernels import native
from modernbert.kernels.linear_int8 import multiply_bytes, pack_weight, quantize_rows, weight_levels
from modernbert.model.flops import forward_flops_per_token
from modernbert.train.report import figure_class

FIXED, VARIABLE, LONG = "512 fixed", "512 variable", "2,048"
COLUMNS: dict[str, tuple[list[int], int]] = {FIXED: ([512], 512), VARIABLE: ([384, 128], 512), LONG: ([2048], 2048)}
"""Lengths of the rows, and the length that peers pad them to: half of what they compute in the variable column is padding."""
DOCUMENT = 8192
COLORS = {"fp32": "tab:gray", "bf16": "tab:blue", "int8": "tab:green"}
"""Of the ceilings in the picture."""


def cpu_record(
    *,
    size: str = "base",
    repeats: int = 10,
    layers: int | None = None,
    only: Sequence[str] = (),
    document: bool = True,
    columns: dict[str, tuple[list[int], int]] = COLUMNS,
) -> dict[str, Any]:
    """Measures every contestant that runs here; the others are named with the reason.

    Args:
        size: of the model, a name of `config.preset`.
        repeats: measurements of each figure; 2,048 tokens get a third of them.
        layers: fewer than the size has, for a machine with little time; the record says so.
        only: names of `CONTESTANTS`; all where empty.
        document: whether each contestant also reads one document of 8,192 tokens on two threads, once.
        columns: rows, and the length that peers pad them to, by name.

    Raises:
        ConfigError: no such size, or `only` names nobody.
    """
    if nobody := [name for name in only if name not in CONTESTANTS]:
        raise ConfigError(f"no contestant named {', '.join(map(repr, nobody))}; there are {', '.join(map(repr, CONTESTANTS))}")
    config = preset(size) if layers is None else preset(size).with_(num_hidden_layers=layers)
    names = [name for name in CONTESTANTS if not only or name in only]
    load = [os.getloadavg()]
    with tempfile.TemporaryDirectory() as folder:
        workers, skipped = _start(names, config, Path(folder), threads=1)
        speeds: dict[str, dict[str, list[float]]] = {name: {column: [] for column in columns} for name in workers}
        limits: dict[str, dict[str, list[float]]] = {column: {} for column in columns}
        for column, (lengths, padded) in columns.items():
            for worker in workers.values():  # uncounted: memory is new, and some compile for a shape
                worker(lengths, padded)
            for _ in range(max(1, repeats // 3) if max(lengths) > 512 else repeats):
                for name, worker in workers.items():
                    speeds[name][column].append(sum(lengths) / worker(lengths, padded)["process"])
                for kind, limit in ceilings(config, lengths).items():
                    limits[column].setdefault(kind, []).append(limit)
            load.append(os.getloadavg())
        for worker in workers.values():
            worker.close()
        long = {}
        for name in workers if document else ():
            alone, _ = _start([name], config, Path(folder), threads=2)
            long[name] = alone[name]([DOCUMENT], DOCUMENT)
            alone[name].close()
        load.append(os.getloadavg())
    return {
        "subject": "cpu",
        "environment": environment("torch"),
        "size": size,
        "layers": config.num_hidden_layers,
        "threads": 1,
        "load_average": {"least": min(one for one, *_ in load), "greatest": max(one for one, *_ in load)},
        "tokens_per_second": {name: {k: summary(v) for k, v in found.items()} for name, found in speeds.items()},
        "native": sorted(str(kind).removeprefix("torch.") for kind in native.kinds()),
        "ceilings": {column: {kind: summary(v) for kind, v in found.items()} for column, found in limits.items()},
        "document_two_threads": long,
        "skipped": skipped,
    }


def ceilings(config: ModelConfig, lengths: Sequence[int]) -> dict[str, float]:
    """Tokens a second of one core that did nothing but the products and the attention that must be done, by precision.

    Products run at the speed that this core's have now, PyTorch's or ours, whichever is faster; attention at that of floats: float32 for
    fp32, else bf16 where products gain by it.
    """
    speeds = product_speeds(config, min(1024, sum(lengths)))
    floats = max(speeds["fp32"], speeds["bf16"])
    mean_keys = sum(length * length for length in lengths) / sum(lengths)
    products = forward_flops_per_token(config, mean_length=0, masked_share=0.0)
    attention = forward_flops_per_token(config, mean_length=mean_keys, masked_share=0.0) - products
    return {
        name: 1 / (products / speed + attention / (speeds["fp32"] if name == "fp32" else floats))
        for name, speed in speeds.items()
        if speed
    }


def product_speeds(config: ModelConfig, tokens: int) -> dict[str, float]:
    """FLOP a second of one core in the four products of a layer, from operands that are ready; 0 for int8 where no product is exact."""
    width, inside = config.hidden_size, config.intermediate_size
    shapes = ((3 * width, width), (width, width), (2 * inside, width), (width, inside))
    speeds = dict.fromkeys(("fp32", "bf16", "int8"), 0.0)
    work = sum(2.0 * tokens * outputs * inputs for outputs, inputs in shapes)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("int8", torch.int8)):
        for make in (_torch_product, _native_product):
            calls = [make(dtype, tokens, *shape) for shape in shapes]
            if None not in calls:
                speeds[name] = max(speeds[name], work / _least_seconds(calls))
    torch.set_num_threads(threads)
    return speeds


def _torch_product(dtype: torch.dtype, tokens: int, outputs: int, inputs: int) -> Callable[[], object] | None:
    x_TI, weight_OI = torch.randn(tokens, inputs), torch.randn(outputs, inputs)
    if dtype != torch.int8:
        return partial(F.linear, x_TI.to(dtype), weight_OI.to(dtype))
    levels = weight_levels()
    if levels is None:
        return None
    numbers_OI, scale_O = quantize_rows(weight_OI, levels)
    return partial(multiply_bytes, quantize_rows(x_TI)[0].view(torch.uint8).bitwise_xor_(128), pack_weight(numbers_OI), scale_O)


def _native_product(dtype: torch.dtype, tokens: int, outputs: int, inputs: int) -> Callable[[], object] | None:
    if dtype not in native.kinds() or not native.fits(outputs, inputs):
        return None
    x_TI, weight_OI = torch.randn(tokens, inputs), torch.randn(outputs, inputs)
    weight = native.pack(*quantize_rows(weight_OI, native.levels())) if dtype == torch.int8 else native.pack(weight_OI.to(dtype))
    y_TO = torch.empty((tokens, outputs), dtype=torch.float32 if dtype == torch.float32 else torch.bfloat16)
    return partial(native.product, native.rows(x_TI, dtype), weight, y_TO)


def _least_seconds(calls: Sequence[Callable[[], object] | None]) -> float:
    found = []
    for _ in range(4):  # the first warms up
        start = time.thread_time()
        for call in calls:
            assert call is not None
            call()
        found.append(time.thread_time() - start)
    return min(found[1:])


class Worker:
    """A contestant in a process of its own."""

    def __init__(self, name: str, config: ModelConfig, folder: Path, threads: int) -> None:
        given = json.dumps([name, config.to_json(), str(folder), threads])
        code = "from modernbert.bench.cpu import serve; serve()"
        environ = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        )
        self.refused: str | None = self._line()["refused"]

    def __call__(self, lengths: Sequence[int], padded: int) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([lengths, padded]) + "\n")
        self.process.stdin.flush()
        return self._line()

    def close(self) -> None:
        self.process.communicate()

    def _line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"refused": "the process ended; its message is above"}


def serve() -> None:
    """What a worker's process does: prepares its contestant, then answers each line of lengths with times and peak memory."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print where they like
    name, config_json, folder, threads = json.loads(sys.argv[1])
    torch.set_num_threads(threads)
    config = ModelConfig.from_json(config_json)

    def answer(found: dict[str, Any]) -> None:
        print(json.dumps(found), file=answers, flush=True)

    try:
        encode = CONTESTANTS[name](config, Path(folder), threads)
        encode([[5] * 64], 64)
    except Exception as error:  # a peer may fail in any way: the record says which
        answer({"refused": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"})
        return
    answer({"refused": None})
    rng = random.Random(0)
    for line in sys.stdin:
        lengths, padded = json.loads(line)
        rows = [[rng.randrange(5, config.vocab_size) for _ in range(length)] for length in lengths]
        wall, process = time.perf_counter(), time.process_time()
        encode(rows, padded)
        process, wall = time.process_time() - process, time.perf_counter() - wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform != "darwin" else 1 << 30)
        answer({"process": process, "wall": wall, "peak_gib": peak})


def _start(names: Sequence[str], config: ModelConfig, folder: Path, threads: int) -> tuple[dict[str, Worker], dict[str, str]]:
    workers, skipped = {}, {}
    for name in names:
        worker = Worker(name, config, folder, threads)
        if worker.refused is None:
            workers[name] = worker
        else:
            skipped[name] = worker.refused
            worker.close()
    return workers, skipped


def markdown(record: dict[str, Any]) -> str:
    """The record as a page's tables."""
    speeds = record["tokens_per_second"]
    columns, limits = list(record["ceilings"]), record["ceilings"]
    lines = [f"| tokens/s, one core | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name, found in speeds.items():
        lines.append(f"| {name} | {' | '.join(_cell(found[column]) for column in columns)} |")
    for kind in limits[columns[0]]:
        lines.append(f"| ceiling of {kind}, measured | {' | '.join(_cell(limits[column][kind]) for column in columns)} |")
        if ours := speeds.get(f"modernbert, {kind}"):
            shares = (f"{ours[column]['median'] / limits[column][kind]['median']:.0%}" for column in columns)
            lines.append(f"| our {kind}, share of it | {' | '.join(shares)} |")
    if record["document_two_threads"]:
        lines += ["", "| 8,192 tokens, two threads | seconds | CPU seconds | peak GiB |", "|---|---:|---:|---:|"]
        for name, found in record["document_two_threads"].items():
            lines.append(f"| {name} | {found['wall']:.1f} | {found['process']:.1f} | {found['peak_gib']:.2f} |")
    lines += ["", *(f"- not run: {name}: {reason}" for name, reason in record["skipped"].items())]
    return "\n".join(lines).rstrip() + "\n"


def _cell(found: dict[str, Any]) -> str:
    return f"{found['median']:.0f} ({found['min']:.0f} – {found['max']:.0f}, n = {found['n']})"


def write(record: dict[str, Any], folder: Path) -> None:
    """Writes cpu.json, cpu.md and cpu.png into a folder.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "cpu.md").write_text(markdown(record))
    _draw(record, folder / "cpu.png")


def _draw(record: dict[str, Any], path: Path) -> None:
    speeds, columns = record["tokens_per_second"], list(record["ceilings"])
    figure = figure_class()(figsize=(11, 4), layout="constrained")
    for axes, column in zip(figure.subplots(1, len(columns), sharey=True, squeeze=False)[0], columns, strict=True):
        medians = [found[column]["median"] for found in speeds.values()]
        colors = ["tab:orange" if name.startswith("modernbert") else "tab:gray" for name in speeds]
        bars = axes.barh(list(speeds), medians, color=colors)
        axes.bar_label(bars, fmt="%.0f", padding=3)
        for kind, limit in record["ceilings"][column].items():
            axes.axvline(limit["median"], color=COLORS[kind], linestyle=":", label=f"ceiling, {kind}")
        axes.set(title=column, xlabel="real tokens a second, one core")
        axes.margins(x=0.18)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    figure.axes[0].legend(loc="lower right")
    figure.savefig(path, dpi=110)
