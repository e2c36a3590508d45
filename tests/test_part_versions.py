"""No part's code may change while its VERSION stays: old results in a store would pass for new ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.key import signature_of
from tests.part_versions import FOLLOWED, PARTS, TREE, complaints, current, recorded


def test_versions_stand_for_the_code() -> None:
    lines = list(complaints(recorded(), current()))
    assert not lines, "\n" + "\n".join(lines)


def test_versions_are_those_that_keys_use() -> None:
    for ref, entry in current().items():
        assert signature_of(ref).version == entry.version


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the parts that a test may change."""
    shutil.copytree(TREE / PARTS.replace(".", "/"), tmp_path / PARTS.replace(".", "/"))
    for module in FOLLOWED[1:]:
        copy = tmp_path / (module.replace(".", "/") + ".py")
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(TREE / copy.relative_to(tmp_path), copy)
    return tmp_path


def changed(tree: Path, file: str, old: str, new: str) -> dict[str, str]:
    """Which parts are complained of after a change of one file, and the complaint."""
    before = current(tree)
    path = tree / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} no longer has {old!r} once: this test must follow"
    path.write_text(text.replace(old, new))
    return {line.split(": ")[0]: line for line in complaints(before, current(tree))}


def test_a_changed_default_is_noticed(tree: Path) -> None:
    found = changed(tree, "methods/parts/group_softmax.py", "beta: float = 8.0", "beta: float = 4.0")
    assert list(found) == ["group_softmax:GroupSoftmax"]
    assert "raise VERSION" in found["group_softmax:GroupSoftmax"]


def test_a_changed_helper_is_noticed(tree: Path) -> None:
    found = changed(tree, "methods/parts/group_softmax.py", ".sum().clamp(min=1)", ".sum().clamp(min=2)")
    assert list(found) == ["group_softmax:GroupSoftmax"]


def test_a_changed_base_class_in_another_file_is_noticed(tree: Path) -> None:
    found = changed(tree, "methods/parts/softmax.py", "max(len(ce_N), 1)", "max(len(ce_N), 2)")
    assert {"softmax:Softmax", "losses:ReweightedSoftmax"} <= set(found)
    assert "samplers:RepeatFactor" not in found


def test_changed_repeat_factors_are_noticed(tree: Path) -> None:
    assert "samplers:RepeatFactor" in changed(tree, "bench/frequency.py", "ratio**power", "ratio**power + 0.0")


def test_words_are_no_change(tree: Path) -> None:
    assert not changed(tree, "methods/parts/samplers.py", '"""Images an epoch."""', '"""Length."""  # a comment')
    assert not changed(tree, "methods/parts/samplers.py", 'f"power is {power}"', 'f"power: {power}"')


def test_a_raised_version_asks_for_the_record(tree: Path) -> None:
    found = changed(tree, "methods/parts/softmax.py", "VERSION = 1", "VERSION = 2")
    assert list(found) == ["softmax:Softmax"]
    assert "VERSION 1 became 2" in found["softmax:Softmax"]
    assert "--update" in found["softmax:Softmax"]
