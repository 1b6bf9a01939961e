"""Makes a packaged model of a finished run: bf16 weights, tokenizer, curves and a card that says where every number comes from.

    modernbert eval masked runs/tiny/model validation.jsonl.zst --json > runs/tiny/masked.json
    modernbert eval cloze runs/tiny/model cloze.jsonl.gz --json > runs/tiny/cloze.json
    python dev/package_model.py runs/tiny shards modernbert/pretrained/tiny

All packaged models together stay under 40 MB.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from modernbert.checkpoint.folder import load_model, save_model
from modernbert.data.shards import read_manifest
from modernbert.model.heads import MaskedLM
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.card import made_table, masked_table, phases_table, sources_table
from modernbert.train.report import report

CARD = """---
license: apache-2.0
language: en
pipeline_tag: fill-mask
tags: [modernbert]
---

# {name}

A ModernBERT of {parameters:.1f}M parameters ({layers} layers of {hidden}, {vocabulary:,} tokens of vocabulary), pre-trained from
random weights with this project's own code. It fills masks, and it is a start for fine-tuning. It saw rows of up to
{length:,} tokens in training; longer ones, up to {limit:,}, run, but were not trained on.

    modernbert fill-mask "The capital of France is [MASK]."

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("modernbert/pretrained/{name}")
model = AutoModelForMaskedLM.from_pretrained("modernbert/pretrained/{name}")
```

## How it was made

{made}

{phases}

![curves](curves.png)

## Text

{documents:,} documents, {text_tokens:,} tokens. Wikipedia and Stack Exchange are CC BY-SA, the textbooks CC BY, the books, laws
and government texts in the public domain; `examples/{name}.sh` names the rest. Code is that of well-known Python packages under
permissive licences. Nothing in the text was written for the tests below.

| source | documents | tokens |
|---|---:|---:|
{sources}

## How good it is

15 % of the tokens of held-out documents are masked, rows of 1,024 (`modernbert eval masked`):

{masked}

Facts and forms with one word masked (`modernbert eval cloze`):

{cloze}

## Limits

English prose and Python. A model of this size knows common facts and grammar, not the world; it repeats what its sources say, errors and
prejudices included. Do not use its guesses as information about people.
"""


def card(run: Path, shards: Path, name: str, model: MaskedLM) -> str:
    """The text of the card, every number from the run's own records."""
    settings = json.loads((run / "config.json").read_text())
    manifest = read_manifest(shards)
    assert manifest is not None, f"no token shards in {shards}"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return CARD.format(
        name=name,
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        layers=model.config.num_hidden_layers,
        hidden=model.config.hidden_size,
        vocabulary=model.config.vocab_size,
        length=max(phase["length"] for phase in settings["phases"]),
        limit=model.config.max_position_embeddings,
        made=made_table(
            run,
            manifest.tokens,
            {"code": f"commit {commit}; recipe `{name}` in `modernbert/recipes/pretrain.py`, commands in `examples/{name}.sh`"},
        ),
        phases=phases_table(settings["phases"]),
        documents=manifest.documents,
        text_tokens=manifest.tokens,
        sources=sources_table(manifest),
        masked=masked_table(json.loads((run / "masked.json").read_text())),
        cloze=cloze_table(json.loads((run / "cloze.json").read_text())),
    )


def cloze_table(found: dict[str, Any]) -> str:
    lines = ["| kind | asked | top-1 | top-5 |", "|---|---:|---:|---:|"]
    for name, s in [*found["kinds"].items(), ("**all**", found["total"])]:
        lines.append(f"| {name} | {s['asked']} | {s['top1']} | {s['top5']} |")
    return "\n".join(lines)


def main() -> None:
    run, shards, folder = map(Path, sys.argv[1:])
    model = load_model(MaskedLM, run / "model", dtype=torch.float32)
    save_model(model, model.config, folder, tokenizer=Tokenizer.load(run / "model"), dtype=torch.bfloat16)
    report(run)
    shutil.copy(run / "report.png", folder / "curves.png")
    (folder / "README.md").write_text(card(run, shards, folder.name, model))
    size = sum(file.stat().st_size for file in folder.parent.rglob("*") if file.is_file()) / 1e6
    print(f"{folder}: all packaged models together {size:.1f} MB")


if __name__ == "__main__":
    main()
