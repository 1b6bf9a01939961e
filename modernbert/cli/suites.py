"""What the verbs that run a suite share."""

from collections.abc import Sequence
from typing import Any

import click

from modernbert.cli.overrides import with_settings
from modernbert.errors import ConfigError


def run(
    members: Sequence[Any],
    model: str | None,
    settings: Sequence[str],
    data: str,
    out: str,
    only: str = "",
    baseline: Any = None,
) -> None:
    """Runs the members that are asked for, with settings changed, and prints the table."""
    from dataclasses import replace

    from modernbert.train.suite import run_suite

    names = only.split(",") if only else [member.name for member in members]
    unknown = set(names) - {member.name for member in members}
    if unknown:
        raise ConfigError(f"no set named {', '.join(sorted(unknown))}; there are {', '.join(member.name for member in members)}")
    chosen = [replace(member, config=with_settings(member.config, settings)) for member in members if member.name in names]
    report = run_suite(chosen, model, data, out, baseline=baseline)
    click.echo(f"{report.to_markdown()}\n{out}/suite.md; `modernbert report {out}` draws it")
