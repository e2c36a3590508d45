"""Odd suites, command lines and cluster files are answered: accepted, or refused with one message. One seed of
`python -m tests.faults.fuzz`; other seeds there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import fuzz
from tests.faults.fuzz_case import Answer, Case, answer, judged

pytestmark = pytest.mark.slow

SEED = 0


@pytest.fixture
def clean() -> Iterator[None]:
    """Commands run in this process: other tests must not see a method file that a case has imported."""
    import sys

    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("bench_method_"):
            del sys.modules[name]


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_every_case_is_answered_well(kind: str, tmp_path: Path, clean: None) -> None:
    found = list(fuzz.run(kind, SEED, fuzz.NUMBERS[kind], tmp_path))
    wrong = [f"{case.name!a} {case.words!a}: {one.wrong}" for case, one in found if one.wrong]
    assert not wrong, "\n".join(wrong[:5])
    codes = [one.code for _, one in found]
    assert min(codes.count(0), codes.count(2)) >= len(codes) / 20  # both ways are taken


def test_what_is_accepted_and_shown_is_the_same_suite(tmp_path: Path, clean: None) -> None:
    """Of an odd suite that is accepted, the shown configuration gives the same stages."""
    compared = 0
    for number, case in enumerate(fuzz.KINDS["suites"](SEED + 1, 100)):
        folder = tmp_path / f"{number}"
        first = answer(Case("first", ("plan", "s.yaml", "--json"), case.files), folder)
        if first.code == 0:
            shown = answer(Case("shown", ("plan", "s.yaml", "--show-config")), folder)
            again = Case("again", ("plan", "t.yaml", "--json"), {"t.yaml": shown.out.encode()})
            assert keys(answer(again, folder)) == keys(first), case.name
            compared += 1
        if compared == 6:
            return
    raise AssertionError(f"{compared} odd suites were accepted")


def keys(found: Answer) -> list[str]:
    assert found.code == 0, found.err
    return [stage["key"] for stage in json.loads(found.out)["stages"]]


def test_cases_are_the_same_for_a_seed() -> None:
    for kind, cases in fuzz.KINDS.items():
        assert list(cases(3, 20)) == list(cases(3, 20)), kind
        assert list(cases(3, 20)) != list(cases(4, 20)), kind


@pytest.mark.parametrize(
    ("code", "out", "err", "wrong"),
    [
        (0, "fine\n", "", ""),
        (2, "", "error: s.yaml:1: no\n  do this\n", ""),
        (2, "", "Usage: bench plan\n", ""),
        (1, "", "error: x", "exit code 1"),
        (2, "", "", "not one message"),
        (2, "", "error: a\nerror: b\n", "not one message"),
        (2, "", "error: \x1b[31m", "message has"),
        (0, "\u202e", "", "output has"),
        (0, "", "warning", "a message"),
        (2, "", "Traceback (most recent call last):", "traceback"),
        (2, "", f"error: {'x' * 2000}", "a message of"),
    ],
)
def test_the_judge(code: int, out: str, err: str, wrong: str) -> None:
    found = judged(code, out, err)
    assert (wrong in found) if wrong else not found


def test_time_and_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.faults import fuzz_case

    def forever() -> int:
        while True:
            pass

    monkeypatch.setattr(fuzz_case, "CPU_SECONDS", 0.2)
    monkeypatch.setattr(fuzz_case, "_main", forever)
    assert "CPU seconds" in answer(Case("forever", ()), tmp_path).wrong
    monkeypatch.setattr(fuzz_case, "CPU_SECONDS", 15.0)
    monkeypatch.setattr(fuzz_case, "_main", lambda: len(bytes(3_000_000_000)))
    assert "MemoryError" in answer(Case("large", ()), tmp_path).wrong
