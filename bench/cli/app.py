"""The command line as a whole: which commands there are and in what order; each stands in a file of its own.

Heavy libraries are imported inside the functions that need them: `--help`, `plan` and `status` answer at once and leave
torch, mlflow, optuna and pandas alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import bench
from bench.cli import (
    data,
    engines,
    export,
    gc,
    init,
    logs,
    merge,
    methods,
    plan,
    report,
    run,
    schema,
    search,
    settings,
    status,
    stop,
    sync,
    ui,
    why,
)
from bench.errors import MOST_WHAT, MOST_WHERE, UserError, printable, show


class ShowsByDefault(TyperGroup):
    """A group whose first word may also be what its command `show` takes: `methods bags` is `methods show bags`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._with_command(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, self._with_command(args))

    def _with_command(self, args: list[str]) -> list[str]:
        return args if args and (args[0] in self.commands or args[0] == "--help") else ["show", *args]


# A name of a file that no file can have, whichever option or setting gave it: the user's mistake, wherever it is met.
OF_A_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
# The base of what the command-line library raises; that library is inside typer, or beside it in older versions.
MISTYPED: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


@contextlib.contextmanager
def _printable_messages() -> Iterator[None]:
    try:
        yield
    except MISTYPED as error:
        for name in ("message", "param_hint", "option_name"):
            text = getattr(error, name, None)
            if isinstance(text, str):
                setattr(error, name, printable(text, MOST_WHAT))
        raise


# As `--help` lists them: what one does first comes first.
COMMANDS = (
    "run", "search", "plan", "status", "logs", "why", "stop", "retry", "report", "export", "merge", "methods",
    "engines", "data", "gc", "sync", "ui", "init", "settings", "schema",
)  # fmt: skip


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"longtail-bench {bench.__version__}")
        raise typer.Exit


class InOrder(TyperGroup):
    """The commands in the order of COMMANDS (typer lists groups last); messages about a mistyped command line show what
    was typed, but no more than a line of it and nothing that a terminal obeys."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _printable_messages():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _printable_messages():  # of the command below, too
            return super().invoke(ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: (*COMMANDS, name).index(name))


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Compare methods for long-tailed object detection fairly.

A *suite* is a YAML file with the rows of one table. `run` brings the *store* to what the suite asks for: what is done
stays, what is missing runs, what was killed continues.

    S=suites/table1.yaml
    python -m bench plan $S          what would run, what is shared, how long
    python -m bench run $S           run it; ends with the table
    python -m bench run $S --cluster slurm --detach       submit it and leave
    python -m bench search suites/search_tau.yaml         find the best settings of a row
    python -m bench status $S        what is done, runs, waits, has failed
    python -m bench logs $S BAGS     what the job of a row has printed
    python -m bench stop $S          save and end; `run` continues
    python -m bench report $S        table and figures again
    python -m bench export $S a.zip  its results in one file, which `report` reads anywhere
    python -m bench methods bags     what a method does, its settings
    python -m bench engines          the detectors there are, and what each lacks
    python -m bench init mine        a suite, method and cluster of one's own

`bench` alone is the same as `python -m bench` where the project is installed.

Read from the environment: BENCH_STORE (`--store`), BENCH_CLUSTER (`--cluster`), MLFLOW_TRACKING_URI
(`--tracking-uri`), BENCH_WEIGHTS (a folder of weight files), BENCH_DEBUG=1 (tracebacks of `methods check` and
`engines check`).""",
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """What stands before a command."""


data_app = typer.Typer(no_args_is_help=True, help="Look at data before it costs GPU time.")
app.add_typer(data_app, name="data")
methods_app = typer.Typer(
    cls=ShowsByDefault,
    help="""The methods there are, and whether they keep the promises that all methods keep.

    python -m bench methods                      the list

    python -m bench methods bags                 what one does, its source, settings and departures from its paper

    python -m bench methods check bags           every check, on every engine that is here

    python -m bench methods check mine/new.py    the same for methods that lie elsewhere""",
)
app.add_typer(methods_app, name="methods")
engines_app = typer.Typer(
    cls=ShowsByDefault,
    help="""The engines there are (detectors, built in or brought by a package), and whether they keep the promises that
all engines keep.

    python -m bench engines                      the list

    python -m bench engines detr                 what one provides, its parameter groups, the methods it cannot run

    python -m bench engines check detr           every check, on a tiny detector""",
)
app.add_typer(engines_app, name="engines")

app.command("run")(run.command)
app.command("search")(search.command)
app.command("plan")(plan.command)
app.command("status")(status.command)
app.command("logs")(logs.command)
app.command("why")(why.command)
app.command("stop")(stop.stop_command)
app.command("retry")(stop.retry_command)
app.command("report")(report.command)
app.command("export")(export.command)
app.command("merge")(merge.command)
app.command("gc")(gc.command)
app.command("sync")(sync.command)
app.command("ui")(ui.command)
app.command("init")(init.command)
app.command("settings")(settings.command)
app.command("schema")(schema.command)
methods_app.command("show")(methods.show_command)
methods_app.command("check")(methods.check_command)
engines_app.command("show")(engines.show_command)
engines_app.command("check")(engines.check_command)
data_app.command("check")(data.check_command)
data_app.command("convert")(data.convert_command)
data_app.command("fill-negatives")(data.fill_command)


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    # Set before numpy is imported anywhere below us.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        _check_text(sys.argv[1:])
        app()
    except UserError as error:
        show(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in OF_A_NAME:
            raise
        show(str(UserError(str(error.strerror).lower(), where=str(error.filename))))
        sys.exit(UserError.exit_code)


def _check_text(words: Sequence[str]) -> None:
    """Refuse bytes that are no text in this system's encoding: neither JSON nor MLflow could keep them."""
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            hint = "a file or folder with such a name: rename it, or make a link to it with another one"
            raise UserError(f"'{printable(word, MOST_WHERE)}' is not text", where="the command line", hint=hint)
