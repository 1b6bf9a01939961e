"""`modernbert average`: one model from several checkpoints of a run."""

from pathlib import Path

import click


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--steps", metavar="N,N,…", default="", help="Which checkpoints; without it, all that the run has kept.")
@click.option("--best", metavar="N", type=click.IntRange(min=0), help="The last one, and the N best others by validation loss.")
@click.option("-o", "--out", metavar="FOLDER", required=True, type=click.Path(path_type=Path), help="Where the model goes.")
def average(run: str, steps: str, best: int | None, out: Path) -> None:
    """Average the weights of a run's checkpoints.

    \b
    modernbert average runs/base --steps 360000,368000,376000,380000 -o base
    modernbert average runs/base --best 3 -o base
    """
    from modernbert.train.average import average as write

    try:
        numbers = [int(step) for step in steps.split(",") if step]
    except ValueError:
        raise click.BadParameter(f"{steps!r}; wanted whole numbers with commas between them", param_hint="--steps") from None
    used = write(run, out, numbers, best)
    click.echo(f"{out}: the mean of {len(used)} checkpoints, {', '.join(folder.name for folder in used)}")
