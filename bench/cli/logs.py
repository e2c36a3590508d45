"""`logs`: what the job that runs or ran a stage has printed. Separate because it reads files that no other part reads.

An attempt's start event names the files that its process wrote to; where a cluster redirects them (srun's pipes), the
note of the submitted job does. Files of local jobs lie in the user's cache and go when a run ended well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.cli.open import open_suite
from bench.cli.options import DEFAULT_STORE, DataPath, Only, Preset, RowOrStage, Seeds, Sets, StoreOption, SuitePath
from bench.cli.progress import name_of
from bench.cli.readings import clock_time
from bench.cli.say import say
from bench.cli.selection import chosen
from bench.cli.wanted import wanted
from bench.launch import submitted
from bench.plan.planning import Plan
from bench.store.events import read_events
from bench.store.existing import not_another
from bench.store.store import Store

LINES = 100  # of each file, unless asked for more
FOLLOW_SECONDS = 0.5
_CURVES = ("metrics",)  # for MLflow; `progress` says the same less often
_QUIET = ("event", "time", "values", "step", "total", "environment")  # the last is long


def command(
    suite: SuitePath, stage: RowOrStage, store: StoreOption = DEFAULT_STORE, preset: Preset = None,
    data: DataPath = None, sets: Sets = None, only: Only = None, seeds: Seeds = None,
    on: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt ends.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines of each file.")] = 100,
) -> None:  # fmt: skip
    """What a row's job, or a stage's, has printed in its newest attempt: events, stdout, stderr.

    Of a row: the stage that is at work, else the one that failed, else the one that ran last.
    """
    loaded = open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    opened = not_another(store)
    plan = wanted(loaded, store)
    key = newest(plan, opened, chosen(plan, stage))
    (follow if on else show)(plan, opened, key, Console(), lines)


@dataclass(frozen=True)
class Files:
    """Where an attempt speaks. None: not known, or not a file."""

    events: Path
    out: Path | None
    err: Path | None


def newest(plan: Plan, store: Store, keys: Sequence[str]) -> str:
    """Of these stages the one that somebody who asks for a log means: at work, else failed, else the last that ran."""

    def rank(key: str) -> tuple[bool, bool, float]:
        attempts = store.attempts(key)
        path = attempts[-1] / "events.jsonl" if attempts else None
        when = path.stat().st_mtime if path is not None and path.exists() else 0.0
        return store.running(key) is not None, store.failure(key) is not None, when

    order = list(plan.stages)
    return max(keys, key=lambda key: (*rank(key), -order.index(key)))


def files(store: Store, key: str) -> Files | None:
    """The files of the newest attempt; None where there is none yet."""
    attempts = store.attempts(key)
    if not attempts:
        return None
    path = attempts[-1] / "events.jsonl"
    start: dict[str, Any] = next((e for e in read_events(path)[0] if e.get("event") == "start"), {})
    out, err = (_path(start.get(name)) for name in ("out", "err"))
    notes = submitted.of(store.root, [key], ended=True)
    if err is None and notes:
        err = Path(notes[-1].log)
        out = err.with_suffix(".out")
    return Files(path, out, err)


def _path(text: Any) -> Path | None:
    return Path(text) if isinstance(text, str) and text else None


def text_of(event: dict[str, Any]) -> str:
    """One event as a line: `10:02:30 progress 120/900 loss=1.31`."""
    when = clock_time(event, "%H:%M:%S")
    words = [when, str(event.get("event"))]
    if "step" in event:
        words.append(f"{event['step']}/{event['total']}" if "total" in event else f"step {event['step']}")
    values = event.get("values")
    shown = {**(values if isinstance(values, dict) else {}), **{k: v for k, v in event.items() if k not in _QUIET}}
    return " ".join([*words, *(f"{name}={_short(value)}" for name, value in shown.items())])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show(plan: Plan, store: Store, key: str, console: Console, lines: int = LINES) -> None:
    """The end of each file of a stage's newest attempt."""
    for text in _heading(plan, store, key):
        say(console, text)
    found = files(store, key)
    if found is None:
        if not _awaited(store, key):
            say(console, f"start it: {plan.suite.command(plan.suite.verb, store.root)}")
        return
    events = read_events(found.events)[0]
    say(console, f"-- events: {found.events}")
    for event in [event for event in events if event.get("event") not in _CURVES][-lines:]:
        say(console, text_of(event))
    for name, path in (("stdout", found.out), ("stderr", found.err)):
        say(console, f"-- {name}: {_where(store, key, path)}")
        for line in _tail(path, lines) if path is not None else ():
            say(console, line)


def _heading(plan: Plan, store: Store, key: str) -> Iterator[str]:
    done, attempts, owner = store.done(key), store.attempts(key), store.running(key)
    number = done.attempt if done else int(attempts[-1].name) if attempts else 0
    if owner is not None:
        state = f"running on {owner.host}, process {owner.pid}"
    elif done is not None:
        state = f"done in {done.seconds:.0f} s on {done.environment.get('host') or '-'}"
    else:
        failure = store.failure(key)
        state = f"failed: {failure.error.splitlines()[0]}" if failure else "not running"
    yield f"{name_of(plan, key)}  " + (f"attempt {number}  {state}" if number else "has not been started yet")
    for note in [] if done or owner else submitted.of(store.root, [key]):
        yield f"submitted as job {note.id} by {note.host}"


def _where(store: Store, key: str, path: Path | None) -> str:
    if path is None:
        return "not kept (its process wrote to no file)"
    if path.exists():
        return str(path)
    gone = "its run went well, and logs of such runs are removed" if store.done(key) else "on another host, or removed"
    return f"{path}: not here ({gone})"


def _tail(path: Path, lines: int) -> list[str]:
    """The last lines. A progress bar's carriage returns do not multiply them."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 400 * lines))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def follow(plan: Plan, store: Store, key: str, console: Console, lines: int = LINES) -> None:
    """Show, then print what is appended until the attempt ends; a stage that has not begun is waited for."""
    begun = files(store, key)
    paths = (begun.events, begun.out, begun.err) if begun is not None else ()
    at = {path: path.stat().st_size for path in paths if path is not None and path.exists()}
    show(plan, store, key, console, lines)  # what comes meanwhile is shown twice rather than not at all
    if store.done(key) is not None:
        return
    if begun is None or store.running(key) is None:
        say(console, "-- waiting for it to begin (Ctrl-C to leave)")
        while (now := files(store, key)) is None or (begun is not None and now.events == begun.events):
            if begun is not None and store.running(key) is None and not _awaited(store, key):
                say(console, "-- nothing runs it")
                return
            time.sleep(FOLLOW_SECONDS)
        begun, at = now, {}
    while True:
        alive = store.running(key) is not None and store.done(key) is None
        _more(begun, at, console)
        if not alive:
            break
        time.sleep(FOLLOW_SECONDS)
    for text in _heading(plan, store, key):
        say(console, f"-- {text}")


def _awaited(store: Store, key: str) -> bool:
    """Whether a job that makes it is queued."""
    return bool(submitted.of(store.root, [key]))


def _more(found: Files, at: dict[Path, int], console: Console) -> None:
    """Print what was appended to the files since `at`, which goes on."""
    events, at[found.events] = read_events(found.events, at.get(found.events, 0))
    for event in events:
        if event.get("event") not in _CURVES:
            say(console, text_of(event))
    for path in (found.out, found.err):
        if path is None or not path.exists():
            continue
        with path.open("rb") as file:
            file.seek(at.get(path, 0))
            raw = file.read()
        whole = raw[: raw.rfind(b"\n") + 1]
        at[path] = at.get(path, 0) + len(whole)
        for line in whole.decode(errors="replace").splitlines():
            say(console, line)
