"""The arguments and options that several commands share. Separate so that a command's file needs no other command's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UserError
from bench.launchers import LAUNCHERS
from bench.tracking import credentials


def reachable(path: Path | None) -> Path | None:
    """A path that the system can look up, there or not.

    Raises:
        UserError: a name too long, a folder that may not be entered, a loop of links.
    """
    try:
        if path is not None:
            path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # whoever needs it there says so
    except (OSError, ValueError) as error:
        raise UserError(str(getattr(error, "strerror", None) or error).lower(), where=str(path)) from None
    return path


SuitePath = Annotated[Path, typer.Argument(help="Suite file, e.g. suites/table1.yaml", show_default=False)]
RowOrStage = Annotated[
    str, typer.Argument(help="A row's label, or the first digits of a stage's key.", show_default=False)
]
MaybeStage = Annotated[
    str | None,
    typer.Argument(help="A row's label, or the first digits of a stage's key; default: all.", show_default=False),
]
StoreOption = Annotated[
    Path, typer.Option("--store", envvar="BENCH_STORE", callback=reachable, help="Folder where stages live.")
]
Preset = Annotated[
    str | None, typer.Option(help="Replace the file's preset and the sections it defines (suites/_presets).")
]
DataPath = Annotated[
    str | None, typer.Option("--data", help="Folder of LVIS-format data: images/, annotations/train.json, val.json.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override one value, e.g. schedule.steps=300 or rows.BAGS.beta=4.")
]
Only = Annotated[
    list[str] | None, typer.Option(help="Rows to keep, e.g. baseline,BAGS or 'NCM*'; several --only add up.")
]
Seeds = Annotated[
    list[str] | None, typer.Option(help="Replace the file's seeds, e.g. 1,2,3 or 1-3; several --seeds add up.")
]
Against = Annotated[
    str | None,
    typer.Option(
        help="Show the differences from this row too, of every other: the control that they have to beat.",
        metavar="ROW",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1, max=100_000, help="Jobs at a time (default: one per core, or per GPU; in a queue: array_parallelism)."
    ),
]
Fuse = Annotated[bool, typer.Option("--fuse/--no-fuse", help="Train classifiers over one frozen trunk in one pass.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri", envvar=credentials.ADDRESS, callback=credentials.taken,
        help="MLflow server; default: sqlite in the store.",
    ),
]  # fmt: skip
KeepGoing = Annotated[
    bool, typer.Option("--keep-going/--fail-fast", help="After a failure: go on with other rows, or stop.")
]
ClusterName = Annotated[
    str,
    typer.Option(
        "--cluster", envvar="BENCH_CLUSTER", metavar="NAME|FILE",
        help=f"Where jobs run: {', '.join(LAUNCHERS)} (suites/_clusters), or a file of yours.",
    ),
]  # fmt: skip
MaybeCluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", envvar="BENCH_CLUSTER", metavar="NAME|FILE", help="Show the jobs that would be submitted there.",
    ),
]  # fmt: skip
Detach = Annotated[bool, typer.Option("--detach", help="Submit everything and return; the jobs need no terminal.")]
Out = Annotated[
    Path | None, typer.Option(callback=reachable, help="Folder for the report (default: below reports/ in the store).")
]
ShowConfig = Annotated[
    bool, typer.Option("--show-config", help="The whole configuration, defaults filled in, as YAML.")
]
MethodsPath = Annotated[
    list[Path] | None,
    typer.Option("--methods-path", help="File or folder with more methods (this runs its code)."),
]

DEFAULT_STORE = Path("store")
