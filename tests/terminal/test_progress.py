"""What `run` says while it runs, where there is no terminal; and `why` down to the first setting that differs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli import progress as displays
from bench.cli.open import open_suite
from bench.cli.progress import Display
from bench.launch import loop
from bench.launch.loop import Progress
from bench.plan import planning
from bench.plan.jobs import JobPlan
from bench.plan.planning import Plan
from bench.store.store import Attempt, Store
from tests import done_store
from tests.conftest import TINY, Bench, Write
from tests.planned import model

HEADS = ("BAGS", "retrain")


@dataclass(frozen=True)
class Running:
    """A handle of a job, as far as the display reads it."""

    job: JobPlan


@pytest.fixture
def plan(write: Write) -> Plan:
    return planning.make(open_suite(write(TINY + "  retrain: {method: cls_retrain}\n")))


@pytest.fixture
def held(plan: Plan, tmp_path: Path) -> Iterator[list[Attempt]]:
    """Two heads that one pass trains."""
    store = Store(tmp_path / "store")
    found = [done_store.begin(store, model(plan, label)) for label in HEADS]
    yield found
    for attempt in found:
        done_store.end(attempt)


def shown(
    plan: Plan, store: Store, held: list[Attempt], steps: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> tuple[Progress, Console, Display]:
    """A display that has looked once after each pair of steps, PLAIN_SECONDS apart."""
    clock = [1000.0]
    monkeypatch.setattr(displays.time, "monotonic", lambda: clock[0])
    console = Console(file=io.StringIO(), width=200)
    unit = tuple(attempt.key for attempt in held)
    running = Running(JobPlan((unit,)))
    progress = Progress(plan, set(), [running], {}, set(), 1)  # type: ignore[list-item]
    display = Display(plan, store, console)
    for pair in steps:
        for attempt, step in zip(held, pair, strict=True):
            attempt.events.write("progress", step=step, total=100, values={"loss": 1.0})
        display.show(progress)
        clock[0] += displays.PLAIN_SECONDS
    return progress, console, display


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_pass_has_one_name_whichever_head_is_ahead(
    plan: Plan, tmp_path: Path, held: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [(1, 2), (4, 3), (5, 6), (8, 7)]
    _, console, _ = shown(plan, Store(tmp_path / "store"), held, steps, monkeypatch)
    said = [line for line in text_of(console).splitlines() if "in the same pass" in line]
    assert len(said) == len(steps)
    assert len({line.split("  [")[0] for line in said}) == 1
    assert "(+1 in the same pass)  [" in said[0]


def test_the_whole_is_said_once_a_minute(
    plan: Plan, tmp_path: Path, held: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [(i, i) for i in range(1, 10)]  # two minutes
    _, console, _ = shown(plan, Store(tmp_path / "store"), held, steps, monkeypatch)
    whole = [line for line in text_of(console).splitlines() if f"0/{len(plan.stages)} stages" in line]
    assert [line.split()[2] for line in whole] == ["1:00,", "2:00,"]


def test_an_interruption_is_said_at_once(
    plan: Plan, tmp_path: Path, held: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, console, display = shown(plan, Store(tmp_path / "store"), held, [(1, 1)], monkeypatch)
    progress.stopping = True
    display.show(progress)
    display.show(progress)
    assert text_of(console).count("stopping: what is at work saves first") == 1


def test_the_time_left_goes_on_between_the_ends_of_stages(
    plan: Plan, tmp_path: Path, held: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, _, display = shown(plan, Store(tmp_path / "store"), held, [], monkeypatch)
    monkeypatch.setattr(displays.forecast, "wall_seconds", lambda *_: 100.0)
    assert "about 1:40 left" in display._footer(progress).plain
    monkeypatch.setattr(displays.time, "monotonic", lambda: 1030.0)
    assert "about 1:10 left" in display._footer(progress).plain


def test_why_goes_down_to_the_setting_that_differs(call: Bench, write: Write, tmp_path: Path) -> None:
    """The rate of the base differs, two stages below the one that is asked about."""
    suite = write()
    done_store.finish(Store(tmp_path / "store"), planning.make(open_suite(suite)).stages.values())
    said = call("why", suite, "BAGS", "--set", "schedule.lr=0.02").out
    assert "it differs in\n  inputs.init: " in said
    assert said.rstrip().endswith("init.schedule.lr: 0.02 here, 0.01 there")


def test_what_a_stage_says_does_not_command_the_terminal(
    plan: Plan, tmp_path: Path, held: list[Attempt], call: Bench
) -> None:
    store = Store(tmp_path / "store")
    store.fail(held[0], "\x1b]0;all is well\x07\x1b[2J" + "x" * 5000)
    said = call("status", plan.suite.path, "--store", store.root).out
    assert "\\x1b]0;all is well\\x07\\x1b[2J" in call("why", plan.suite.path, "BAGS", "--store", store.root).out
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) < 700


@pytest.mark.parametrize(
    "event",
    [
        '{"event": "progress", "step": "x", "total": 3, "time": 1}',
        '{"event": "progress", "step": 1e999, "total": 3, "time": 1}',
        '{"event": "progress", "step": 3, "total": 0, "time": null}',
        '{"event": "progress", "step": -5, "total": 2, "time": 1e300, "values": [1]}',
        '{"event": "progress", "step": 50, "total": 2, "time": 5, "values": {"loss": "low"}, "host_mb": {}}',
        '{"event": {"a": 1}, "time": {"b": 2}, "step": [1], "total": "2"}',
        '{"event": "end", "time": 1e18, "error": 5}',
        '{"event": "start", "out": 3, "host": ["h"], "time": "now"}',
        "[1, 2]", "3", "null", '"progress"',
    ],
)  # fmt: skip
def test_an_event_that_nobody_wrote_is_shown_as_far_as_it_goes(
    plan: Plan, tmp_path: Path, held: list[Attempt], call: Bench, event: str
) -> None:
    """Another version, or another user of the store."""
    store = Store(tmp_path / "store")
    for attempt in held:
        (attempt.folder / "events.jsonl").write_text(f"{event}\n{event}\n")
    for words in (("status",), ("status", "--json"), ("logs", "BAGS"), ("why", "BAGS")):
        said = call(words[0], plan.suite.path, *words[1:], "--store", store.root)
        assert said.code == 0, said.err
    console = Console(file=io.StringIO(), width=200)
    display = Display(plan, store, console)
    display.show(Progress(plan, set(), [Running(JobPlan((tuple(a.key for a in held),)))], {}, set(), 1))  # type: ignore[list-item]
    assert "BAGS" in text_of(console)


def test_after_an_interruption_without_a_result_there_is_no_table(
    call: Bench, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one of nothing but a paper's figures."""
    monkeypatch.setattr(loop, "run", lambda *_, **__: loop.Ended({}, True))
    said = call("run", write(TINY + "compare_with: bags_table1\n"))
    assert said.code == 130
    assert "no row has a result yet" in said.out
    assert "paper" not in said.out
    assert "saved. Continue: python -m bench run" in said.out


def test_a_second_interruption_says_what_is_lost(call: Bench, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(*_: object, **__: object) -> loop.Ended:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "run", twice)
    said = call("run", write())
    assert said.code == 130
    assert "loses the steps since its last checkpoint" in said.out
    assert said.out.rstrip().endswith(f"continue:     python -m bench run {Path('tiny.yaml').resolve()}")
