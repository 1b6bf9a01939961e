"""`modernbert finetune RECIPE MODEL key=value …`: each recipe is a command, and its config's fields are the settings."""

import json
import os
from typing import Any

import click

from modernbert.cli.recipe_group import recipe_group

_HELP = """Fine-tune a model for a task on labelled rows.

MODEL is a packaged model, a folder, or a name on the hub. Rows are .jsonl (also .gz, .zst), .csv, .tsv or .parquet. Several
learning rates and seeds are one job with a table at the end; the best checkpoint goes to OUT/model. Retrievers (dense, late,
distilled, tiny_distilled, tiny_embed) learn from pairs, and leave their last.
`modernbert finetune RECIPE --help` lists the settings of a recipe, as they are for models of base's width; for `tiny` rates are four
times as great, and epochs three times as many, where you name none.

\b
modernbert finetune classification tiny train=train.csv dev=dev.csv out=runs/mine
modernbert finetune tagging tiny train=train.jsonl dev=dev.jsonl learning_rates=1e-4,3e-4 seeds=0,1,2
modernbert finetune dense tiny train=pairs.jsonl dev=scifact out=runs/dense
"""


def _fitted(config: Any, model: str, as_json: bool) -> Any:
    from modernbert.checkpoint.names import resolve
    from modernbert.checkpoint.settings import read_config
    from modernbert.train.finetune import FinetuneConfig

    return config.for_width(read_config(resolve(model)).hidden_size) if isinstance(config, FinetuneConfig) else config


def _run(config: Any, model: str, as_json: bool) -> None:
    from modernbert.train.retrieval_settings import ContrastiveConfig

    if isinstance(config, ContrastiveConfig):
        from modernbert.train.contrastive import train_retriever

        folder = train_retriever(config, model)
        click.echo((folder.parent / "result.json").read_text().strip() if as_json else folder)
        return
    from modernbert.train.finetune import finetune

    result = finetune(config, model)
    if os.environ.get("RANK", "0") != "0":  # of torchrun's processes, one speaks
        return
    click.echo(json.dumps(result.to_json()) if as_json else f"{result.to_markdown()}\n{result.model}")


finetune = recipe_group(
    "finetune",
    module="modernbert.recipes.finetune",
    more=("modernbert.recipes.retrieval",),
    run=_run,
    fit=_fitted,
    help=_HELP,
    params=(
        click.Argument(["model"], metavar="MODEL"),
        click.Option(["--json", "as_json"], is_flag=True, help="One JSON object in place of the table."),
    ),
    metavar="MODEL ",
)
