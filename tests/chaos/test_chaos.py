"""The harness itself: one short run with real faults, and every check can fail.

The many runs are a command of their own: python -m tests.chaos --runs 50 --seed 7
"""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.plan.planning import Plan
from bench.store.events import Events
from bench.store.store import Store
from tests.chaos import checks, results
from tests.chaos.episode import Report, episode
from tests.chaos.kinds import KINDS, Drawn, Fault, draw
from tests.chaos.scene import undisturbed, wanted
from tests.tiny_suite import digests, flip_bit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the undisturbed run."""
    return undisturbed(tmp_path_factory.mktemp("chaos"))


@pytest.fixture
def plan() -> Plan:
    return wanted()


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(sound, tmp_path / "store"))


def train_key(plan: Plan) -> str:
    return next(key for key, stage in plan.stages.items() if stage.kind == "train")


def test_one_run(sound: Path, plan: Plan, tmp_path: Path) -> None:
    drawn = Drawn(0, "local", (Fault("checkpoint truncated", 0.1, 0.0), Fault("lease of a dead process", 0.3, 0.0)))
    report = episode(drawn, tmp_path / "run", digests(plan, sound), seed=1)
    assert report.failures == []
    assert [one.kind for one in report.injected] == ["checkpoint truncated", "lease of a dead process"]
    assert report.again >= 1
    assert report.codes[-1] == 0


def test_a_run_that_goes_wrong_is_reported(sound: Path, plan: Plan, root: Path, tmp_path: Path) -> None:
    """Other bits were expected of what is in the store already: the run fails, and says of which stage."""
    expected = digests(plan, sound) | {train_key(plan): "0" * 64}
    assert episode(Drawn(0, "local", ()), tmp_path, expected, seed=1).failures == [
        f"train {train_key(plan)[:6]} has other bits"
    ]


def _flip(plan: Plan, root: Path) -> None:
    flip_bit(Store(root).output(train_key(plan)) / "model.safetensors")


def _undo(plan: Plan, root: Path) -> None:
    (root / train_key(plan) / "done").unlink()


def _finish_twice(plan: Plan, root: Path) -> None:
    folder = root / train_key(plan) / "attempts"
    (folder / "2").mkdir()
    Events(folder / "2" / "events.jsonl").write("end", status="FINISHED")


def _say_running(plan: Plan, root: Path) -> None:
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute(
            "update runs set status = 'RUNNING' where run_uuid = (select run_uuid from tags where value = ?)",
            (train_key(plan),),
        )


def _forget_a_run(plan: Plan, root: Path) -> None:
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute("delete from tags where key = 'bench.key' and value = ?", (train_key(plan),))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_flip, "train {key} is not done"),
        (_undo, "train {key} is not done"),
        (_finish_twice, "train {key} was finished by attempts 1, 2"),
        (_finish_twice, "train {key} is done by attempt 1, but attempt 2 was begun"),
        (_say_running, "MLflow says RUNNING of train {key}, the store done"),
        (_undo, "MLflow says FINISHED of train {key}, the store not done"),
        (_forget_a_run, "MLflow has no run of train {key}"),
    ],
)
def test_checks_can_fail(sound: Path, plan: Plan, root: Path, spoil: Callable[[Plan, Path], None], said: str) -> None:
    def wrong() -> list[str]:
        found = [*checks.whole(plan, root, digests(plan, sound)), *checks.once(plan, root)]
        return found + checks.mirrored(plan, root, ended=True)

    assert wrong() == []
    spoil(plan, root)
    assert said.format(key=train_key(plan)[:6]) in wrong()


def test_what_was_done_and_was_begun_again_is_seen(plan: Plan, root: Path) -> None:
    held = checks.held(plan, root)
    assert checks.untouched(plan, root, held) == []
    first = root / train_key(plan) / "attempts" / "1"
    shutil.copytree(first, first.with_name("new"))
    shutil.rmtree(first)
    first.with_name("new").rename(first)  # the same number, another folder
    assert checks.untouched(plan, root, held) == [f"train {train_key(plan)[:6]} was done and was begun again"]


def test_a_status_that_does_not_agree_is_seen(plan: Plan) -> None:
    status = {"stages": [{"key": key, "state": "done"} for key in plan.stages]}
    assert checks.told(plan, status) == []
    status["stages"][0]["state"] = "running"
    assert checks.told(plan, status) == [f"status says running of {next(iter(plan.stages.values())).kind} "
                                         f"{status['stages'][0]['key'][:6]}"]  # fmt: skip


@pytest.mark.parametrize("seed", range(7, 10))
def test_what_is_drawn(seed: int) -> None:
    """The same again for the same seed; every kind has its turn; nothing where it cannot be; none with its opposite."""
    runs = [draw(seed, number) for number in range(50)]
    assert runs == [draw(seed, number) for number in range(50)]
    assert min(Counter(fault.kind for run in runs for fault in run.faults).values()) >= 3
    assert {run.place for run in runs} == {"local", "slurm"}
    assert {len(run.faults) for run in runs} == {1, 2, 3}
    for run in runs:
        assert all(run.place in KINDS[fault.kind].places for fault in run.faults)
        apart = [KINDS[fault.kind].apart for fault in run.faults if KINDS[fault.kind].apart]
        assert len(apart) == len(set(apart))


def test_results_are_written(tmp_path: Path) -> None:
    """What was drawn and did not strike is not counted as injected."""
    report = Report(
        3, "slurm", ["scancel", "disk full"], codes=[1, 0], attempts={"train": 4}, failures=["it went wrong"]
    )
    results.write(tmp_path / "chaos.md", [report.to_json()], 7, ["--seed", "7"], {})
    text = (tmp_path / "chaos.md").read_text()
    assert "# 1 runs with faults, 1 failed" in text
    assert "| scancel | 1 | 0 |" in text
    assert "Run 3 failed (it went wrong): `--only 3`" in text
