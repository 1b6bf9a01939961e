"""`modernbert report`: a training run as a page with curves."""

from pathlib import Path

import click


@click.command()
@click.argument("run", metavar="RUN")
def report(run: str) -> None:
    """Draw a training run's curves and sum it up; of a suite, its table and bars.

    Writes report.md and report.png into the run's folder, or suite.md and suite.png into the suite's.

    \b
    modernbert report runs/tiny
    """
    from modernbert.train.report import report as write
    from modernbert.train.suite_report import report_suite

    click.echo(report_suite(run) if (Path(run) / "suite.json").exists() else write(run))
