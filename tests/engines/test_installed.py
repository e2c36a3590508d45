"""Engines that packages bring: found by their entry points, or refused with a reason that only who asks for them meets.

`own_engine.install` writes what `pip install` leaves in a folder of the path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.engines import facts as table
from bench.engines.facts import ENGINES, no_engine
from bench.engines.installed import Installed, installed
from bench.errors import UserError
from tests.conftest import ROOT, Bench, Write
from tests.engines.own_engine import FOLDER, GRID, install

OWN = """
from dataclasses import replace
from pydantic import Field
from bench.engines.contract import EngineFacts
from bench.engines.sections import DetectorSection
from bench.spec import Section, Size
from grid_engine import GRID

class Cells(Section):
    \"\"\"The grid.\"\"\"
    side: Size = 8
    \"\"\"Queries along a side.\"\"\"

class OwnGrid(DetectorSection):
    \"\"\"A grid with settings of its own.\"\"\"
    engine: str = "own"
    trunk: str = "cells"
    cells: Cells = Cells()

ENGINE = replace(
    GRID, name="own", section=OwnGrid, check=lambda detector: None, parameters=lambda detector, classes: 9,
    head_widths=lambda detector: (16, (1, 1, 1)), proposals=lambda detector, classes: (detector.cells.side**2, 1),
)
class TwoStage(DetectorSection):
    pass
SAME_SECTION = replace(ENGINE, section=TwoStage)
NO_SECTION = replace(ENGINE, section=int)
NOT_KNOWN = type("Odd", (DetectorSection,), {"__annotations__": {"x": "Nowhere"}, "__module__": __name__})
ODD = replace(ENGINE, section=NOT_KNOWN)
A_LIST = replace(ENGINE, provides=["classifier"])
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the path."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "own_of_test.py").write_text(OWN)
    (folder / "ends_of_test.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def found(path: Path) -> Callable[..., Installed]:
    """`found(name="module:object")`: the entry points of one package."""

    def find(**entries: str) -> Installed:
        install(path, "some-engine", entries)
        return installed({"torchvision": ENGINES["torchvision"]})

    return find


def test_an_entry_point_is_an_engine(found: Callable[..., Installed]) -> None:
    seen = found(grid="grid_engine:GRID")
    assert seen.engines == {"grid": GRID}
    assert seen.origins["grid"].package == "some-engine 0.1"
    assert seen.origins["grid"].module == "grid_engine"
    assert not seen.refused


@pytest.mark.parametrize(
    ("name", "entry", "why"),
    [
        ("torn", "no_such_module:X", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("torn", "grid_engine:NOTHING", "AttributeError: "),
        ("torn", "ends_of_test:X", "SystemExit: 3"),
        ("torn", "1nonsense", ""),
        ("torn", "grid_engine:SIDE", "its entry point names a int, not an EngineFacts"),
        ("other", "grid_engine:GRID", "its entry point is called 'other' and the engine 'grid'"),
        ("torchvision", "bench.engines.torchvision.facts:TORCHVISION", "another engine, built in, has this name"),
        ("own", "own_of_test:NO_SECTION", "not a subclass of DetectorSection"),
        ("own", "own_of_test:SAME_SECTION", "has the name of another, TwoStage, which engine 'torchvision' has"),
        ("own", "own_of_test:ODD", "Nowhere"),
        ("own", "own_of_test:A_LIST", "its provides is a list, not a Set"),
    ],
)
def test_what_cannot_be_used_is_kept_with_its_reason(
    name: str, entry: str, why: str, found: Callable[..., Installed]
) -> None:
    seen = found(**{name: entry, "grid": "grid_engine:GRID"})
    assert list(seen.engines) == ["grid"]
    assert list(seen.refused) == [name]
    assert why in seen.refused[name].why
    assert seen.refused[name].package == "some-engine 0.1"


def test_two_packages_with_one_name(path: Path, found: Callable[..., Installed]) -> None:
    install(path, "another", {"grid": "own_of_test:ENGINE"})
    seen = found(grid="grid_engine:GRID")
    assert not seen.engines
    assert seen.refused["grid"].why == "several packages have an engine of this name"
    assert "another 0.1" in seen.refused["grid"].package
    assert "some-engine 0.1" in seen.refused["grid"].package


def test_only_who_asks_for_it_meets_it(
    found: Callable[..., Installed], call: Bench, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = found(torn="no_such_module:X").refused
    monkeypatch.setitem(table.REFUSED, "torn", refused["torn"])  # type: ignore[arg-type]
    why = "engine 'torn' of some-engine 0.1 cannot be used: ModuleNotFoundError: No module named 'no_such_module'"
    with pytest.raises(UserError, match=why) as asked:
        table.facts("torn")
    assert asked.value.hint == "install that package again, or remove it: pip uninstall some-engine"
    suite = "preset: cpu\ndetector: {engine: %s}\nrows: {a: {method: baseline}}\n"
    assert call("plan", write(suite % "torchvision")).code == 0
    said = call("plan", write(suite % "torn"))
    assert said.code == 2
    assert f"tiny.yaml:2 detector.engine: {why}" in said.err
    assert "pip uninstall some-engine" in said.err
    listed = call("engines")
    assert listed.code == 0
    assert f"not usable: {why}" in listed.out
    assert call("engines", "check", "torn").code == 2
    assert no_engine("zzz", "here").what == "no engine 'zzz'"


# -- as a user has it


def bench(path: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, with these packages installed."""
    own = os.pathsep.join(map(str, (ROOT, FOLDER, path)))
    environment = {**os.environ, "PYTHONPATH": own, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def test_the_engine_of_the_examples_is_listed_and_keeps_its_promises(path: Path, tmp_path: Path) -> None:
    install(path, "grid-engine", {"grid": "grid_engine:GRID"})
    install(path, "torn", {"torn": "no_such_module:X"})
    listed = bench(path, tmp_path, "engines")
    assert listed.returncode == 0, listed.stderr
    names = [line.split()[0] for line in listed.stdout.splitlines() if "  built in" in line or "  package" in line]
    assert names == [*ENGINES, "grid"]
    assert "package grid-engine 0.1" in listed.stdout
    assert "not usable: engine 'torn' of torn 0.1" in listed.stdout
    checked = bench(path, tmp_path, "engines", "check", "grid")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "16 passed, 0 failed, 0 skipped" in checked.stdout
    planned = bench(path, tmp_path, "plan", str(FOLDER / "suite.yaml"), "--json")
    assert json.loads(planned.stdout)["skipped"] == {"NCM": "engine 'grid' lacks box_features_pre_relu, roi_map"}


def test_its_own_settings_are_legal_and_explained(path: Path, tmp_path: Path) -> None:
    install(path, "own", {"own": "own_of_test:ENGINE"})
    (tmp_path / "own.yaml").write_text(
        "detector: {engine: own, trunk: cells, cells: {side: 5}}\nrows: {a: {method: baseline}}\n"
    )
    shown = bench(path, tmp_path, "plan", "own.yaml", "--show-config")
    assert shown.returncode == 0, shown.stderr
    assert "cells:\n    side: 5\n" in shown.stdout
    wrong = bench(path, tmp_path, "plan", "own.yaml", "--set", "detector.cells.sides=3")
    assert wrong.returncode == 2
    assert "no setting 'sides'. Did you mean 'side'?" in wrong.stderr
    assert "Queries along a side." in bench(path, tmp_path, "settings", "detector.cells").stdout
