"""Which keys a raised VERSION moves: those of the stages that its code makes and of all that is made from them, and no
others. A VERSION that is missing in a key lets a stale result pass for a new one.

The tables are written by hand. Each VERSION is raised in a copy of the sources that planning reads; nothing is patched
in what makes the keys.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench import key as identity
from bench.engines.facts import ENGINES
from bench.plan.planning import Plan, make
from bench.stage import KINDS, Stage, walk
from bench.suite.tuning import Tuning
from tests.golden.keys import photographs
from tests.planned import plan_of

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "suites" / "table1.yaml"
# Stages of all kinds: five predictions of patches over one trunk make the planner keep its features.
EVERY_KIND = """\
preset: cpu
rows:
  baseline: {method: baseline}
  BAGS:     {method: bags, beta: 8}
  NCM:      {method: ncm, feature: fc}
  tau 1:    {method: tau_norm, tau: 1.0}
  tau 2:    {method: tau_norm, tau: 0.75}
  tau 3:    {method: tau_norm, tau: 0.5}
  tau 4:    {method: tau_norm, tau: 0.25}
"""

ALL = {"data", "train", "fit", "patch", "features", "predict", "evaluate"}
# file -> (the kinds that have its VERSION in their own specs, the kinds whose keys move)
MODULES = {
    "bench/data/glyphs.py": ({"data"}, ALL),
    "bench/data/augment.py": ({"train", "fit", "features", "predict"}, ALL - {"data"}),
    "bench/detection/postprocess.py": ({"predict"}, {"predict", "evaluate"}),
    "bench/evaluation/ap.py": ({"evaluate"}, {"evaluate"}),
}
READER_OF_FOLDERS = "bench/data/folder.py"  # of photographs, which no row above is about
DIVISION = "bench/data/division.py"  # of the training images of a search
ENGINE = ({"train"}, ALL - {"data"})
# kind -> the kinds whose keys move with its version in bench/stage.py
KIND_VERSIONS = {
    "data": ALL,
    "train": ALL - {"data"},
    "fit": {"fit", "patch", "predict", "evaluate"},  # a patch may use what a fit measured
    "patch": {"patch", "predict", "evaluate"},
    "features": {"features"},
    "predict": {"predict", "evaluate"},
    "evaluate": {"evaluate"},
}
# Part -> the rows whose keys move, of table 1 and two more; "all but" where the shared baseline uses it.
ALSO = (
    "rows.CB-focal={method: reweight, loss: focal}", "rows.step-wise={method: stepwise}", "rows.DRCL={method: drcl}",
    "rows.AlignDet={method: aligndet}", "rows.ECM={method: ecm}",
    "figures=[{kind: linear_probe, rows: [DRCL]}, {kind: attention, rows: [DRCL]}]",
)  # fmt: skip
PARTS = {
    "softmax.py Softmax": {"all but", "ECM"},
    "samplers.py Shuffle": {"all but", "RFS"},
    "drcl.py Contrast": {"DRCL"},
    "drcl.py Appearance": {"DRCL"},
    "drcl.py Rebalanced": {"DRCL"},
    "views.py View": {"DRCL", "AlignDet"},
    "probe.py": {"DRCL"},  # a figure of that row asks for it
    "looks.py": {"DRCL"},  # likewise
    "aligndet.py BoxContrast": {"AlignDet"},
    "samplers.py RepeatFactor": {"RFS", "RFS-finetune"},
    "annotations.py": {"finetune-tail"},
    "losses.py ReweightedSoftmax": {"re-weight", "re-weight-cls"},
    "ecm.py EffectiveMargin": {"ECM"},
    "focal.py SigmoidFocal": {"focal", "focal-cls"},
    "focal.py ReweightedFocal": {"CB-focal"},
    "ncm.py ClassMeans": {"NCM-fc", "NCM-conv"},
    "ncm.py NearestMean": {"NCM-fc", "NCM-conv"},
    "patches.py": {"tau-norm"},
    "select.py TauNormSelect": {"tau-norm-select"},
    "group_softmax.py GroupSoftmax": {"BAGS"},
    "samplers.py RepeatByLevel": {"step-wise"},
    "exemplars.py": {"step-wise"},
    "distill.py Features": {"step-wise"},
    "distill.py Scores": {"step-wise"},
}
DETR = ROOT / "suites" / "detr.yaml"
OF_DETR = {
    "set_focal.py SetFocal": {"all but"},
    "set_focal.py ReweightedSetFocal": {"re-weight", "re-weight-cls"},
}
VERSION = re.compile(r"^( *VERSION = )(\d+)\b", re.MULTILINE)


@dataclass(frozen=True)
class Keys:
    """Of the stages of a plan, in its order. `own`: the key that a stage would have without inputs."""

    kinds: tuple[str, ...]
    whole: tuple[str, ...]
    own: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]  # of the stages below what each row is evaluated and looked at by


def keys_of(plan: Plan) -> Keys:
    stages = plan.stages.values()
    rows = {row.label: tuple(s.key for s in walk(*row.roots)) for row in plan.rows if row.evaluate is not None}
    own = tuple(Stage(stage.kind, stage.spec).key for stage in stages)
    return Keys(tuple(stage.kind for stage in stages), tuple(plan.stages), own, rows)


def moved(before: Keys, after: Keys) -> tuple[set[str], set[str]]:
    """The kinds whose own entries are others now, and those whose keys are. Of the entries a kind moves as a whole or
    not at all; of the keys, some may move (a patch that uses a fit, and one that does not)."""
    assert after.kinds == before.kinds
    own, whole = _differ(before.kinds, before.own, after.own), _differ(before.kinds, before.whole, after.whole)
    assert not [kind for kind, differ in own.items() if len(differ) > 1]
    return {kind for kind, differ in own.items() if True in differ}, {kind for kind in whole if True in whole[kind]}


def _differ(kinds: Sequence[str], was: Sequence[str], now: Sequence[str]) -> dict[str, set[bool]]:
    found: dict[str, set[bool]] = {kind: set() for kind in kinds}
    for kind, one, other in zip(kinds, was, now, strict=True):
        found[kind].add(one != other)
    return found


def rows_moved(before: Keys, after: Keys) -> set[str]:
    """The labels of the rows of which any key is another."""
    return {label for label, keys in before.rows.items() if after.rows[label] != keys}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the sources from which planning reads every VERSION."""
    copy = tmp_path / "tree"
    for folder in ("bench", "methods"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "TREE", copy)
    identity.module_version.cache_clear()
    yield copy
    identity.module_version.cache_clear()


def raise_version(path: Path, name: str = "") -> None:
    """Raise the VERSION of a file, or of a class in it."""
    text = path.read_text()
    start = text.index(f"class {name}") if name else 0
    found = VERSION.search(text, start)
    assert found is not None, f"{path} {name}"
    path.write_text(f"{text[: found.start()]}{found[1]}{int(found[2]) + 1}{text[found.end() :]}")
    identity.module_version.cache_clear()
    identity._read.cache_clear()  # it is known by the time of the file, which may be the same


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "every_kind.yaml").write_text(EVERY_KIND)
    return tmp_path / "every_kind.yaml"


# -- the tables are complete


def test_every_version_that_there_is_stands_in_a_table() -> None:
    modules = {
        str(file.relative_to(ROOT)) for file in (ROOT / "bench").rglob("*.py") if VERSION.search(file.read_text())
    }
    assert modules == {*MODULES, READER_OF_FOLDERS, DIVISION}
    parts = ROOT / "methods" / "parts"
    there = {file.name: len(VERSION.findall(file.read_text())) for file in parts.glob("*.py")}
    assert sum(there.values()) == len(PARTS | OF_DETR)
    assert {name for name, number in there.items() if number} == {name.split()[0] for name in PARTS | OF_DETR}
    assert set(KIND_VERSIONS) == set(KINDS)


def test_the_suite_has_stages_of_every_kind(suite: Path) -> None:
    assert {stage.kind for stage in plan_of(suite).stages.values()} == set(KINDS) == ALL


# -- what each of them moves


@pytest.mark.parametrize("file", list(MODULES))
def test_a_version_of_a_module(file: str, tree: Path, suite: Path) -> None:
    before = keys_of(plan_of(suite))
    raise_version(tree / file)
    assert moved(before, keys_of(plan_of(suite))) == MODULES[file]


@pytest.mark.parametrize("name", ["lvis", "coco"])
def test_the_version_of_the_reader_of_folders(name: str, tree: Path, suite: Path) -> None:
    drawn = keys_of(plan_of(suite))
    with photographs() as sets:
        sets = [*sets, f"data.name={name}"]
        read = keys_of(plan_of(suite, *sets))
        raise_version(tree / READER_OF_FOLDERS)
        assert moved(read, keys_of(plan_of(suite, *sets))) == ({"data"}, ALL)
        assert keys_of(plan_of(suite)) == drawn
        read = keys_of(plan_of(suite, *sets))
        raise_version(tree / "bench/data/glyphs.py")
        assert keys_of(plan_of(suite, *sets)) == read


def test_the_version_of_the_division(tree: Path, suite: Path) -> None:
    """It moves what is made from a part of the training images, and neither those images nor any other suite."""
    plain = plan_of(suite)
    search = replace(plain.suite, division=Tuning())
    before, divided = keys_of(plain), keys_of(make(search))
    raise_version(tree / DIVISION)
    assert keys_of(plan_of(suite)) == before
    after = keys_of(make(replace(plain.suite, division=Tuning())))
    kept = [kind for kind, was, now in zip(divided.kinds, divided.whole, after.whole, strict=True) if was == now]
    assert kept == ["data"], "the whole training set"


def test_the_version_of_an_engine(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys_of(plan_of(suite))
    engine = ENGINES["torchvision"]
    monkeypatch.setitem(ENGINES, engine.name, replace(engine, version=engine.version + 1))
    assert moved(before, keys_of(plan_of(suite))) == ENGINE


@pytest.mark.parametrize("kind", list(KIND_VERSIONS))
def test_the_version_of_a_kind(kind: str, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys_of(plan_of(suite))
    monkeypatch.setitem(KINDS, kind, replace(KINDS[kind], version=KINDS[kind].version + 1))
    assert moved(before, keys_of(plan_of(suite))) == ({kind}, KIND_VERSIONS[kind])


@pytest.mark.parametrize("part", list(PARTS | OF_DETR))
def test_the_version_of_a_part(part: str, tree: Path) -> None:
    suite, also = (DETR, ()) if part in OF_DETR else (TABLE, ALSO)
    before = keys_of(plan_of(suite, *also))
    file, _, name = part.partition(" ")
    raise_version(tree / "methods" / "parts" / file, name)
    after = keys_of(plan_of(suite, *also))
    named = (PARTS | OF_DETR)[part]
    assert rows_moved(before, after) == (set(before.rows) - named if "all but" in named else named)
    data = {key for kind, key in zip(before.kinds, before.whole, strict=True) if kind == "data"}
    assert data <= set(after.whole)
