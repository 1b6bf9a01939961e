"""Makes the packaged `tiny-embed` of a finished run: float8 weights, a graph, curves and a card that says where every number comes from.

    python dev/package_embed.py WORK corpus/wikipedia-0000.jsonl.zst tiny-embed
    python dev/package_embed.py --card WORK tiny-embed

The documents of the second file say what the weights are rounded for. What rounded weights are worth can only be measured afterwards: with
`--card` the card alone is written anew. `examples/tiny_embed.sh` gives both commands; its folder holds `model` and, as far as they are
there, what the card tells of:

    */log.jsonl                        a stage, with its config.json and result.json; in the order in which they began
    */mean.json                        of `dev/mean_of.py`
    committee.json                     of `dev/committee.py`, beside the vectors that a stage learnt from
    studied-*/studied.json             of `dev/studied_teacher.py`, for members of a committee
    begun.md                           what a person says of runs before this one, whose weights it went on from
    eval*.json                         of `modernbert eval retrieval --suite --json`: first the model, `…, passages` the same by passages
    dims*.json                         of the same with `--against dim128:MODEL` and so on
    speed.json                         of `dev/embed_cpu.py`

Where the folder has no stages, as when weights are only rounded or measured again, the card that lies there stays, but for tables that were
measured anew.
"""

import dataclasses
import json
import re
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
[`tiny`](../tiny/README.md) in rounds of two stages with a teacher, all-MiniLM-L6-v2 (Apache 2.0){committee}. Mean of the tokens,
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
{begun}
Stages of `tiny_distilled` learn the teacher's vectors, those of `tiny_embed` pairs, with the teacher's similarities
(`modernbert/recipes/retrieval.py`).

{stages}

{said}

![curves](curves.png)

## Pairs

{pairs}

Documents of prose are from the corpus of `tiny` (its card has the licences), functions from the packages of
`examples/tiny_embed_packages.txt` (MIT, BSD, Apache 2.0, ISC, PSF and the like), all others from the training splits of published sets,
some of which are for research (their folders state it). No query of a dev split is among them, and no code or Natural Questions passage
that is nearly one of theirs.

## How good it is

## Make it again

    bash examples/tiny_embed.sh CORPUS SETS WORK

## Limits

English, Python, and some C#, SQL and Java. MiniLM has seen a billion pairs, among them relatives of most of these sets; this model has seen
what MiniLM says of {texts:,} texts, and is a few points behind it where it says so above. It reads 8,192 tokens, but was taught mostly on
texts of fewer than 250. A key among hundreds of others (kv_retrieval) is beyond one vector: search for words there.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A run of `modernbert finetune`, by its own records."""

    name: str
    began: str
    config: dict[str, Any]
    result: dict[str, Any]
    log: list[dict[str, Any]]
    """Lines with a loss."""

    @property
    def seconds(self) -> float:
        pairs = np.diff([0, *(line["step"] for line in self.log)]) * self.config["batch_pairs"]
        return float(sum(count / line["pairs_per_second"] for count, line in zip(pairs, self.log, strict=True)))

    @property
    def row(self) -> list[str]:
        """Its line of the table."""
        config, optimizer, last = self.config, self.config["optimizer"], self.log[-1]
        return [
            self.name,
            named(config["model"]),
            "`tiny_distilled`" if config["teacher"]["kind"] == "cosine" else "`tiny_embed`",
            Path(config["teacher"]["file"]).stem,
            f"{last['step']:,} of {config['batch_pairs']:,} pairs",
            f"{last['tokens']:,}",
            f"{self.seconds:.0f}",
            f"{optimizer['muon_lr'] if optimizer['name'] == 'muon' else optimizer['lr']:g}",
        ]


def stages_of(run: Path) -> list[Stage]:
    """In the order in which they began; of a step that was repeated after a stop, the last line counts."""
    stages = []
    for folder in (file.parent for file in run.glob("*/log.jsonl")):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        config, result = (json.loads((folder / name).read_text()) for name in ("config.json", "result.json"))
        log = list({line["step"]: line for line in lines if "loss" in line}.values())
        stages.append(Stage(name=folder.name, began=lines[0]["started"], config=config, result=result, log=log))
    return sorted(stages, key=lambda stage: stage.began)


def named(model: str) -> str:
    """What the card calls a model.

    >>> [named(model) for model in ("/x/pretrained/tiny", "./between", "embed/model", "st:studied-all", "st:/x/minilm/model")]
    ['tiny', 'between', 'embed', 'studied-all', 'minilm']
    """
    return next(part for part in reversed(Path(model.removeprefix("st:")).parts) if part != "model")


def shares_said(shares: dict[str, float]) -> str:
    return " + ".join(f"{share:g} × {named(model)}" for model, share in shares.items())


def committees(run: Path, stages: list[Stage]) -> dict[str, dict[str, float]]:
    """The members' shares of each teacher that is a committee, by the names of their files."""
    files = {Path(stage.config["teacher"]["file"]).with_suffix(".json") for stage in stages}
    return {file.stem: json.loads((run / file).read_text()) for file in sorted(files) if (run / file).exists()}


def stages_said(run: Path, stages: list[Stage]) -> str:
    """The sentences below the table of stages: who taught, what became of their ends, how long it took, which code ran."""
    said = []
    for teacher, members in committees(run, stages).items():
        said.append(
            f"The teacher `{teacher}` is a committee (`dev/committee.py`): {shares_said(members)}, whose members "
            "are right in different places."
        )
        for member in map(named, members):
            if (file := run / member / "studied.json").exists():
                found = json.loads(file.read_text())
                what = f"{named(found['begins'])} after {found['steps']} steps on part of these pairs"
                said.append(f"{member} is {what} (`dev/studied_teacher.py`).")
    for file in sorted(run.glob("*/mean.json"), key=lambda file: (file.parent.name == "model", file)):
        name = "The weights are" if file.parent.name == "model" else f"`{file.parent.name}` is"
        said.append(f"{name} {shares_said(json.loads(file.read_text()))} (`dev/mean_of.py`), to keep something of each.")
    environments = [stage.result["environment"] for stage in stages]
    devices, codes = (
        ", ".join(dict.fromkeys(values))
        for values in (
            (where["device"] for where in environments),
            (f"commit {where['commit']}" if where["commit"] else f"version {where['modernbert']}" for where in environments),
        )
    )
    said.append(
        f"Together {sum(stage.seconds for stage in stages) / 60:.0f} minutes on {devices}, reading the pairs, the teachers' studies and "
        f"their vectors not counted. Code: {codes}."
    )
    return "\n".join(said)


def pairs_table(stages: list[Stage]) -> str:
    """The pairs of each source, in a column for stages that read the same."""
    readers: dict[str, list[Stage]] = {}
    for stage in stages:
        readers.setdefault(json.dumps(stage.result["pairs"], sort_keys=True), []).append(stage)
    columns = {", ".join(stage.name for stage in some): some[0].result["pairs"] for some in readers.values()}
    lines = [["source", *columns], ["---", *["---:"] * len(columns)]]
    for source in sorted({source for counts in columns.values() for source in counts}):
        lines.append([source, *(f"{counts[source]:,}" if source in counts else "" for counts in columns.values())])
    lines.append(["**all**", *(f"{sum(counts.values()):,}" for counts in columns.values())])
    return table(lines)


def table(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def curves(stages: list[Stage], path: Path) -> None:
    rounds = -(-len(stages) // 2)
    figure = figure_class()(figsize=(11, 3.6 * rounds), layout="constrained")
    for number, stage in enumerate(stages, 1):
        axes = figure.add_subplot(rounds, 2, number)
        axes.plot([line["tokens"] / 1e6 for line in stage.log], [line["loss"] for line in stage.log], linewidth=1.2)
        axes.set(title=stage.name, xlabel="million tokens", ylabel="loss")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def scores_said(files: list[Path]) -> str:
    """The table of scores, systems in columns: the model first, then by passages, then the others; nothing where nobody measured it."""
    reports = [json.loads(file.read_text()) for file in files]
    scores = [score for report in reports for score in report["scores"]]
    if not scores:
        return ""
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
    devices = ", ".join(dict.fromkeys(report["environment"]["device"] for report in reports))
    return f"""
These weights, in percent, with 95 % intervals over queries; behind others the difference over the same queries from the first of their
run, which is the model or, in runs by passages, it by passages. Dev splits, on {devices}. BM25 with Lucene's constants, words cut at case
changes.

{table(lines)}
"""


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
    return f"""
Vectors cut to their first numbers (`modernbert eval retrieval tiny-embed SETS --suite --against dim128:tiny-embed`):

{table(lines)}
"""


def speed_said(file: Path) -> str:
    """What two cores do, beside MiniLM; nothing where nobody measured it."""
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    lines = [["system", "texts a second", "times MiniLM", "times its int8"], ["---", *["---:"] * 3]]
    for name, values in found["texts_per_second"].items():
        times = [f"{found[of][name]['median']:.2f}" for of in ("times_minilm", "times_minilm_int8")]
        lines.append([name, f"{values['median']:.0f} ({values['min']:.0f} – {values['max']:.0f})", *times])
    turns = next(iter(found["texts_per_second"].values()))["n"]
    how = f"{found['environment']['cpu']}, {found['threads']} threads, by {found['time']}, {turns} turns, medians"
    return f"""
Texts of 100 words on a CPU ({how}; `dev/embed_cpu.py`):

{table(lines)}
"""


def card(run: Path, folder: Path, model: Embedder) -> str:
    """The text of the card, from the run's own records; where there are none of stages, the one that lies in the folder, measured anew."""
    stages = stages_of(run)
    text = made(run, stages, folder.name, model) if stages else (folder / "README.md").read_text()
    for said in (
        scores_said(sorted(run.glob("eval*.json"))),
        dims_said(sorted(run.glob("dims*.json"))),
        speed_said(run / "speed.json"),
    ):
        text = renewed(text, said)
    return text


def made(run: Path, stages: list[Stage], name: str, model: Embedder) -> str:
    """The card without what is measured."""
    before = run / "begun.md"
    header = ["stage", "begins with", "recipe", "teacher", "steps", "tokens", "seconds", "peak rate"]
    return CARD.format(
        name=name,
        width=model.config.hidden_size,
        limit=model.config.max_position_embeddings,
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        passage=PASSAGE,
        best=BEST,
        step=STEP,
        committee=", and at last with a committee of teachers" if committees(run, stages) else "",
        begun=f"\n{before.read_text().strip()}\n" if before.exists() else "",
        stages=table([header, ["---"] * len(header), *(stage.row for stage in stages)]),
        said=stages_said(run, stages),
        pairs=pairs_table(stages),
        texts=max(stage.result["texts"] for stage in stages),
    )


def renewed(text: str, said: str) -> str:
    """A card with a part that was measured, in place of the part that begins alike, if there is one; a part ends with its table."""
    if not said:
        return text
    old = re.search(rf"^{re.escape(said.strip()[:20])}.*?\|\n(?=\n)", text, re.DOTALL | re.MULTILINE)
    begin, end = old.span() if old else [text.index("## Make it again")] * 2
    return text[:begin] + said.strip() + ("\n" if old else "\n\n") + text[end:]


def main() -> None:
    card_alone = sys.argv[1] == "--card"
    # Whole paths: the bare word tiny-embed would be read as the packaged model's name.
    run, *texts, folder = (Path(name).absolute() for name in sys.argv[1 + card_alone :])
    model = load_model(Embedder, folder if card_alone else run / "model", dtype=torch.float32)
    if not card_alone:
        modules, tokenizer = read_modules(run / "model"), Tokenizer.load(run / "model")
        assert modules is not None, f"{run / 'model'} is no embedder"
        round_linears(model, batches_of((document.text for document in read_documents(texts)), tokenizer))
        save_model(model, model.config, folder, tokenizer=tokenizer, dtype=FLOAT8)
        write_modules(folder, model.config, modules)
        write_beside(folder)
        shutil.rmtree(folder / "2_Normalize", ignore_errors=True)  # empty, so that git does not keep it; readers do not miss it
    if stages := stages_of(run):
        curves(stages, folder / "curves.png")
    (folder / "README.md").write_text(card(run, folder, model))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    print(f"{folder}: {size:.1f} MB")


if __name__ == "__main__":
    main()
