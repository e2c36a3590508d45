"""`bench methods check` as a user types it: the table, the exit code, no traceback unless asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from broken_method import write

from bench.contract_check.outcome import check_detections
from bench.contract_check.place import Sandbox
from bench.contract_check.subject import Broken
from bench.data.split import Split, open_split
from tests.conftest import Bench


def test_a_method_that_keeps_its_promises(bench: Bench, tmp_path: Path) -> None:
    ran = bench("methods", "check", write(tmp_path))
    assert ran.code == 0, ran.out + ran.err
    assert "own on torchvision" in ran.out
    assert "11 passed, 0 failed, 1 skipped" in ran.out
    assert ran.err == ""
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["own.py", "own_parts.py"]  # no store


def test_a_method_that_does_not(call: Bench, tmp_path: Path) -> None:
    ran = call("methods", "check", write(tmp_path, loss="raise ValueError('no')"), "--engine", "torchvision")
    assert ran.code == 1
    assert "ValueError: no (own_parts.py:" in ran.out
    assert "--traceback" in ran.out
    assert "Traceback" not in ran.out + ran.err


def test_a_torn_file(call: Bench, tmp_path: Path) -> None:
    """The file that cannot be read is a failed check; its traceback is there for who wants it."""
    (tmp_path / "torn.py").write_text("def x(:")
    ran = call("methods", "check", "torn.py")
    assert ran.code == 1
    assert "torn.py: cannot be imported: SyntaxError" in " ".join(ran.out.split())
    assert "Traceback" not in ran.out + ran.err
    assert "Traceback" in call("methods", "check", "torn.py", "--traceback").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bgs"], "no method 'bgs'. Did you mean 'bags'?"),
        (["none.py"], "none.py: no such file"),
        (["empty.py"], "empty.py: no method in it"),
        (["bags", "--engine", "torchvison"], "no engine 'torchvison'. Did you mean 'torchvision'?"),
    ],
)
def test_the_user_s_mistakes(call: Bench, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n")
    said = call("methods", "check", *words)
    assert said.code == 2
    assert message in said.err


def test_a_method_is_shown_by_its_name_as_before(call: Bench) -> None:
    assert call("methods", "bags").out == call("methods", "show", "bags").out
    assert "settings:" in call("methods", "bags").out
    assert call("methods").out == call("methods", "show").out


# -- detections, which no method can spoil alone: the check of the engine


@pytest.fixture
def val(place: Sandbox) -> Split:
    place.bring(place.baseline)
    return open_split(place.store.output(place.baseline.inputs["val"].key), None)


def good() -> dict[str, np.ndarray]:
    """Three detections in two images of 64 x 64."""
    return {
        "image": np.array([0, 0, 1], np.int32),
        "boxes": np.array([[0, 0, 10, 64], [5, 5, 6, 6], [1, 1, 2, 2]], np.float32),
        "scores": np.array([0.9, 0.1, 0.5], np.float32),
        "labels": np.array([0, 7, 3], np.int32),
    }


def test_good_detections_pass(val: Split) -> None:
    check_detections(good(), val, 2)


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("boxes", (0, 3), 65, "leaves its image"),
        ("boxes", (0, 0), -1, "leaves its image"),
        ("boxes", (1, 2), 5, "has no area"),
        ("boxes", (2, 1), np.nan, "not finite"),
        ("scores", 1, 1.1, "score between"),
        ("scores", 1, -0.1, "score between"),
        ("scores", 1, 0.95, "not sorted"),
        ("image", 0, 1, "not sorted"),
        ("image", 2, 1_000, "an image that there is not"),
        ("labels", 1, 8, "labels between"),
        ("labels", 1, -1, "labels between"),
    ],
)
def test_malformed_detections_are_caught(val: Split, name: str, at: object, value: float, message: str) -> None:
    found = good()
    found[name][at] = value  # type: ignore[index]
    with pytest.raises(Broken, match=message):
        check_detections(found, val, 2)


def test_too_many_detections_are_caught(val: Split) -> None:
    with pytest.raises(Broken, match="2 detections and not at most 1"):
        check_detections(good(), val, 1)
