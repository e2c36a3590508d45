"""A byte of a finished result that has changed is never shown as a number: every reader checks the recorded sha256."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from tiny_suite import SETS, SMOKE, Undisturbed, key_of

from bench.evaluation.stored import DETECTIONS
from bench.store.store import Store
from reports.load import CLASSIFIER
from reports.records import RESULT
from tests.conftest import Bench

WORDS = [word for text in SETS for word in ("--set", text)]


@pytest.fixture
def copy(smoke: Undisturbed, tmp_path: Path) -> Path:
    """A finished store of its own."""
    return Path(shutil.copytree(smoke.root, tmp_path / "store", symlinks=True))


def change(path: Path) -> None:
    """Another decimal (or bit), in as many bytes: sizes, which `done` compares, stay."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".json":
        found = re.search(rb"\.(\d)", content)
        assert found is not None
        content[found.start(1)] = ord("0") + (content[found.start(1)] - ord("0") + 5) % 10
    else:
        content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("kind", "name"), [("evaluate", RESULT), ("predict", CLASSIFIER)])
def test_a_changed_result_is_refused_by_report_and_made_again_by_run(
    smoke: Undisturbed, copy: Path, call: Bench, kind: str, name: str
) -> None:
    key = key_of(smoke.plan, "BAGS", kind)
    path = Store(copy).output(key) / name
    before = path.read_bytes()
    change(path)
    for more in ((), ("--json",)):
        shown = call("report", SMOKE, *WORDS, *more)
        assert shown.code == 2
        assert "the file is not what was written: its sha256 differs" in shown.err
        assert str(path.relative_to(copy.parent)) in shown.err
        assert shown.out == ""
    again = call("run", SMOKE, *WORDS, "--cluster", "debug")
    assert again.code == 0, again.err
    assert (
        f"BAGS: {kind} {key[:6]}: the file is not what was written: its sha256 differs; it is made again" in again.out
    )
    made = Store(copy).output(key)
    assert made.resolve() != path.parent, "by another attempt"
    assert (made / name).read_bytes() == before
    for row in json.loads(call("report", SMOKE, *WORDS, "--json").out):
        key = key_of(smoke.plan, row["row"], "evaluate")
        told = json.loads((Store(smoke.root).output(key) / RESULT).read_bytes())["metrics"]
        assert row["metrics"]["AP"]["mean"] == pytest.approx(told["AP"], abs=1e-9)


def test_changed_detections_are_not_compared(smoke: Undisturbed, copy: Path, call: Bench) -> None:
    pytest.importorskip("lvis")
    change(Store(copy).output(key_of(smoke.plan, "BAGS", "predict")) / DETECTIONS)
    refused = call("report", SMOKE, *WORDS, "--official")
    assert refused.code == 2
    assert "a file is not what was written: its sha256 differs" in refused.err
