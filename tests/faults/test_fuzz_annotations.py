"""No annotation file brings a command down, and check and reader say the same of each (fuzz_annotations.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fuzz_annotations import cases, hold

FILES = 70  # a seed


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_spoiled_annotation_file_is_read_or_refused_in_one_message(seed: int, tmp_path: Path) -> None:
    said = []
    for n, (split, content) in enumerate(cases(seed, FILES)):
        try:
            said.append(hold(split, content, tmp_path / str(n)))
        except Exception as error:  # which case it was
            error.add_note(f"seed {seed}, case {n}, {split}: {content[:2000]!r}")
            raise
    assert {"read", "refused"} == set(said)


def test_cases_are_those_of_their_seed() -> None:
    assert list(cases(5, 20)) == list(cases(5, 20))
    assert list(cases(5, 20)) != list(cases(6, 20))
    assert len({content for _, content in cases(5, 200)}) > 180
