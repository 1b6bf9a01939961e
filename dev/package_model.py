"""Makes a packaged model of a finished run: float8 weights, a graph, tokenizer, curves and a card that says where every number comes from.

    python dev/package_model.py [--card] runs/tiny corpus modernbert/pretrained/tiny text code

The last ones are the folders of token shards. The packaged weights themselves are measured, on corpus/validation.jsonl.zst and, if it is
there, corpus/cloze.jsonl.gz; what was measured once is kept in the run's folder. A file `commit` there names the code that trained; without
it, it is the code here. All packaged models together stay under 40 MB.

What the packaged weights are worth fine-tuned can only be measured afterwards: with `--card` the card alone is written anew, and reads from
the run's folder, as far as they are there, `finetuned/suite.json` (`modernbert bench finetune`), `random/suite.json` (the same from random
weights), `peer/peer.json` (`modernbert bench peer`) and `finetuned.md`, a remark below the table. `begun.md` tells of the run that this one
went on from, and `pairs`, the folder of a `dev/pair_distillation.py learn`, of the stage that followed it.
"""

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import modernbert
from modernbert.checkpoint.float8 import FLOAT8
from modernbert.checkpoint.folder import load_model, save_model
from modernbert.data.documents import read_documents, read_rows
from modernbert.data.shards import Manifest, read_manifest
from modernbert.eval.cloze import evaluate_cloze
from modernbert.eval.masked import evaluate_masked
from modernbert.eval.positions import evaluate_positions
from modernbert.export.beside import write_beside
from modernbert.export.float8_rounding import batches_of, round_linears
from modernbert.model.heads import MaskedLM
from modernbert.tasks.metrics import spread
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.card import made_table, masked_table, phases_table, sources_table
from modernbert.train.report import figure_class, report
from modernbert.train.suite_report import SuiteReport

LICENCES = {
    "wikipedia-core": "CC BY-SA 3.0",
    "wikipedia": "CC BY-SA 3.0",
    "vital-intros": "CC BY-SA 3.0",
    "openstax": "CC BY 4.0",
    "textbooks": "CC BY 3.0/4.0, CC BY-SA 3.0/4.0",
    "factbook": "public domain (CC0)",
    "wordnet": "CC BY 4.0",
    "dictionaries": "GPL 2+ (GCIDE), GFDL 1.1+ (FOLDOC), public domain (Jargon File)",
    "tech-docs": "MIT, Apache 2.0, CC0, CC BY 4.0, CC BY-SA 4.0, public domain",
    "manuals": "PSF 2.0, GPL 2, GPL 2+, CC BY-SA 3.0, PostgreSQL, public domain",
    "dc-code": "public domain (law)",
    "government": "public domain",
    "questions": "CC BY-SA 3.0/4.0",
    "latin-classics": "CC BY-SA 4.0",
    "eltec-novels": "public domain (markup CC BY 4.0)",
    "english-novels": "public domain",
    "classic-books": "public domain",
    "task-texts": "each set's own (SETS/SET/README.md); training rows without their labels",
    "python-code": "each package's own (`examples/tiny_packages.txt`): mostly MIT, BSD, Apache 2.0",
}
"""Of each source, as the corpus states it; every document carries its own."""

ENDS = (1023, 8191)
"""Last positions of the two bands that the card compares."""

CARD = """---
license: apache-2.0
language: en
pipeline_tag: fill-mask
tags: [modernbert]
---

# {name}

A ModernBERT of {parameters:.1f}M parameters ({layers} layers of {hidden}, {vocabulary:,} tokens of vocabulary), pre-trained from
random weights with this project's own code. It fills masks, and it is a start for fine-tuning. It reads up to {limit:,} tokens.

    modernbert fill-mask "The capital of France is [MASK]."

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

from modernbert.checkpoint.names import resolve

folder = resolve("{name}")  # where this file is
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForMaskedLM.from_pretrained(folder)
```

Matrices are stored in float8 (e4m3), a byte a weight, which transformers and this package cast to what they compute in. Readers that do not
know the type want a copy in a wider one: `load_model` and `save_model` of `modernbert.checkpoint.folder` write one. `graph.onnx` reads the
same file, so that the model runs without torch where onnxruntime is installed.

## How it was made
{begun}
{made}

{phases}

![curves](curves.png)
{taught}
## Text

{documents:,} documents, {text_tokens:,} tokens. The tokenizer learned its {vocabulary:,} tokens on the same text, but for task-texts.
Nothing in it was written for the tests below, and documents that are measured there were held out; task-texts are what fine-tuning reads
as well.

| source | documents | tokens | licence |
|---|---:|---:|---|
{sources}

## How good it is

The packaged weights, as they are. 15 % of the tokens of held-out documents are masked, rows of 1,024 (`modernbert eval masked`):{unrounded}

{masked}

For scale, on the same file: a plain loop with AdamW, 15M parameters, 32k vocabulary, 588M tokens in 7.5 minutes of an H100, has 0.80 bits
and 54.7 % (a figure from outside, not run again).

Facts and forms with one word masked (`modernbert eval cloze`):

{cloze}
{positions}{finetuned}
## Make it again

From nothing, on every GPU of a machine; a stopped run goes on when the command is given again:

    bash examples/{name}.sh CORPUS SETS WORK

and the tables of this card alone, but for fine-tuned models, on two CPU cores in a quarter of an hour: `bash dev/first_slice.sh CORPUS`.

## Limits

English prose and Python. A model of this size knows common facts and grammar, not the world; it repeats what its sources say, errors and
prejudices included. Do not use its guesses as information about people.
"""


def card(
    run: Path,
    shards: Sequence[Path],
    name: str,
    model: MaskedLM,
    masked: dict[str, Any],
    cloze: dict[str, Any] | None,
    positions: dict[str, Any],
) -> str:
    """The text of the card, every number from the run's own records."""
    settings = json.loads((run / "config.json").read_text())
    manifests = [manifest for folder in shards if (manifest := read_manifest(folder)) is not None]
    assert len(manifests) == len(shards), f"no token shards in one of {shards}"
    tokens = sum(manifest.tokens for manifest in manifests)
    commit = trained_at(run)
    return CARD.format(
        name=name,
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        layers=model.config.num_hidden_layers,
        hidden=model.config.hidden_size,
        vocabulary=model.config.vocab_size,
        limit=model.config.max_position_embeddings,
        begun=begun(run),
        made=made_table(
            run,
            tokens,
            {
                "a step": f"{settings['micro_batches']} × {settings['micro_batch_tokens']:,} tokens on each GPU",
                "code": f"commit {commit}; recipes in `modernbert/recipes/pretrain.py`, commands in `examples/{name}.sh`",
            },
        ),
        phases=phases_table(settings["phases"]),
        taught=taught(run),
        documents=sum(manifest.documents for manifest in manifests),
        text_tokens=tokens,
        sources="\n".join(map(licensed, manifests)),
        masked=masked_table(masked),
        unrounded=unrounded(run),
        cloze=cloze_table(cloze) if cloze else "Not measured.",
        positions=positions_said(positions),
        finetuned=finetuned(run, name),
    )


def begun(run: Path) -> str:
    """What is said of the runs before this one, whose weights it went on from."""
    before = run / "begun.md"
    return f"\n{before.read_text().strip()}\n" if before.exists() else ""


def taught(run: Path) -> str:
    """What is said of the stage that learned what texts have to do with each other, and of the mean that the weights are; or nothing."""
    stage, mean, said = run / "pairs", run / "model" / "mean.json", ""
    if stage.exists():
        asked, log = json.loads((stage / "config.json").read_text()), rows_of(stage / "log.jsonl")
        teachers = asked["teachers"]["scores"]
        missed = ", ".join(f"{name} {error:.3f}" for name, error in log[-1]["held_out"].items())
        lengths = ", ".join(f"{length:,}" for length in asked["lengths"])
        said = f"""
**Then a stage of pairs** (`dev/near_pairs.py`, `dev/pair_distillation.py`): {asked["steps"]:,} steps, each of {asked["tokens"]:,} tokens
of text in rows of {lengths} in turn, 20% of them masked, and of {asked["pairs"]:,} pairs of texts without labels,
of {asked["all_pairs"]:,}. Of a pair the model learns what fine-tuned models say of it, {len(teachers)} in all: all-MiniLM-L6-v2 and this
model as it was, with several seeds, on `pairs` (MNLI, SICK, Quora, the SQuADs, others: modernbert/recipes/suites.py), then on MRPC, RTE,
QNLI or STS-B. **So it has heard of the labels of these sets' training rows.** Of the dev rows of GLUE's it has seen nothing, but they chose
the teachers' epochs. Rates are {asked["peak"]} of the peaks above and fall to nothing; {log[-1]["seconds"] / 60:.1f} minutes on one
{asked["environment"]["device"]}. At its end it misses of held-out scores, whose variance is 1: {missed}.

![curves of the stage of pairs](curves_pairs.png)
"""
    if mean.exists():
        shares = " and ".join(f"{share:g} of `{name}`" for name, share in json.loads(mean.read_text()).items())
        said += f"\n**Packaged is a mean** (`dev/mean_of.py`): {shares}.\n"
    return said


def draw_taught(stage: Path, path: Path) -> None:
    """Both losses of the stage of pairs over its steps."""
    log = rows_of(stage / "log.jsonl")
    figure = figure_class()(figsize=(14, 3.6), layout="constrained")
    panels = {"masked": "masked words, nats", "pairs": "scores of pairs, squared error", "rate": "share of the peak rates"}
    for (name, title), axes in zip(panels.items(), figure.subplots(1, 3), strict=True):
        axes.plot([line["step"] for line in log], [line[name] for line in log], linewidth=1.2)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
    figure.axes[1].set_yscale("log")
    figure.savefig(path, dpi=110)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path)]


def licensed(manifest: Manifest) -> str:
    """The rows of the table of sources, with the licence of each.

    Raises:
        KeyError: nobody wrote down the licence of a source.
    """
    rows = sources_table(manifest).splitlines()
    return "\n".join(f"{row} {LICENCES[row.split('|')[1].strip()]} |" for row in rows)


def cloze_table(found: dict[str, Any]) -> str:
    lines = ["| kind | asked | top-1 | top-5 |", "|---|---:|---:|---:|"]
    for name, s in [*found["kinds"].items(), ("**all**", found["total"])]:
        lines.append(f"| {name} | {s['asked']} | {s['top1']} | {s['top5']} |")
    return "\n".join(lines)


def positions_said(found: dict[str, Any]) -> str:
    """What long rows do to the figures, in two sentences; bands are those of `eval positions`."""
    near, far = (
        (band, accuracy) for band, accuracy in zip(found["bands"], found["accuracy"], strict=True) if band["last"] in ENDS
    )
    shown = (f"{accuracy:.1%} at positions {band['first']:,} to {band['last']:,}" for band, accuracy in (near, far))
    gain = 100 * (found["in_long"] - found["in_short"])
    return f"""
In rows of {found["length"]:,} tokens ({found["rows"]} of held-out documents, `modernbert eval positions`) it finds {" and ".join(shown)}.
The same tokens of the second half, in rows of 1,024 instead: {gain:+.2f} ± {100 * found["difference_se"]:.2f} points for the long row.
"""


def finetuned(run: Path, name: str) -> str:
    """The table of fine-tuned models with what there is beside them, and the remark; nothing where nothing was fine-tuned."""
    suite, remark = run / "finetuned" / "suite.json", run / "finetuned.md"
    said = f"\n{remark.read_text().strip()}\n" if remark.exists() else ""
    if not suite.exists():
        return said
    others = {"random weights": _suite(run / "random" / "suite.json"), "all-MiniLM-L6-v2": _peer(run / "peer" / "peer.json")}
    others = {column: scores for column, scores in others.items() if scores}
    header = ["set", "figure", name, "a plain method", *others]
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)]]
    for one in SuiteReport.from_json(json.loads(suite.read_text())).outcomes:
        plain = f"{100 * one.baseline.scores[one.metric]:.1f}, {one.baseline.name}" if one.baseline else "–"
        beside = [_percent(scores.get(one.name, ())) for scores in others.values()]
        lines.append([one.name, one.metric, _percent(one.scores), plain, *beside])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"""
Fine-tuned, dev rows, percent, mean ± standard deviation over seeds (`modernbert bench finetune {name} --size tiny`, all columns at once by
`dev/finetune_table.py`); dev chose the epoch, so the figures flatter:

{table}
{said}"""


def _suite(path: Path) -> dict[str, Sequence[float]]:
    """Scores by set, of a suite that may not have been run."""
    if not path.exists():
        return {}
    return {one.name: one.scores for one in SuiteReport.from_json(json.loads(path.read_text())).outcomes}


def _peer(path: Path) -> dict[str, Sequence[float]]:
    """Scores by set at the learning rate with the best mean, of a peer that may not have been run."""
    found: dict[str, dict[float, list[float]]] = {}
    for run in json.loads(path.read_text())["runs"] if path.exists() else ():
        found.setdefault(run["set"], {}).setdefault(run["learning_rate"], []).append(run["score"])
    return {name: max(by_rate.values(), key=statistics.fmean) for name, by_rate in found.items()}


def _percent(scores: Sequence[float]) -> str:
    return spread([100 * score for score in scores], 1)


def trained_at(run: Path) -> str:
    if (run / "commit").exists():
        return (run / "commit").read_text().strip()
    ask = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


def unrounded(run: Path) -> str:
    """What the weights scored before they were rounded, where the run's folder has it."""
    if not (run / "masked.json").exists():
        return ""
    total = json.loads((run / "masked.json").read_text())["total"]
    return f"\nBefore rounding to float8 they had {total['bits_per_byte']:.3f} bits and {total['accuracy']:.1%}."


def once(file: Path, measure: Any) -> dict[str, Any]:
    """What `measure` found, now or when the file was written."""
    if not file.exists():
        file.write_text(json.dumps(measure().to_json()))
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def main() -> None:
    card_alone = sys.argv[1] == "--card"
    run, corpus, folder, *shards = map(Path, sys.argv[1 + card_alone :])
    model, tokenizer = load_model(MaskedLM, run / "model", dtype=torch.float32), Tokenizer.load(run / "model")
    if not card_alone:
        texts = (document.text for document in read_documents(sorted(map(str, corpus.glob("*-0000.jsonl.zst")))[:1]))
        round_linears(model, batches_of(texts, tokenizer))
        save_model(model, model.config, folder, tokenizer=tokenizer, dtype=FLOAT8)
        write_beside(folder)
    engine = modernbert.load(folder)
    masked = once(run / "masked-packaged.json", lambda: evaluate_masked(engine, [corpus / "validation.jsonl.zst"]))
    questions = corpus / "cloze.jsonl.gz"
    known = questions.exists() or (run / "cloze-packaged.json").exists()
    cloze = once(run / "cloze-packaged.json", lambda: evaluate_cloze(engine, questions)) if known else None
    positions = once(
        run / "positions-packaged.json", lambda: evaluate_positions(engine, [corpus / "validation.jsonl.zst"], most_rows=30)
    )
    report(run)
    shutil.copy(run / "report.png", folder / "curves.png")
    if (run / "pairs").exists():
        draw_taught(run / "pairs", folder / "curves_pairs.png")
    (folder / "README.md").write_text(card(run, shards, folder.name, model, masked, cloze, positions))
    size = sum(file.stat().st_size for file in folder.parent.rglob("*") if file.is_file()) / 1e6
    print(f"{folder}: all packaged models together {size:.1f} MB")


if __name__ == "__main__":
    main()
