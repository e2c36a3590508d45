"""`init`: a folder with a suite, a method and a cluster file of one's own, which run as they stand."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.cli.options import reachable
from bench.cli.say import say
from bench.errors import UserError
from bench.launchers import LAUNCHERS
from bench.store.disk import disk_errors
from bench.suite.clusters import CLUSTERS
from bench.suite.layers import PRESETS

SUITES = PRESETS.parent
TEMPLATES = SUITES.parent / "examples" / "own_method"
QUEUE = next(kind for kind, facts in LAUNCHERS.items() if facts.asks_resources)  # whose cluster file is worth a copy
# What is written -> what it is a copy of, and the schema that an editor reads it by.
FILES: dict[str, tuple[Path, str]] = {
    "suite.yaml": (TEMPLATES / "suite.yaml", "suite.schema.json"),
    "method.py": (TEMPLATES / "method.py", ""),
    "parts.py": (TEMPLATES / "parts.py", ""),
    "cluster.yaml": (CLUSTERS / f"{QUEUE}.yaml", "cluster.schema.json"),
}


def command(
    folder: Annotated[Path, typer.Argument(callback=reachable, help="Folder to write into; made if missing.")] = Path(
        "mine"
    ),
) -> None:
    """Write a suite, a method with its part, and a cluster file of your own; they run as they stand.

    Nothing is ever overwritten.
    """
    init(folder, Console())


def init(folder: Path, console: Console) -> None:
    """`bench init`.

    Raises:
        UserError: one of the files is there already, or the folder cannot be written.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        hint = "name another folder: python -m bench init FOLDER"
        raise UserError(f"{', '.join(there)} would be overwritten", where=str(folder), hint=hint)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, (template, schema) in FILES.items():
            first = f"# yaml-language-server: $schema={(SUITES / schema).as_uri()}\n" if schema else ""
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(first + _without_schema(template.read_text(encoding="utf-8")))
    say(console, f"wrote {', '.join(FILES)} in {folder}")
    suite, method, cluster = (shlex.quote(str(folder / name)) for name in ("suite.yaml", "method.py", "cluster.yaml"))
    say(console, f"  does it keep the promises:  python -m bench methods check {method}")
    say(console, f"  what would run:             python -m bench plan {suite}")
    say(console, f"  run it:                     python -m bench run {suite}")
    say(console, f"  on a cluster (look first):  python -m bench plan {suite} --cluster {cluster}")


def _without_schema(text: str) -> str:
    first, _, rest = text.partition("\n")
    return rest if first.startswith("# yaml-language-server:") else text
