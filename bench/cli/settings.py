"""`settings`: every setting of a suite and of a cluster file, with what it does. Separate because it reads no file."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from bench.cli.say import cell, say
from bench.errors import UserError, did_you_mean
from bench.suite import reference
from bench.suite.reference import Group


def command(
    name: Annotated[
        str | None, typer.Argument(help="A section or a setting, e.g. schedule or detector.rpn.", show_default=False)
    ] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Those of a cluster file.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="All of both, as docs/settings.md has them.")] = False,
) -> None:
    """Every setting of a suite: what it does, what is legal, its default. Those of a row: `bench methods NAME`."""
    if markdown:
        typer.echo(reference.markdown(), nl=False)
        return
    groups = reference.of_cluster() if cluster else reference.of_suite()
    show(_of(name, groups) if name is not None else groups, Console())


def show(groups: list[Group], console: Console) -> None:
    """Each section with its settings."""
    for number, group in enumerate(groups):
        if number:
            say(console, "")
        console.print(f"[bold]{cell(group.title)}[/]  {cell(group.text)}", highlight=False, soft_wrap=True)
        for one in group.settings:
            default = f" = {one.default}" if one.default else ""
            line = f"  [cyan]{cell(one.name + default)}[/]  [dim]{cell(one.legal)}[/]"
            console.print(line, highlight=False, soft_wrap=True)
            if one.text:
                say(console, f"      {one.text}")


def _of(name: str, groups: list[Group]) -> list[Group]:
    """The sections, or the one setting, of this name.

    Raises:
        UserError: there is none.
    """
    found = [group for group in groups if group.path and (group.path == name or group.path.startswith(f"{name}."))]
    if found:
        return found
    for group in groups:
        one = tuple(setting for setting in group.settings if setting.name == name)
        if one:
            found.append(Group(group.path, group.title, group.text, one))
    if not found:
        sections = sorted({group.path for group in groups if group.path})
        guess = did_you_mean(name, [*sections, *(one.name for group in groups for one in group.settings)])
        raise UserError(
            f"no section or setting '{name}'{guess}", where="settings", allowed=", ".join(sections),
            hint="without a name all are listed; those of a row: python -m bench methods NAME",
        )  # fmt: skip
    return found
