"""The defects fit the code as it stands, and the command tells a test that notices one from a test that does not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bench.errors import UserError
from tests.golden import defects
from tests.golden.defects import DEFECTS, ROOT, Defect

by_name = pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)


@by_name
def test_a_defect_fits_its_file(defect: Defect) -> None:
    text = (ROOT / defect.file).read_text(encoding="utf-8")
    planted = defect.planted(text)  # refuses unless the old text is there exactly once
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(text))  # another program, and still one


@by_name
def test_the_tests_that_it_names_exist(defect: Defect) -> None:
    assert defect.tests
    for test in defect.tests:
        file, _, name = test.partition("::")
        functions = [
            node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)
        ]
        assert name in functions if name else any(one.startswith("test_") for one in functions), test


def test_names_are_told_apart() -> None:
    names = [defect.name for defect in DEFECTS]
    assert len(names) == len(set(names)) >= 16
    assert [defect.name for defect in defects.chosen(names[2:4])] == names[2:4]
    assert len(defects.chosen([])) == len(DEFECTS)
    with pytest.raises(UserError, match=r"no defect 'clip-ignord'\. Did you mean 'clip-ignored'"):
        defects.chosen(["clip-ignord"])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A program of one line and its tests."""
    (tmp_path / "added.py").write_text("def added(a, b):\n    return a + b\n")
    (tmp_path / "test_added.py").write_text(
        "from added import added\n\n\ndef test_twice():\n    assert added(2, 2) == 4\n\n\n"
        "def test_other():\n    assert added(2, 3) == 5\n"
    )
    return tmp_path


def planted(new: str) -> Defect:
    return Defect(new.replace(" ", ""), "added.py", "a + b", new, ("test_added.py",))


CAUGHT = {
    "a-b": "caught by test_added.py::test_twice",
    "a*b": "caught by test_added.py::test_other",
    "b+a": "NOT CAUGHT",  # no test notices
    "a+": "NOT CAUGHT",  # no test could run: that shows nothing
}


def run(tree: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> int:
    """The command over that tree, with these defects."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # half of the time of so small a run
    monkeypatch.setattr(defects, "copy_of_the_tree", lambda to: tree)
    monkeypatch.setattr(defects, "DEFECTS", tuple(planted(new) for new in ("a - b", "a * b", "b + a", "a +")))
    return defects.main(list(names))


def test_a_defect_is_caught_by_a_test_that_fails(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tree / "added.py").read_text()
    assert run(tree, monkeypatch) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert dict(line.split(maxsplit=1) for line in lines) == CAUGHT
    assert last == "2 of 4 defects caught"
    assert (tree / "added.py").read_text() == before


def test_the_exit_status_says_whether_all_are_caught(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tree, monkeypatch, "a-b") == 0
    (tree / "test_added.py").write_text("def test_broken():\n    assert False\n")  # fails with and without a defect
    assert run(tree, monkeypatch, "a-b") == 1
    assert run(tree, monkeypatch, "no such") == 2


def test_a_defect_that_no_longer_fits_is_refused(tree: Path) -> None:
    for old in ("c + d", "a"):
        with pytest.raises(UserError, match="the text of defect 'sum' occurs"):
            defects.caught_by(tree, Defect("sum", "added.py", old, "b", ()))


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout: what belongs to the tree is asked of git")
def test_the_copy_is_of_all_that_the_tests_need(tmp_path: Path) -> None:
    tree = defects.copy_of_the_tree(tmp_path)
    for name in ("bench/lineage.py", "methods/parts/softmax.py", "suites/smoke.yaml", "tests/golden/keys.json"):
        assert (tree / name).read_bytes() == (ROOT / name).read_bytes()
    assert not (tree / ".git").exists()
