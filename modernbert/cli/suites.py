"""What the verbs that run a suite share."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import click

from modernbert.cli.overrides import with_settings
from modernbert.errors import ConfigError


def chosen(members: Sequence[Any], settings: Sequence[str], only: str = "") -> list[Any]:
    """The members named in `only` (with commas between; none is all), each with settings changed. Raises ConfigError: no such name."""
    names = only.split(",") if only else [member.name for member in members]
    unknown = set(names) - {member.name for member in members}
    if unknown:
        raise ConfigError(f"no set named {', '.join(sorted(unknown))}; there are {', '.join(member.name for member in members)}")
    return [
        dataclasses.replace(member, config=with_settings(member.config, settings)) for member in members if member.name in names
    ]


def run(members: Sequence[Any], model: str | None, data: str, out: str, baseline: Any = None) -> None:
    """Runs the members and prints the table."""
    from modernbert.train.suite import run_suite

    report = run_suite(members, model, data, out, baseline=baseline)
    click.echo(f"{report.to_markdown()}\n{out}/suite.md; `modernbert report {out}` draws it")
