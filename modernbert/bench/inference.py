"""Inference on a GPU, with the peers beside it: tokens a second, latency, memory, largest batch, and `embed` end to end.

    modernbert bench inference --out records/h100

Parts, each of them a table of the record:

    encoder      tokens/s of the encoder alone, fixed and variable lengths, at 512 and 8,192, with the share of the roofline and peak memory
    latency      one row of 16 tokens, from ids on the device to hidden states on the host; by the engine from ids to the vector on the host
    accuracy     error of 16-bit hidden states against float32, ours and transformers', same weights and ids
    peers        other architectures: the columns of `encoder`
    largest      … and the rows of the largest batch that fits into memory, in each column
    embed        real texts through `embed` and through sentence-transformers' `encode`, from strings to vectors

Each contestant runs in a process of its own, one after the other. Variable lengths are normal around half the maximum, their sd a quarter
of it, cut to 16 … maximum, in random order. The roofline of a column is the time of its products and attention, each measured alone.
"""

import concurrent.futures
import contextlib
import functools
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from modernbert.bench import measures
from modernbert.bench.contestants import TABLES
from modernbert.bench.measures import Columns
from modernbert.bench.record import environment
from modernbert.checkpoint.atomic import staged
from modernbert.checkpoint.folder import save_model
from modernbert.config import preset
from modernbert.engine.hardware import choose_device
from modernbert.errors import ConfigError, MissingExtraError
from modernbert.kernels.linear_fp8 import fp8_runs_on
from modernbert.model.heads import Embedder
from modernbert.model.init import init_weights
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.report import figure_class

PARTS = ("encoder", "latency", "accuracy", "peers", "largest", "embed")
BATCH_TOKENS = 65_536
"""Tokens of a full batch: 128 rows of 512, 8 of 8,192."""
THEIR_SHARE = 20
"""sentence-transformers looks for its best setting on the first of so many parts of the texts: all of them take it half a minute a time."""
THEIR_SETTINGS = (
    ("sdpa", 32),
    ("flash_attention_2", 128),
    ("flash_attention_2", 256),
    ("flash_attention_2", 512),
)
"""Attention and rows of a batch. With 32 rows, its default, it waits for the host."""
THEIR_REPEATS = 3
"""Of each of them, and of the best with all texts."""

FIRST_VECTORS = 6
"""Processes in turn, of which the first fills the caches of Python and Triton."""

ROOFLINE = "roofline_tokens_per_second"

COLUMNS: Columns = {
    "512 fixed": (512, False),
    "512 variable": (512, True),
    "8,192 fixed": (8192, False),
    "8,192 variable": (8192, True),
}


def inference_record(
    *,
    parts: Sequence[str] = PARTS,
    sizes: Sequence[str] = ("base", "large"),
    batch_tokens: int = BATCH_TOKENS,
    repeats: int = 10,
    device: str | None = None,
    memory_gib: float | None = None,
    only: Sequence[str] = (),
    texts: Sequence[str] = (),
    tokenizer: Path | None = None,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Measures the parts, a process for each contestant.

    Args:
        parts: of `PARTS`.
        sizes: published sizes.
        batch_tokens: of a batch without padding; columns whose rows are longer are left out.
        repeats: measurements of each figure.
        device: None takes the best one here.
        memory_gib: of the device that a contestant may use, for the largest batch; None is all.
        only: contestants of `encoder`, `latency`, `peers` and `largest`; nothing is all.
        texts, tokenizer: for `embed`.
        kept: a folder that gets each measurement as it ends; what is there is not measured again.

    Raises:
        ConfigError: `only` names nobody.
    """
    known = dict.fromkeys(name for table in TABLES.values() for name in table)
    if nobody := [name for name in only if name not in known]:
        raise ConfigError(f"no contestant named {', '.join(map(repr, nobody))}; there are {', '.join(map(repr, known))}")
    alone, each = functools.partial(_alone, kept), functools.partial(_each, kept, only)
    where = str(choose_device(device))
    columns = {name: column for name, column in COLUMNS.items() if column[0] <= batch_tokens}
    common = (columns, batch_tokens, where, repeats)
    measured: dict[str, Any] = {}
    for part in parts:
        if part == "encoder":
            measured[part] = {size: each("implementations", measures.speeds, size, *common) for size in sizes}
            measured["roofline"] = {size: alone(f"roofline {size}", measures.roofline, size, *common) for size in sizes}
        elif part == "latency":
            measured[part] = {
                size: {"modernbert, engine": alone(f"query {size}", measures.query, size, where, 20 * repeats)}
                | each("implementations", measures.latency, size, where, 20 * repeats)
                for size in sizes
            }
        elif part == "accuracy":
            measured[part] = {size: alone(f"accuracy {size}", measures.accuracy, size, where) for size in sizes}
        elif part == "peers":
            measured[part] = {size: each("architectures", measures.speeds, size, *common) for size in sizes}
        elif part == "largest":
            measured["memory_gib"] = memory_gib
            measured[part] = {size: each("architectures", measures.largest, size, columns, where, memory_gib) for size in sizes}
        else:
            assert part == "embed"
            measured[part] = _embed(alone, list(texts), tokenizer, sizes[0], where, repeats)
    name = torch.cuda.get_device_name() if where.startswith("cuda") else where
    return {"subject": "inference", "environment": environment("torch"), "device": name, **measured}


def _alone(kept: Path | None, name: str, measure: Callable[..., Any], *arguments: Any) -> Any:
    """What a measurement in a process of its own gives, or has given before."""
    path = kept and kept / f"{name}.json"
    if path and path.exists():
        return json.loads(path.read_text())
    found = _in_a_process(measure, *arguments)
    if path and "failed" not in (found if isinstance(found, dict) else {}):
        with staged(path.parent) as stage:  # a kill leaves no half of a record
            (stage / path.name).write_text(json.dumps(found))
    return found


def _in_a_process(measure: Callable[..., Any], *arguments: Any) -> Any:
    """One that fails says why in place of its figures."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
        try:
            return process.submit(measure, *arguments).result()
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}"[:500]}


def _each(
    kept: Path | None, only: Sequence[str], table: str, measure: Callable[..., Any], size: str, *arguments: Any
) -> dict[str, Any]:
    return {
        name: _alone(kept, f"{measure.__name__} {size} {name}", measure, table, name, size, *arguments)
        for name in TABLES[table]
        if not only or name in only
    }


def _embed(
    alone: Callable[..., Any], texts: list[str], tokenizer: Path | None, size: str, device: str, repeats: int
) -> dict[str, Any]:
    """Texts a second and tokens a second, from strings to vectors on the host; and a cold process's first vector."""
    assert tokenizer is not None, "the command line asks for it"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        config = preset(size)
        model = Embedder(config)
        init_weights(model, config, torch.Generator().manual_seed(0))
        save_model(model, config, folder, tokenizer=Tokenizer.load(tokenizer))
        longest = config.max_position_embeddings
        lengths = [min(len(row), longest) for row in Tokenizer.load(tokenizer).encode(texts)]
        tokens, some = sum(lengths), len(texts) // THEIR_SHARE or len(texts)
        common = (folder, texts, tokens, device, repeats)
        runs = {"modernbert": alone("embed", measures.ours_embeds, *common)}
        theirs: dict[tuple[str, int], float] = {}
        for setting in THEIR_SETTINGS:
            name = f"sentence-transformers, {setting[0]}, batch_size={setting[1]}, {some:,} texts"
            given = (folder, texts[:some], sum(lengths[:some]), device, min(repeats, THEIR_REPEATS), *setting)
            runs[name] = alone(name, measures.theirs_embeds, *given)
            if "failed" not in runs[name]:
                theirs[setting] = runs[name]["tokens_per_second"]["median"]
        if theirs:
            best = max(theirs, key=lambda setting: theirs[setting])
            name = f"sentence-transformers, {best[0]}, batch_size={best[1]}"
            given = (folder, texts, tokens, device, min(repeats, THEIR_REPEATS), *best)
            runs[name] = alone(name, measures.theirs_embeds, *given)
        runs["modernbert, again"] = alone("embed, again", measures.ours_embeds, *common)
        first = [alone(f"first vector {turn}", measures.first_vector, folder, device) for turn in range(FIRST_VECTORS)]
        bits = alone("invariance", measures.invariance, folder, texts[:1000], device)
        runs["modernbert, batch-invariant"] = alone("embed, batch-invariant", measures.ours_embeds, *common, None, True)
        if fp8_runs_on(torch.device(device)):
            runs["modernbert, fp8"] = alone("embed, fp8", measures.ours_embeds, *common, "fp8")
    return {
        "texts": len(texts),
        "tokens": tokens,
        "longest": max(lengths),
        "cores": os.cpu_count(),
        "runs": runs,
        "first_vector": first,
        "batch_invariance": bits,
    }


def markdown(record: dict[str, Any]) -> str:
    """The record as tables, in thousands of tokens a second."""
    lines = [f"{record['device']}, torch {record['environment']['torch']}"]
    for part in ("encoder", "peers"):
        for size, contestants in record.get(part, {}).items():
            lines += _speed_table(
                f"{part}, {size}", contestants, record.get("roofline", {}).get(size) if part == "encoder" else None
            )
    for size, contestants in record.get("largest", {}).items():
        within = f", within {record['memory_gib']} GiB" if record["memory_gib"] else ""
        lines += ["", f"**rows of the largest batch, {size}**{within}", ""]
        lines += [
            f"- {name}: " + ", ".join(f"{column} {rows}" for column, rows in found.items()) for name, found in contestants.items()
        ]
    for size, contestants in record.get("latency", {}).items():
        lines += ["", f"**latency, {size}**", "", "| | p50, ms | p99, ms |", "|---|---:|---:|"]
        lines += [
            f"| {name} | {line['p50_ms']:.2f} | {line['p99_ms']:.2f} |"
            if "p50_ms" in line
            else f"| {name} | {line['failed']} | |"
            for name, line in contestants.items()
        ]
    for part in ("accuracy",):
        for size, errors in record.get(part, {}).items():
            lines += ["", f"**{part}, {size}**: " + ", ".join(f"{name} {value}" for name, value in errors.items())]
    if embed := record.get("embed"):
        lines += ["", f"**embed**, {embed['texts']:,} texts, {embed['tokens']:,} tokens", "", "| | k tokens/s |", "|---|---:|"]
        lines += [f"| {name} | {_cell(line)} |" for name, line in embed["runs"].items()]
        lines += ["", f"first vector of a process, in order: {embed['first_vector']}"]
        lines += [f"batch invariance: {embed['batch_invariance']}"]
    return "\n".join(lines)


def _speed_table(title: str, contestants: dict[str, Any], roofline: dict[str, Any] | None) -> list[str]:
    columns = next((list(line) for line in contestants.values() if "failed" not in line), [])
    lines = ["", f"**{title}**", "", "| k tokens/s | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, found in contestants.items():
        bound = "fp8_roofline_tokens_per_second" if name.endswith("fp8") else ROOFLINE
        cells = [_cell(found.get(column, found), roofline[column][bound] if roofline else None) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if roofline:
        cells = [f"{roofline[column][ROOFLINE] / 1e3:,.0f}" for column in columns]
        lines.append("| *products + attention alone* | " + " | ".join(cells) + " |")
    return lines


def _cell(found: dict[str, Any], roofline: float | None = None) -> str:
    if "tokens_per_second" not in found:
        return str(found.get("failed", ""))[:60]
    speed = found["tokens_per_second"]["median"]
    share = f" ({speed / roofline:.0%})" if roofline else ""
    return f"{speed / 1e3:,.0f}{share}"


def write(record: dict[str, Any], folder: Path) -> None:
    """Writes the record, its tables, and a picture of the speeds into a folder; no picture where matplotlib is not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "inference.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "inference.md").write_text(markdown(record) + "\n")
    with contextlib.suppress(MissingExtraError):
        _draw(record, folder / "inference.png")


def _draw(record: dict[str, Any], path: Path) -> None:
    """For each column of `encoder` a bar for each contestant, from the least to the most measured; the roofline as a line above them."""
    tables = record.get("encoder", {})
    if not tables:
        return
    figure = figure_class()(figsize=(8, 3.2 * len(tables)), layout="constrained")
    for axes, (size, contestants) in zip(figure.subplots(len(tables), squeeze=False)[:, 0], tables.items(), strict=True):
        shown = {name: found for name, found in contestants.items() if "failed" not in found}
        columns = list(next(iter(shown.values()), {}))
        width = 0.8 / max(1, len(shown))
        for number, (name, found) in enumerate(shown.items()):
            speeds = [found[column].get("tokens_per_second", dict.fromkeys(("median", "min", "max"), 0.0)) for column in columns]
            heights, least, most = ([speed[key] / 1e3 for speed in speeds] for key in ("median", "min", "max"))
            spread = (
                [h - low for h, low in zip(heights, least, strict=True)],
                [m - h for m, h in zip(most, heights, strict=True)],
            )
            places = [place + (number - (len(shown) - 1) / 2) * width for place in range(len(columns))]
            axes.bar(places, heights, width, yerr=spread, label=name, error_kw={"linewidth": 0.8, "ecolor": "0.3"})
        for place, column in enumerate(columns):
            bound = record["roofline"][size][column][ROOFLINE] / 1e3
            axes.plot([place - 0.42, place + 0.42], [bound, bound], color="0.2", linestyle=":", linewidth=1)
        axes.set_xticks(range(len(columns)), columns)
        axes.set(title=f"{size}, {record['device']}; dotted: products and attention alone, bf16", ylabel="thousand tokens/s")
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.margins(y=0.15)
        axes.legend(frameon=False, fontsize="small", ncols=2, loc="upper right")
    figure.savefig(path, dpi=110)
