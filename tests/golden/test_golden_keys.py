"""No key of an existing suite moves unnoticed."""

from __future__ import annotations

from tests.golden import keys

REASON = """
another key here empties every store there is. If results did change, raise the VERSION that stands for the code, say
why in the commit, and run `python -m tests.golden.keys --update`; a new option enters the key only where it is used
(LATER, see bench/spec.py and bench/key.py)"""


def test_no_key_of_a_suite_moves() -> None:
    lines = list(keys.complaints(keys.recorded(), keys.current()))
    assert not lines, "\n".join(lines[:20]) + REASON


def test_every_suite_file_is_recorded() -> None:
    recorded = keys.recorded()
    assert [path.name for path in keys.SUITES] == [name for name in recorded if "," not in name]
    assert len(keys.SUITES) >= 12
    assert all(len(rows) > 2 for rows in recorded.values())


def test_a_moved_key_is_named() -> None:
    was = {"a.yaml": {"BAGS": {"model": "1" * 64, "evaluate": "2" * 64}, "BAGS2": {"model": "3" * 64}}}
    now = {"a.yaml": {"BAGS": {"model": "1" * 64, "evaluate": "4" * 64}}}
    moved = "a.yaml: BAGS: evaluate: 222222222222 became 444444444444"
    assert list(keys.complaints(was, now)) == [moved, "a.yaml: BAGS2: gone"]
