"""Whatever a store holds: status, plan, gc and report answer with exit code 0 and what is true, or 2 and one message.

And whatever a weights file holds: it is loaded, or refused with one message; code in it never runs.

More stores, a hundred a seed: BENCH_FUZZ_SEEDS=1,2,3 python -m pytest -m slow tests/faults/test_fuzz_store.py
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import SETS, SMOKE, Undisturbed

from bench.errors import UserError
from tests.conftest import Bench
from tests.faults.fuzz_store import cases, weight_files

pytestmark = pytest.mark.slow

SECONDS = 60.0  # of a command; each takes a second or two, on a busy machine several
N_STORES, N_WEIGHTS = 100, 60
SEEDS = [int(seed) for seed in os.environ.get("BENCH_FUZZ_SEEDS", "0").split(",")]


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """An exception in this process after so long, also where it waits for a pipe."""

    def late(*_: object) -> None:
        raise AssertionError(f"not answered in {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def numbers(text: str) -> dict[str, dict[str, float]]:
    """row -> metrics, of `report --json`; rows without results have none."""
    return {row["row"]: {name: cell["mean"] for name, cell in row["metrics"].items()} for row in json.loads(text)}


def linked(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, copy_function=os.link)
    return target


@pytest.mark.parametrize("seed", SEEDS)
def test_every_store_is_answered(
    smoke: Undisturbed, tmp_path: Path, call: Bench, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, seed: int,
) -> None:  # fmt: skip
    """All wrong answers at once: a change of the code may bring several."""
    words = [str(SMOKE), *(word for text in SETS for word in ("--set", text))]
    truth = numbers(call("report", *words, "--store", smoke.root, "--json").out)
    assert len(truth) == len(smoke.plan.rows)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))  # nobody types yes
    outside = sorted(path.name for path in tmp_path.iterdir())
    wrong = []
    for number, change in enumerate(cases(seed, N_STORES)):
        root = linked(smoke.root, tmp_path / "store")
        case = change(root)
        for command in ("status", "plan", "gc", "report"):
            more = [] if command == "gc" else words
            more = [*more, "--json"] if command in ("plan", "report", "status") else more
            begun = time.monotonic()
            try:
                with bounded(SECONDS):
                    said = call(command, *more, "--store", root)
            except Exception as error:
                capsys.readouterr()
                wrong.append(f"{seed}/{number} {command}: {case}: {type(error).__name__}: {str(error)[:200]}")
                continue
            messages = said.err.count("error:")
            if not ((said.code, messages) == (0, 0) or (said.code, messages) == (2, 1)):
                wrong.append(f"{seed}/{number} {command}: {case}: code {said.code}, {said.err[-300:]}")
            elif time.monotonic() - begun > SECONDS:
                wrong.append(f"{seed}/{number} {command}: {case}: {time.monotonic() - begun:.0f} s")
            elif command == "report" and said.code == 0 and "result.json" not in case.path:
                found = numbers(said.out)
                wrong += [
                    f"{seed}/{number} report: {case}: {row}: {values} for {truth.get(row)}"
                    for row, values in found.items()
                    if values and values != truth.get(row)
                ]
        shutil.rmtree(root)
    assert not wrong, "\n".join(wrong)
    assert sorted(path.name for path in tmp_path.iterdir()) == outside, "something was written beside the store"


@pytest.fixture(scope="module")
def scene() -> Any:
    sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
    import engine_scene

    return engine_scene


def test_every_weights_file_is_loaded_or_refused(scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    good = scene.model_of(scene.pyramid_spec(), seed=1).to_foreign()
    spec = scene.pyramid_spec()
    wrong, loaded, refused = [], 0, 0
    for number, (what, write) in enumerate(weight_files(0, N_WEIGHTS, good)):
        path = tmp_path / "weights.pth"
        write(path)
        try:
            with bounded(SECONDS):
                model = scene.model_of(spec.model_copy(update={"weights": str(path)}))
        except UserError as error:
            refused += 1
            if len(str(error)) > 1000:
                wrong.append(f"{number} {what}: a message of {len(str(error))} characters")
            continue
        except Exception as error:
            wrong.append(f"{number} {what}: {type(error).__name__}: {str(error)[:200]}")
            continue
        loaded += 1
        state = model.state_dict()
        if not all(bool(torch.isfinite(value).all()) for value in state.values() if value.is_floating_point()):
            wrong.append(f"{number} {what}: weights that are not finite")
        if {value.dtype for value in state.values()} - {torch.float32, torch.int64}:
            wrong.append(f"{number} {what}: { ({value.dtype for value in state.values()}) }")
        trunk = [name for name in state if name.startswith("backbone.")]
        if sum(name in model.fresh for name in trunk) > len(trunk) // 2:
            wrong.append(f"{number} {what}: most of the trunk is as initialised")
    assert not wrong, "\n".join(wrong)
    assert not (tmp_path / "unpickled").exists(), "code of a weights file ran"
    assert loaded > 5
    assert refused > 20
