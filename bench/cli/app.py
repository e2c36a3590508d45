"""The command line. Separate because it only parses, calls one function of a lower floor and prints.

Heavy libraries are imported inside the commands that need them: `--help`, `plan` and `status` answer at once and leave
torch, mlflow, optuna and pandas alone.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from bench.errors import UserError, show
from bench.launchers import LAUNCHERS


class ShowsByDefault(TyperGroup):
    """A group whose first word may also be what its command `show` takes: `methods bags` is `methods show bags`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._with_command(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, self._with_command(args))

    def _with_command(self, args: list[str]) -> list[str]:
        return args if args and (args[0] in self.commands or args[0] == "--help") else ["show", *args]


# As `--help` lists them: what one does first comes first.
COMMANDS = (
    "run", "plan", "status", "logs", "why", "stop", "retry", "report", "methods", "data", "gc", "sync", "ui",
)  # fmt: skip


class InOrder(TyperGroup):
    """The commands in the order of COMMANDS; typer lists groups last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: (*COMMANDS, name).index(name))


app = typer.Typer(
    cls=InOrder,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Compare methods for long-tailed object detection fairly.

A *suite* is a YAML file with the rows of one table. `run` brings the *store* to what the suite asks for: what is done
stays, what is missing runs, what was killed continues.

    python -m bench plan suites/table1.yaml        what would run, what is shared, how long
    python -m bench run suites/table1.yaml         run it; ends with the table
    python -m bench run suites/table1.yaml --cluster slurm --detach     submit it and leave
    python -m bench status suites/table1.yaml      what is done, runs, waits, has failed
    python -m bench logs suites/table1.yaml BAGS   what the job of a row says, or said
    python -m bench stop suites/table1.yaml        save and end; `run` continues
    python -m bench report suites/table1.yaml      table and figures again
    python -m bench methods bags                   what a method does, its settings
    python -m bench methods check mine/new.py      does a method keep the promises""",
)
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

SuitePath = Annotated[Path, typer.Argument(help="Suite file, e.g. suites/table1.yaml", show_default=False)]
RowOrStage = Annotated[
    str, typer.Argument(help="A row's label, or the first digits of a stage's key.", show_default=False)
]
MaybeStage = Annotated[
    str | None,
    typer.Argument(help="A row's label, or the first digits of a stage's key; default: all.", show_default=False),
]
StoreOption = Annotated[Path, typer.Option("--store", envvar="BENCH_STORE", help="Folder where stages live.")]
Preset = Annotated[
    str | None, typer.Option(help="Replace the file's preset and the sections it defines (suites/_presets).")
]
DataPath = Annotated[
    str | None, typer.Option("--data", help="Folder of LVIS-format data: images/, annotations/train.json, val.json.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override one value, e.g. schedule.steps=300 or rows.BAGS.beta=4.")
]
Only = Annotated[str | None, typer.Option(help="Rows to keep, e.g. baseline,BAGS.")]
Seeds = Annotated[str | None, typer.Option(help="Replace the file's seeds, e.g. 1,2,3.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Jobs at a time (default: one per core, or per GPU; in a queue: array_parallelism)."),
]
Fuse = Annotated[bool, typer.Option("--fuse/--no-fuse", help="Train classifiers over one frozen trunk in one pass.")]
Tracking = Annotated[
    str | None,
    typer.Option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow server; default: sqlite in the store."),
]
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
Out = Annotated[Path | None, typer.Option(help="Folder for the report (default: below reports/ in the store).")]
ShowConfig = Annotated[
    bool, typer.Option("--show-config", help="The whole configuration, defaults filled in, as YAML.")
]
MethodsPath = Annotated[
    list[Path] | None,
    typer.Option("--methods-path", help="File or folder with more methods (this runs its code)."),
]

DEFAULT_STORE = Path("store")


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    # Set before numpy is imported anywhere below us.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except UserError as error:
        show(str(error))
        sys.exit(error.exit_code)


@app.command()
def run(
    suite: SuitePath, store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None,
    sets: Sets = None, only: Only = None, seeds: Seeds = None, jobs: Jobs = None, fuse: Fuse = True,
    keep_going: KeepGoing = True,
    cluster: ClusterName = "local",
    detach: Detach = False,
    tracking_uri: Tracking = None,
    out: Out = None,
) -> None:  # fmt: skip
    """Bring the store to what the suite asks for, then print its table.

    Run it again: only what is missing runs. Ctrl-C saves and stops; kill -9 loses at most the steps since the last
    checkpoint. On a cluster Ctrl-C leaves: the jobs go on (`bench stop` ends them). Exit code: 0 all done or submitted,
    1 some row failed, 2 your mistake, 130 interrupted.
    """
    from bench.cli import commands

    loaded = commands.open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    code = commands.run(
        loaded, store, Console(), jobs=jobs, fuse=fuse, keep_going=keep_going, tracking_uri=tracking_uri, out=out,
        again=shlex.join(["python", "-m", "bench", *sys.argv[1:]]), cluster=cluster, detach=detach,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def plan(
    suite: SuitePath, store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None,
    sets: Sets = None, only: Only = None, seeds: Seeds = None, jobs: Jobs = None, fuse: Fuse = True,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    show_config: ShowConfig = False,
    cluster: MaybeCluster = None,
) -> None:  # fmt: skip
    """Show the unique stages, who shares them, what is done and what the rest will cost. Starts nothing.

    With `--cluster slurm` also the jobs that `run --cluster slurm` would submit: which stages ride in which, who waits
    for whom, what each asks for. It works on a machine that has no such queue.
    """
    from bench.cli import commands, upkeep
    from bench.suite import clusters

    loaded = commands.open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    if show_config:
        typer.echo(commands.config_text(loaded), nl=False)
        return
    where = clusters.read(cluster) if cluster is not None else None
    overview = commands.overview(loaded, store, jobs=jobs, fuse=fuse, cluster=where)
    if as_json:
        typer.echo(json.dumps(upkeep.plan_json(overview, cluster), indent=1))
    else:
        words = [word for word in sys.argv[2:] if word != "--json"]
        upkeep.plan(overview, Console(), cluster, shlex.join(["python", "-m", "bench", "run", *words]))


@app.command()
def status(
    suite: SuitePath, store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None,
    sets: Sets = None, only: Only = None, seeds: Seeds = None, fuse: Fuse = True,
    watch: Annotated[bool, typer.Option("--watch", help="Again every 2 s, until all is done or Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: every stage.")] = False,
) -> None:  # fmt: skip
    """One line a stage: state, attempt, host, step, rate, time left, memory, the last error.

    Reads the store alone: it needs no driver and no GPU. Stages that one pass makes are one line (+11).
    """
    from bench.cli import commands, upkeep

    loaded = commands.open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    if as_json:
        typer.echo(json.dumps(upkeep.status_json(loaded, store), indent=1))
    else:
        upkeep.status(loaded, store, Console(), fuse=fuse, watch=watch)


@app.command()
def logs(
    suite: SuitePath, stage: RowOrStage, store: StoreOption = DEFAULT_STORE, preset: Preset = None,
    data: DataPath = None, sets: Sets = None, only: Only = None, seeds: Seeds = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt ends.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines of each file.")] = 100,
) -> None:  # fmt: skip
    """What a row's job, or a stage's, has said in its newest attempt: events, stdout, stderr.

    Of a row: the stage that is at work, else the one that failed, else the one that ran last.
    """
    from bench.cli import commands, upkeep

    loaded = commands.open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    upkeep.logs(loaded, store, stage, Console(), follow=follow, lines=lines)


@app.command()
def stop(
    suite: SuitePath, stage: MaybeStage = None, store: StoreOption = DEFAULT_STORE, preset: Preset = None,
    data: DataPath = None, sets: Sets = None, only: Only = None, seeds: Seeds = None,
) -> None:  # fmt: skip
    """Ask running jobs to save and end; nothing is lost, and `run` continues.

    With a row: what it alone needs. Stages that other rows wait for are stopped by their key.
    """
    from bench.cli import commands, upkeep

    loaded = commands.open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    upkeep.stop(loaded, store, stage, Console())


@app.command()
def retry(
    suite: SuitePath, stage: MaybeStage = None, store: StoreOption = DEFAULT_STORE, preset: Preset = None,
    data: DataPath = None, sets: Sets = None, only: Only = None, seeds: Seeds = None,
) -> None:  # fmt: skip
    """Clear the failures of stages, so that a run tries them again at once. Starts nothing itself."""
    from bench.cli import commands, upkeep

    loaded = commands.open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    upkeep.retry(loaded, store, stage, Console())


@app.command()
def gc(
    store: StoreOption = DEFAULT_STORE,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    forget: Annotated[
        list[str] | None, typer.Option("--forget", help="A suite that nobody needs any more (repeatable).")
    ] = None,
) -> None:
    """Free what no suite needs: shows it first, deletes after a typed yes.

    A suite that was ever run on the store needs its stages, whoever ran it, until it is forgotten. Stages that somebody
    works on stay.
    """
    from bench.cli import upkeep

    def confirmed() -> bool:
        try:
            return yes or str(typer.prompt("delete it? (yes/no)", default="no", show_default=False)).strip() == "yes"
        except typer.Abort:
            raise UserError("nobody can type yes here; nothing was deleted", where="gc", hint="--yes") from None

    upkeep.gc(store, forget or [], Console(), confirmed)


@app.command()
def report(
    suite: SuitePath, store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None,
    sets: Sets = None, only: Only = None, seeds: Seeds = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: [{row, seeds, metrics, protocol}].")] = False,
    official: Annotated[bool, typer.Option("--official", help="Check AP against the official lvis package.")] = False,
    out: Out = None,
) -> None:  # fmt: skip
    """Write the table (text, Markdown, LaTeX, CSV) and the figures from what is done. Runs nothing."""
    from bench.cli import commands

    loaded = commands.open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    if official:
        raise typer.Exit(commands.official(loaded, store, Console()))
    if as_json:
        typer.echo(json.dumps(commands.report_json(loaded, store), indent=1))
    else:
        commands.report(loaded, store, Console(), out)


@app.command()
def why(
    suite: SuitePath, stage: RowOrStage,
    store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None, sets: Sets = None,
    only: Only = None, seeds: Seeds = None,
) -> None:  # fmt: skip
    """Explain a stage: its spec, its inputs, who needs it, and what differs from the nearest stage that is done."""
    from bench.cli import commands

    loaded = commands.open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    commands.why(loaded, store, stage, Console())


@methods_app.command("show")
def methods(
    name: Annotated[str | None, typer.Argument(help="A method; without one: the list.", show_default=False)] = None,
    path: MethodsPath = None,
) -> None:  # fmt: skip
    """The methods there are; with a name: what it does, its source, settings, and where it departs from the paper."""
    from bench.cli import methods as catalogue

    catalogue.show(name, path or [], Console())


@methods_app.command("check")
def methods_check(
    targets: Annotated[
        list[str], typer.Argument(metavar="NAME_OR_PATH...", help="Methods, .py files or folders (this runs them).")
    ],
    engine: Annotated[str | None, typer.Option(help="One engine (default: all that can be imported here).")] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where a failure came from.")] = False,
) -> None:
    """Hold methods to what is promised of all: pure plans, honest keys, exact resume, fusing, well-formed scores.

    Runs a few steps of a tiny suite in a store of its own, seconds a method. Exit code: 0 all promises are kept, 1 some
    are not, 2 your mistake.
    """
    from bench.contract_check.show import methods_check as check

    raise typer.Exit(check(targets, engine, Console(), traceback=traceback))


@app.command()
def sync(
    suite: SuitePath, store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None,
    sets: Sets = None, only: Only = None, seeds: Seeds = None, tracking_uri: Tracking = None,
) -> None:  # fmt: skip
    """Bring what a suite's stages have logged into MLflow; may be repeated. (`run` does it at its end.)"""
    from bench.cli import commands

    loaded = commands.open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    commands.sync(loaded, store, Console(), tracking_uri)


@app.command()
def ui(
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open MLflow on 127.0.0.1 for a store. Ctrl-C ends it."""
    from bench.tracking.ui import ui as serve

    serve(store, port)


@data_app.command("check")
def data_check(
    path: Annotated[Path, typer.Argument(help="Folder of LVIS- or COCO-format data.", show_default=False)],
    train: Annotated[str, typer.Option(help="Training annotations, below PATH.")] = "annotations/train.json",
    val: Annotated[str, typer.Option(help="Validation annotations, below PATH.")] = "annotations/val.json",
    images: Annotated[str, typer.Option(help="Folder of the pictures, below PATH.")] = "images",
    form: Annotated[str, typer.Option("--format", help="Format of the annotations, e.g. coco.")] = "lvis",
) -> None:
    """Find what would hurt later: missing pictures, unknown ids, bad boxes, no negative lists, untrained classes."""
    from bench.cli import commands

    raise typer.Exit(commands.data_check(path, train, val, images, form, Console()))


@data_app.command("fill-negatives")
def data_fill(
    source: Annotated[Path, typer.Argument(help="Annotation file whose annotation is exhaustive.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="File to write.", show_default=False)],
) -> None:
    """Write a copy in which every class absent from a picture is a negative, so that its false positives count."""
    from bench.data.check import fill_negatives

    filled: Any = fill_negatives(source, target)
    Console().print(f"wrote {target}" + (f" ({filled} pictures filled)" if isinstance(filled, int) else ""))
