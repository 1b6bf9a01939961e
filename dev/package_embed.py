"""Makes the packaged `tiny-embed` of a finished run: float8 weights, a graph, curves and a card that says where every number comes from.

    python dev/package_embed.py runs/tiny-embed corpus/wikipedia-0000.jsonl.zst modernbert/pretrained/tiny-embed

The documents of the second file say what the weights are rounded for. The run's folder holds `model`; of each stage (`distilled`, `embed`,
`distilled-again`, …, as `examples/tiny_embed.sh` names them) its log.jsonl, config.json and result.json; `eval*.json` of
`modernbert eval retrieval --suite`, where the first system is the model and one named `…, passages` the same by passages; as far as they
are there, `dims*.json` of the same with `--against dim128:MODEL` and so on, and `speed.json` of `dev/embed_cpu.py`; and `commit` of the
code that trained.

It makes a card of one run of that script. The packaged card tells of five rounds under "How it was made", written by hand: keep that part
when only weights and tables are new.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modernbert.checkpoint.float8 import FLOAT8
from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.modules import read_modules, write_modules
from modernbert.data.documents import read_documents
from modernbert.export.beside import write_beside
from modernbert.export.float8_rounding import batches_of, round_linears
from modernbert.model.heads import Embedder
from modernbert.text.passages import BEST, PASSAGE, STEP
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.report import figure_class

CARD = """---
license: apache-2.0
language: en
pipeline_tag: sentence-similarity
library_name: sentence-transformers
tags: [modernbert, sentence-transformers, feature-extraction]
---

# {name}

One vector of {width} for a text of prose or code, up to {limit:,} tokens: a ModernBERT of {parameters:.1f}M parameters, made of
the first run of [`tiny`](../tiny/README.md) in rounds of two stages with a teacher, all-MiniLM-L6-v2 (Apache 2.0). Mean of the tokens,
length 1; the first 64, 128 or 256 numbers serve as shorter vectors (Matryoshka). Queries and documents have prompts, which the folder's
readers put there when they are asked for a query or a document.

    modernbert embed "where do ants live" --prompt-name query

```python
import numpy as np
from sentence_transformers import SentenceTransformer

import modernbert
from modernbert.checkpoint.names import resolve
from modernbert.text.passages import BEST, passages_of

engine = modernbert.load("tiny-embed")
query = engine.embed("where do ants live", prompt_name="query")
documents = ["Ants dig nests in soil.", "def add(a, b): return a + b"]
cosines = engine.embed(documents, prompt_name="document") @ query
short = engine.embed(documents, prompt_name="document", truncate_dim=128, normalize=True)  # 128 numbers, of length 1 again

long = "Bees fly far. " * 3000 + documents[0]  # more than the model reads
passages = engine.embed(passages_of(long), prompt_name="document")
score = np.sort(passages @ query)[-BEST:].mean()

model = SentenceTransformer(str(resolve("{name}")))  # the folder of this file; encode_query, encode_document
```

**Longer than a vector can tell.** The one vector of a text of thousands of words says what it is about, not what it says. To find answers
in such texts, and in those of more than {limit:,} tokens, cut them into passages of {passage} words, one every {step}, embed each, and let
a text score as the mean of its {best} best passages, as above; `modernbert eval retrieval passages:tiny-embed` does so. The table has both.

Where one vector a text is wanted, let it be the mean of the vectors of its passages of 1,000 words (`passages_of(long, 1000, 1000)`), which
finds 8 to 10 points more on QMSum and SQuALITY than a pass over the first 8,192 tokens (bench/results/tiny_embed_use_2026-11-27.md).

Matrices are stored in float8 (e4m3), as in `tiny`, those of the layers rounded with their inputs in mind; `graph.onnx` reads the same
file where there is no torch.

## How it was made

{stages}

The weights lie between the last two stages: 0.35 × distilled + 0.65 × embed (`dev/mean_of.py`), which keeps more of both than either end.

![curves](curves.png)

Code: commit {commit}; recipes `tiny_distilled` and `tiny_embed` in `modernbert/recipes/retrieval.py`.

## Pairs

{pairs}

Documents of prose are from the corpus of `tiny` (its card has the licences), functions from the packages of
`examples/tiny_embed_packages.txt` (MIT, BSD, Apache 2.0, ISC, PSF and the like), all others from the training splits of published sets,
some of which are for research (their folders state it). No query of a dev split is among them, and no code or Natural Questions passage
that is nearly one of theirs.

## How good it is

These weights, in percent, with 95 % intervals over queries; behind others the difference from it over the same queries. Dev splits, all
systems in one run; BM25 with Lucene's constants, words cut at case changes.

{scores}
{dims}{speed}
## Make it again

    bash examples/tiny_embed.sh CORPUS SETS WORK

## Limits

English, Python, and some C#, SQL and Java. MiniLM has seen a billion pairs, among them relatives of most of these sets; this model has seen
what MiniLM says of half a million, and is a few points behind it where it says so above. It reads 8,192 tokens, but was taught mostly on
texts of fewer than 250. A key among hundreds of others (kv_retrieval) is beyond one vector: search for words there.
"""


def began(folder: Path) -> str:
    with (folder / "log.jsonl").open() as lines:
        return str(json.loads(next(lines))["started"])


def stage(folder: Path, name: str, recipe: str) -> tuple[list[str], float, list[dict[str, Any]]]:
    """A line of the table of stages, its seconds, and the lines of the log that have a loss."""
    log = [line for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if "loss" in line]
    config = json.loads((folder / "config.json").read_text())
    steps = [line["step"] for line in log]
    pairs = np.diff([0, *steps]) * config["batch_pairs"]
    seconds = sum(count / line["pairs_per_second"] for count, line in zip(pairs, log, strict=True))
    optimizer = config["optimizer"]
    lr = optimizer["muon_lr"] if optimizer["name"] == "muon" else optimizer["lr"]
    return (
        [
            name,
            f"`{recipe}`",
            f"{steps[-1]:,} of {config['batch_pairs']:,} pairs",
            f"{log[-1]['tokens']:,}",
            f"{seconds:.0f}",
            f"{lr:g}",
        ],
        seconds,
        log,
    )


def curves(logs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    rounds = -(-len(logs) // 2)
    figure = figure_class()(figsize=(11, 3.6 * rounds), layout="constrained")
    for axes, (name, log) in zip(figure.subplots(rounds, 2).flat, logs.items(), strict=True):
        axes.plot([line["tokens"] / 1e6 for line in log], [line["loss"] for line in log], linewidth=1.2)
        axes.set(title=name, xlabel="million tokens", ylabel="loss")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def score_table(files: list[Path]) -> str:
    """Systems in columns: the model first, then by passages, then the others."""
    scores = [score for file in files for score in json.loads(file.read_text())["scores"]]
    systems = list(dict.fromkeys(score["system"] for score in scores))
    names = {systems[0]: "tiny-embed", f"{systems[0]}, passages": "by passages"}
    systems.sort(key=lambda system: (*names, system).index(system))
    lines = [["set", "figure", *(names.get(system, system.rpartition("/")[2]) for system in systems)]]
    lines.append(["---"] * len(lines[0]))
    for data in dict.fromkeys(score["data"] for score in scores):
        mine = {score["system"]: score for score in scores if score["data"] == data}
        cells = []
        for system in systems:
            if system not in mine:
                cells.append("")
                continue
            score = mine[system]
            low, high = (100 * end for end in score["interval"])
            value = 100 * float(np.mean([seed[score["metric"]] for seed in score["seeds"]]))
            cells.append(f"{value:.1f} ({low:.1f}–{high:.1f})")
            if score["difference"]:
                mean, least, most = (100 * end for end in score["difference"])
                cells[-1] += f"; {mean:+.1f} ({least:+.1f} … {most:+.1f})"
        lines.append([data, next(iter(mine.values()))["metric"], *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def dims_said(files: list[Path]) -> str:
    """The table of vectors cut to their first numbers, sets in lines; nothing where nobody measured it."""
    scores = [score for file in files for score in json.loads(file.read_text())["scores"]]
    if not scores:
        return ""
    lines: list[list[str]] = []
    for data in dict.fromkeys(score["data"] for score in scores):
        mine = [score for score in scores if score["data"] == data]
        whole, *cut = (100 * score["seeds"][0][score["metric"]] for score in mine)
        if not lines:
            numbers = [score["system"].rpartition(", ")[2].split()[0] for score in mine[1:]]
            lines = [["set", "figure", "all", *numbers], ["---", "---", *["---:"] * len(mine)]]
        lines.append([data, mine[0]["metric"], f"{whole:.1f}", *(f"{value:.1f} ({value - whole:+.1f})" for value in cut)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"""
Vectors cut to their first numbers (`modernbert eval retrieval tiny-embed SETS --suite --against dim128:tiny-embed`):

{table}
"""


def speed_said(file: Path) -> str:
    """What two cores do, beside MiniLM; nothing where nobody measured it."""
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    lines = ["| system | texts a second | times MiniLM | times its int8 |", "|---|---:|---:|---:|"]
    for name, values in found["texts_per_second"].items():
        times = " | ".join(f"{found[of][name]['median']:.2f}" for of in ("times_minilm", "times_minilm_int8"))
        lines.append(f"| {name} | {values['median']:.0f} ({values['min']:.0f} – {values['max']:.0f}) | {times} |")
    turns = next(iter(found["texts_per_second"].values()))["n"]
    how = f"{found['environment']['cpu']}, {found['threads']} threads, by {found['time']}, {turns} turns, medians"
    table = "\n".join(lines)
    return f"""
Texts of 100 words on a CPU ({how}; `dev/embed_cpu.py`):

{table}
"""


def main() -> None:
    run, text, folder = map(Path, sys.argv[1:])
    modules = read_modules(run / "model")
    assert modules is not None, f"{run / 'model'} is no embedder"
    model, tokenizer = load_model(Embedder, run / "model", dtype=torch.float32), Tokenizer.load(run / "model")
    round_linears(model, batches_of((document.text for document in read_documents([text])), tokenizer))
    save_model(model, model.config, folder, tokenizer=tokenizer, dtype=FLOAT8)
    write_modules(folder, model.config, modules)
    write_beside(folder)
    rows, logs, seconds = [], {}, 0.0
    stages = sorted((file.parent for file in run.glob("*/log.jsonl")), key=began)
    for name in (folder.name for folder in stages):
        row, its_seconds, logs[name] = stage(run / name, name, f"tiny_{name.split('-')[0]}")
        rows.append(row)
        seconds += its_seconds
    curves(logs, folder / "curves.png")
    table = [["stage", "recipe", "steps", "tokens", "seconds", "peak rate"], ["---"] * 6, *rows]
    counts = json.loads((stages[-1] / "result.json").read_text())
    device = counts["environment"].get("gpu") or counts["environment"].get("device", "")
    made = (
        "\n".join(f"| {' | '.join(row)} |" for row in table)
        + f"\n\nTogether {seconds / 60:.0f} minutes on one {device}, reading the pairs and the teacher's vectors not counted."
    )
    text = CARD.format(
        name=folder.name,
        width=model.config.hidden_size,
        limit=model.config.max_position_embeddings,
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        passage=PASSAGE,
        best=BEST,
        step=STEP,
        stages=made,
        commit=(run / "commit").read_text().strip(),
        pairs="| source | pairs |\n|---|---:|\n"
        + "\n".join(f"| {source} | {count:,} |" for source, count in sorted(counts["pairs"].items())),
        scores=score_table(sorted(run.glob("eval*.json"))),
        dims=dims_said(sorted(run.glob("dims*.json"))),
        speed=speed_said(run / "speed.json"),
    )
    (folder / "README.md").write_text(text)
    shutil.rmtree(folder / "2_Normalize", ignore_errors=True)  # empty, so that git does not keep it; readers do not miss it
    size = sum(file.stat().st_size for file in folder.parent.rglob("*") if file.is_file()) / 1e6
    print(f"{folder}: all packaged models together {size:.1f} MB")


if __name__ == "__main__":
    main()
