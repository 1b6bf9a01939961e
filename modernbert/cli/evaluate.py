"""`modernbert eval`: what a model knows, measured on files."""

import json
from pathlib import Path
from typing import Any, Literal

import click

import modernbert
from modernbert.cli import inputs

_model = click.argument("model", metavar="MODEL")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object in place of the table.")


@click.group("eval")
def evaluate() -> None:
    """Measure a model on files.

    MODEL is a packaged model, a folder, or a name on the hub.
    """


@evaluate.command()
@_model
@inputs.dtype
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--length", default=1024, show_default=True, help="Tokens of a row; whole documents are cut to rows.")
@_json
def masked(model: str, dtype: str | None, files: tuple[Path, ...], length: int, as_json: bool) -> None:
    """Bits per masked byte, and top-1 accuracy.

    15 % of the tokens of each FILE become [MASK]; the model says what they were. Bits per byte compare between vocabularies.

    \b
    modernbert eval masked runs/mine/model validation.jsonl.zst
    """
    from modernbert.eval.masked import evaluate_masked

    _show(evaluate_masked(modernbert.load(model, dtype=dtype), files, length=length), as_json)


@evaluate.command()
@_model
@inputs.dtype
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--length", default=8192, show_default=True, help="Tokens of a row.")
@click.option("--rows", type=click.IntRange(min=1), help="At most so many; all, if not given.")
@_json
def positions(model: str, dtype: str | None, files: tuple[Path, ...], length: int, rows: int | None, as_json: bool) -> None:
    """Masked tokens by their position in long rows, and the same ones in short rows.

    \b
    modernbert eval positions runs/mine/model validation.jsonl.zst
    """
    from modernbert.eval.positions import evaluate_positions

    _show(evaluate_positions(modernbert.load(model, dtype=dtype), files, length=length, most_rows=rows), as_json)


@evaluate.command()
@_model
@inputs.dtype
@click.argument("file", type=click.Path(path_type=Path))
@_json
def cloze(model: str, dtype: str | None, file: Path, as_json: bool) -> None:
    """How often the first guesses hold the answer.

    FILE is .jsonl; each line has a `text` with one [MASK], its `answer`, and a `kind`.
    """
    from modernbert.eval.cloze import evaluate_cloze

    _show(evaluate_cloze(modernbert.load(model, dtype=dtype), file), as_json)


@evaluate.command()
@_model
@click.argument("data", metavar="DATA...", nargs=-1, required=True)
@click.option("--against", "peers", metavar="MODEL", multiple=True, help="Another system in the same run; may be repeated.")
@click.option("--split", default="dev", show_default=True, help="Of folders: whose judgements count.")
@click.option("--query", default="query", show_default=True, help="Of files of pairs: the query's column.")
@click.option("--document", default="document", show_default=True, help="Of files of pairs: the document's column.")
@click.option("--metric", default="ndcg@10", show_default=True, help="ndcg@10, mrr@10, recall@1, recall@10, recall@100 or map.")
@click.option("--suite", is_flag=True, help="DATA is one folder with the development sets, each in its own folder.")
@click.option("--only", metavar="NAMES", default="", help="Of a suite: these sets alone, with commas between.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the table as a .png.")
@click.option("--device", help="cuda, cuda:1, cpu …; the best one here if not given.")
@_json
def retrieval(
    model: str,
    data: tuple[str, ...],
    peers: tuple[str, ...],
    split: str,
    query: str,
    document: str,
    metric: str,
    suite: bool,
    only: str,
    plot: Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Search: nDCG@10 and its kind, with intervals.

    Each DATA is a folder in BEIR's or MLDR's layout, a file of pairs or of candidates, or the name of a data set on the hub.
    MODEL may also be bm25, st:NAME for a model that sentence-transformers runs, or int8:NAME for one of ours in int8. passages:MODEL cuts
    documents into passages of 100 words, one every 50 words, and the mean of the three best counts; dim64:MODEL cuts vectors to their
    first 64 numbers (Matryoshka). Several folders with commas between are seeds of one model, and give mean ± standard deviation.

    \b
    modernbert eval retrieval bm25 scifact --split test
    modernbert eval retrieval runs/mine/model pairs.jsonl --against bm25 --against st:all-MiniLM-L6-v2
    modernbert eval retrieval passages:runs/mine/model books --against runs/mine/model
    modernbert eval retrieval tiny-embed scifact --against dim64:tiny-embed
    """
    from modernbert.data.retrieval import RetrievalSource
    from modernbert.eval.named import systems_named
    from modernbert.eval.retrieval import evaluate_retrieval
    from modernbert.eval.suites import development_sets

    if plot is not None and plot.suffix != ".png":
        raise click.BadParameter(f"{plot}; wanted a name that ends in .png", param_hint="--plot")
    if suite:
        sources = development_sets(data[0], tuple(only.split(",")) if only else ())
    else:
        sources = [RetrievalSource(path=path, split=split, query=query, document=document, metric=metric) for path in data]
    systems = [system for name in (model, *peers) for system in systems_named(name, device)]
    found = evaluate_retrieval(systems, sources)
    if plot is not None:
        from modernbert.eval.bars import draw

        draw(found, plot)
    _show(found, as_json)


@evaluate.command()
@_model
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--max-length", type=int, help="Longest row in tokens; what the model reads, if not given.")
@click.option("--device", help="cuda, cuda:1, cpu …; the best one here if not given.")
@click.option("--int8", is_flag=True, help="Run the encoder in int8, on the CPU.")
@_json
def task(
    model: str, file: Path, settings: tuple[str, ...], max_length: int | None, device: str | None, int8: bool, as_json: bool
) -> None:
    """A fine-tuned model's scores on labelled rows.

    FILE is .jsonl (also .gz, .zst), .csv, .tsv or .parquet, with the columns that the recipes of `modernbert finetune` read; others
    are named by KEY=VALUE. The task is what MODEL's config.json states.

    \b
    modernbert eval task runs/mine/model test.csv text=sentence label=kind
    """
    from modernbert.cli.overrides import with_settings
    from modernbert.eval.supervised import evaluate_file, task_of

    stated = with_settings(task_of(model), settings)
    _show(evaluate_file(model, file, stated, max_length=max_length, device=device, int8=int8), as_json)


@evaluate.command()
@_model
@click.option("--tokens", default="1024,4096,8192", show_default=True, help="Lengths of the contexts, with commas between.")
@click.option("--rows", default=100, show_default=True, help="For each length; as many at each of ten depths.")
@click.option("--device", help="cuda, cuda:1, cpu …; the best one here if not given.")
@_json
def lookup(model: str, tokens: str, rows: int, device: str | None, as_json: bool) -> None:
    """One value among many, in long documents.

    MODEL answers questions; contexts are made-up objects of random keys and values, and the right one stands at ten depths.

    \b
    modernbert eval lookup runs/kv_retrieval/model --tokens 1024,8192
    """
    from modernbert.cli.overrides import read_value
    from modernbert.eval.lookup import evaluate_lookup

    lengths = read_value(tokens, tuple[int, ...], "tokens")
    _show(evaluate_lookup(model, lengths, rows=rows, device=device), as_json)


@evaluate.command()
@_model
@click.argument("data", metavar="DATA")
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--out", required=True, metavar="FOLDER", help="Gets jobs, rows, table and picture; goes on where it was.")
@click.option("--only", metavar="NAMES", default="", help="These tasks alone, with commas between.")
@click.option("--size", type=click.Choice(["base", "large"]), default="base", show_default=True, help="Whose best settings.")
def glue(model: str, data: str, settings: tuple[str, ...], out: str, only: str, size: Literal["base", "large"]) -> None:
    """GLUE, as the paper did it.

    Fine-tunes MODEL for every task with the best settings of ModernBERT and four seeds; RTE, MRPC and STS-B begin from the MNLI
    model. DATA is a folder in the layout of nyu-mll/glue, that name itself, or a folder with glue_sst2/train.jsonl.gz and so on.
    KEY=VALUE changes a setting of every task.

    \b
    modernbert eval glue answerdotai/ModernBERT-base nyu-mll/glue --out runs/glue
    """
    from modernbert.cli.suites import chosen, run
    from modernbert.recipes.suites import glue as members

    run(chosen(members(size), settings, only), model, data, out)


@evaluate.command()
@_model
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@inputs.files
@inputs.column("text", "the text")
@_json
def int8(model: str, texts: tuple[str, ...], files: tuple[str, ...], text_column: str, as_json: bool) -> None:
    """What int8 loses against float32 on a CPU.

    Cosines of states, and the error of each layer, on your texts.

    \b
    modernbert eval int8 runs/mine/model --file texts.jsonl
    """
    from modernbert.engine.quantized_report import int8_report

    places, read = inputs.read_inputs(texts, files, (text_column,))
    with inputs.named(places):
        found = int8_report(model, [text for (text,) in read])
    _show(found, as_json)


def _show(result: Any, as_json: bool) -> None:
    click.echo(json.dumps(result.to_json()) if as_json else result.to_markdown())
