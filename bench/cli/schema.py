"""`schema`: the JSON schema of a suite or cluster file, for editors."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from bench.suite import schema as schemas


class Kind(StrEnum):
    """Of which file."""

    suite = "suite"
    cluster = "cluster"


def command(kind: Annotated[Kind, typer.Argument(help="Of a suite, or of a cluster file.")] = Kind.suite) -> None:
    """Print the JSON schema of a suite file, by which an editor completes settings and marks mistakes.

    The suites of this project name it in their first line: `# yaml-language-server: $schema=suite.schema.json`.
    """
    typer.echo(text(kind), nl=False)


def text(kind: Kind) -> str:
    """The schema as it is written to suites/*.schema.json."""
    made = schemas.of_suite() if kind is Kind.suite else schemas.of_cluster()
    return json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
