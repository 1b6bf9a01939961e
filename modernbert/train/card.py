"""The card of a trained model: README.md with front matter, where every number comes from the run's own records."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modernbert import __version__
from modernbert.data.shards import Manifest
from modernbert.train.report import ends_of_sessions, read_log

CARD = """---
pipeline_tag: fill-mask
library_name: transformers
tags: [modernbert]
---

# {name}

A ModernBERT of {parameters:.1f}M parameters ({layers} layers of {hidden}, {vocabulary:,} tokens of vocabulary), pre-trained from random
weights. It fills masks, and it is a start for fine-tuning. It saw rows of up to {length:,} tokens in training.

    modernbert fill-mask --model FOLDER "a text with one [MASK] in it"

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForMaskedLM.from_pretrained("FOLDER")
```

FOLDER is where this file is.

## How it was made

{made}

{phases}

![curves](curves.png)

## Text

{documents:,} documents, {text_tokens:,} tokens; {held_out:,} other documents were held out, for the scores below.

{licence}

| source | documents | tokens |
|---|---:|---:|
{sources}

## How good it is

15 % of the tokens of the held-out documents are masked (`modernbert eval masked`). {choice}

{masked}

## Limits

It repeats what its text says, errors and prejudices included. Nothing was measured but the table above.
"""


def write_card(
    file: Path, name: str, run: Path, manifest: Manifest, evaluation: dict[str, Any], licence: Sequence[str], command: str
) -> None:
    """Writes the card of a model that `from_text` made.

    Args:
        file: README.md in the model's folder.
        name: of the model.
        run: the folder of its pre-training run.
        manifest: of its token shards.
        evaluation: the scores of the last weights and of the average, and which of them is the model.
        licence: of the text, in the user's words; a line each.
        command: that makes the model again.
    """
    settings = json.loads((run / "config.json").read_text())
    model = settings["model"]
    models = evaluation["models"]
    tables = [f"{title}\n\n{masked_table(models[key])}" for key, title in MODELS.items()]
    file.write_text(
        CARD.format(
            name=name,
            parameters=evaluation["parameters"] / 1e6,
            layers=model["num_hidden_layers"],
            hidden=model["hidden_size"],
            vocabulary=model["vocab_size"],
            length=max(phase["length"] for phase in settings["phases"]),
            made=made_table(run, manifest.tokens, {"command": f"`{command}`", "code": f"modernbert {__version__}"}),
            phases=phases_table(settings["phases"]),
            documents=manifest.documents,
            text_tokens=manifest.tokens,
            held_out=evaluation["held_out"],
            licence="\n".join(f"- {line}" for line in licence) or "Its licence was not stated; ask who made the model.",
            sources=sources_table(manifest),
            choice=f"The model is {MODELS[evaluation['best']]}: it has the fewer bits a byte.",
            masked="\n\n".join(tables),
        ),
        encoding="utf-8",
    )


MODELS = {"run/model": "the last weights", "average": "the average of checkpoints"}


def made_table(run: Path, text_tokens: int, more: dict[str, str]) -> str:
    """Tokens, time, hardware and optimizer of a run, and what the caller adds, as a Markdown table."""
    settings = json.loads((run / "config.json").read_text())
    log, sessions = read_log(run)
    rows = {
        "tokens": f"{log[-1]['tokens']:,} in {log[-1]['step']:,} steps, {log[-1]['tokens'] / text_tokens:.1f} passes over the text",
        "time": f"{sum(line['seconds'] for line in ends_of_sessions(log)) / 60:.1f} minutes on "
        + ", ".join(sorted({f"{line['processes']} × {line['device']}" for line in sessions})),
        "optimizer": ", ".join(f"{k} {v}" for k, v in settings["optimizer"].items()),
        **more,
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def phases_table(phases: Sequence[dict[str, Any]]) -> str:
    """Each phase's tokens, rows, masks and learning rate, as a Markdown table."""
    lines = ["| phase | tokens | row | masked | learning rate |", "|---|---:|---:|---:|---|"]
    for number, phase in enumerate(phases, 1):
        decay = f"{phase['decay_shape']} decay over the last {phase['decay_tokens']:,}" if phase["decay_tokens"] else "flat"
        shape = f"warm-up over {phase['warmup_tokens']:,}, {decay}" if phase["warmup_tokens"] else decay
        peak = "" if phase["peak"] == 1 else f"{phase['peak']:g} of the peak, "
        lines.append(f"| {number} | {phase['tokens']:,} | {phase['length']:,} | {phase['mask_rate']:.0%} | {peak}{shape} |")
    return "\n".join(lines)


def sources_table(manifest: Manifest) -> str:
    """The rows of a table of sources, the largest first."""
    ordered = sorted(manifest.sources, key=lambda source: -source["tokens"])
    return "\n".join(f"| {source['name']} | {source['documents']:,} | {source['tokens']:,} |" for source in ordered)


def masked_table(found: dict[str, Any]) -> str:
    """The scores of `modernbert eval masked --json`, as a Markdown table."""
    lines = ["| source | bits per masked byte | top-1 | masked tokens |", "|---|---:|---:|---:|"]
    for name, s in [*found["sources"].items(), ("**all**", found["total"])]:
        lines.append(f"| {name} | {s['bits_per_byte']:.3f} | {s['accuracy']:.1%} | {s['masked']:,} |")
    return "\n".join(lines)
