"""The engine `detectron2` where detectron2 is not installed, or broken: what planning knows, what is refused and how.

Runs everywhere, whether it is installed or not.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from detectron2_oracle import verdict
from engine_scene import head_of, pyramid_spec, small_spec

from bench.engines.detectron2.facts import DETECTRON2, INSTALL, absent, check, levels_of, maps_read
from bench.engines.facts import ENGINES
from bench.engines.sections import TwoStage
from bench.errors import UserError
from tests.conftest import ROOT, Bench, Write

SUITE = """
preset: cpu
detector: {engine: detectron2}
rows:
  baseline: {method: baseline}
"""
IMPORTS = (
    "import sys, bench.engines.facts; print([n for n in ('torch', 'detectron2', 'torchvision') if n in sys.modules])"
)
BUILDS = """
import sys; sys.path[:0] = [{fake!r}, {tests!r}, {root!r}]
from engine_scene import PlainSoftmax, head_of, pyramid_spec
from bench.engines.detectron2.build import build
from bench.errors import UserError
detector = pyramid_spec().model_copy(update={{"engine": "detectron2"}})
head = head_of(detector)
try:
    build(detector, head, PlainSoftmax(head), seed=0)
except UserError as error:
    print(error)
"""


def found_as(spec: importlib.machinery.ModuleSpec | None, patch: pytest.MonkeyPatch) -> None:
    """detectron2 is found as this, whatever is installed."""
    whole = importlib.util.find_spec

    def find(name: str, *rest: Any) -> Any:
        return spec if name == "detectron2" else whole(name, *rest)

    patch.setattr(importlib.util, "find_spec", find)


@pytest.fixture
def _absent(monkeypatch: pytest.MonkeyPatch) -> None:
    found_as(None, monkeypatch)


def engine(detector: TwoStage) -> TwoStage:
    return detector.model_copy(update={"engine": "detectron2"})


# -- absent, or broken


def test_it_is_an_engine_of_the_house() -> None:
    assert ENGINES["detectron2"] is DETECTRON2


def test_planning_imports_neither_torch_nor_detectron2() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout.strip() == "[]"


@pytest.mark.usefixtures("_absent")
def test_without_the_library_it_is_absent_and_says_how_to_get_it() -> None:
    why = absent()
    assert why is not None
    assert why.startswith("detectron2 is not installed")
    assert INSTALL in why
    check(engine(small_spec()))  # what can be built is another question: its rows are skipped, not the suite


def test_a_clone_beside_the_code_is_no_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python takes any folder of that name for a package, one without an origin."""
    (tmp_path / "detectron2").mkdir()
    spec = importlib.machinery.PathFinder.find_spec("detectron2", [str(tmp_path)])
    assert spec is not None
    found_as(spec, monkeypatch)
    assert absent() is not None


@pytest.mark.usefixtures("_absent")
def test_a_suite_on_it_is_refused(write: Write, call: Bench) -> None:
    ran = call("plan", write(SUITE))
    assert ran.code == 2
    assert "detectron2 is not installed" in ran.err
    assert INSTALL in ran.err.replace("\n", "")
    assert "Traceback" not in ran.err


def test_installed_but_broken_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("raise ImportError('undefined symbol: odd')")
    code = BUILDS.format(fake=str(tmp_path), tests=str(ROOT / "tests" / "engines"), root=str(ROOT))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "detectron2 is installed but cannot be imported: ImportError: undefined symbol: odd" in ended.stdout
    assert INSTALL in ended.stdout


@pytest.mark.parametrize(
    ("gone", "broken", "required", "todo"),
    [
        ("not there", None, False, "skip"),
        ("not there", None, True, "fail"),
        (None, "broken", False, "fail"),
        (None, "broken", True, "fail"),
        (None, None, True, "run"),
        (None, None, False, "run"),
    ],
)
def test_its_tests_skip_where_it_is_absent_and_fail_where_it_is_broken(
    gone: str | None, broken: str | None, required: bool, todo: str
) -> None:
    assert verdict(gone, broken, required) == todo


# -- sections


def test_maps_have_two_names() -> None:
    assert levels_of(("0", "1", "2", "3", "pool")) == levels_of(("p2", "p3", "p4", "p5", "p6"))
    assert maps_read(engine(pyramid_spec())) == ("p2", "p3", "p4", "p5", "p6")
    assert maps_read(engine(small_spec())) == ("p2", "p3")
    assert head_of(engine(small_spec())).roi_shape == (16, 7, 7)


@pytest.mark.parametrize(
    ("detector", "words"),
    [
        (
            small_spec(rpn={"levels": ("3",)}),
            "no feature map of trunk 'small' '3'. Did you mean 'p3'? Legal: p2, p3, p4",
        ),
        (small_spec(roi={"levels": ("p9",)}), "no feature map of trunk 'small' 'p9'"),
        (small_spec(rpn={"levels": ("1", "0"), "anchor_sizes": ((9,), (9,))}), "levels must be neighbours"),
        (small_spec(rpn={"levels": ("0", "p4"), "anchor_sizes": ((9,), (9,))}), "levels must be neighbours"),
        (small_spec(roi={"levels": ()}), "levels must be neighbours"),
        (small_spec(rpn={"anchor_sizes": ((9,), (9,))}), "2 groups of anchor sizes for 1 levels"),
        (small_spec(rpn={"fg_iou": 0.2}), "bg_iou is above fg_iou"),
        (small_spec(widths=(8, 8)), "trunk 'small' has 4 widths"),
    ],
)
def test_sections_that_cannot_be_built_are_refused(detector: TwoStage, words: str) -> None:
    with pytest.raises(UserError) as refused:
        check(engine(detector))
    assert words in str(refused.value)


@pytest.mark.parametrize("trunk", DETECTRON2.trunks)
def test_every_trunk_has_a_size(trunk: str) -> None:
    detector = engine(TwoStage(trunk=trunk) if trunk != "small" else small_spec())
    check(detector)
    assert DETECTRON2.parameters(detector, 80) > 1000
