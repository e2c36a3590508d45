"""No code may change while the version that stands for it stays: old results in a store would pass for new ones; and no
code that can change a result stands under no version."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.data.formats import FORMATS
from bench.engines.facts import ENGINES
from bench.key import signature_of
from bench.stage import KINDS
from tests.code_versions import NO_RESULT, PARTS, STANDS_FOR, TREE, complaints, current, recorded
from tests.test_rooms import imported, is_module, product


def test_versions_stand_for_the_code() -> None:
    lines = list(complaints(recorded(), current()))
    assert not lines, "\n" + "\n".join(lines)


def test_versions_are_those_that_keys_use() -> None:
    parts = {name.removeprefix("part "): entry for name, entry in current().items() if name.startswith("part ")}
    assert len(parts) > 10
    for ref, entry in parts.items():
        assert signature_of(ref).version == entry.version


def test_every_version_there_is_stands_in_the_table() -> None:
    """Stage kinds, engines, and each module whose VERSION is written into a key (`module_version`)."""
    assert {name for name in STANDS_FOR if name.startswith("kind ")} == {f"kind {kind}" for kind in KINDS}
    assert {name for name in STANDS_FOR if name.startswith("engine ")} == {f"engine {name}" for name in ENGINES}
    first = {files[0] for name, files in STANDS_FOR.items() if " " not in name}
    asked = {
        text.value.replace(".", "/") + ".py"
        for module in product()
        for call in ast.walk(module.tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "module_version"
        for text in ast.walk(call)
        if isinstance(text, ast.Constant) and isinstance(text.value, str) and is_module(text.value)
    }
    named = {one.version for one in FORMATS.values()} | {one.postprocess for one in ENGINES.values()}
    asked |= {name.replace(".", "/") + ".py" for name in named}
    assert first == asked
    assert len(asked) == 6


# -- every file that can change a result


def reachable() -> set[str]:
    """Files of the product that a job can come to: what its stage kinds, engines, readers and parts import."""
    modules = {module.name: module for module in product()}
    pending = ["bench.run.job", *(kind.module or f"bench.run.{kind.name}" for kind in KINDS.values())]
    pending += [name for engine in ENGINES.values() for name in (engine.module, engine.postprocess)]
    pending += [one.module for one in FORMATS.values()]
    pending += [name for name in modules if name.startswith(PARTS.replace("/", "."))]
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name in found or name not in modules:
            continue
        found.add(name)
        pending += [one for node in ast.walk(modules[name].tree) for one in imported(node)]
    return {modules[name].path.relative_to(TREE).as_posix() for name in found if not is_package(modules[name].path)}


def is_package(path: Path) -> bool:
    """Whether it only says what a folder is for."""
    return path.name == "__init__.py" and not any(not isinstance(n, ast.Expr) for n in ast.parse(path.read_text()).body)


def guarded() -> Iterator[str]:
    for files in STANDS_FOR.values():
        yield from (entry.partition(":")[0] for entry in files)


def test_every_file_that_can_change_a_result_stands_under_a_version() -> None:
    under = {*guarded()} | {path.relative_to(TREE).as_posix() for path in (TREE / PARTS).glob("*.py")}
    lacking = sorted(reachable() - under - set(NO_RESULT))
    assert len(reachable()) > 50
    assert not lacking, (
        f"a job imports {', '.join(lacking)}, which no version stands for: write it into STANDS_FOR of "
        "tests/code_versions.py, or, if it can change no result, with the reason into NO_RESULT"
    )


def test_the_table_has_nothing_that_is_gone() -> None:
    assert not [file for file in guarded() if not (TREE / file).is_file()]
    gone = sorted(set(NO_RESULT) - reachable())
    assert not gone, "no job imports these any more"
    assert not set(NO_RESULT) & set(guarded())


# -- what is a change, and what is none

MODEL = {"kind train", "kind fit", "kind patch", "kind features", "kind predict"}
BAGS = "part group_softmax:GroupSoftmax"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the code that a test may change."""
    for name in ("bench", "methods"):
        shutil.copytree(TREE / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def changed(tree: Path, file: str, old: str, new: str) -> dict[str, str]:
    """Which versions are complained of after a change of one file, and the complaint."""
    before = current(tree)
    path = tree / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} no longer has {old!r} once: this test must follow"
    path.write_text(text.replace(old, new))
    return {line.split(": ")[0]: line for line in complaints(before, current(tree))}


@pytest.mark.parametrize(
    ("file", "old", "new", "versions"),
    [
        ("bench/run/fit.py", "MATCH_IOU = 0.5", "MATCH_IOU = 0.6", {"kind fit"}),
        ("bench/run/loop.py", "(step + 1) / schedule.warmup", "step / schedule.warmup", {"kind train"}),
        ("bench/run/model.py", '"classifier_init"', '"init"', MODEL),
        ("bench/run/evaluate.py", "split.boxes[i][~split.ignore[i]]", "split.boxes[i]", {"kind evaluate"}),
        ("bench/detection/sampling.py", "IGNORE_IOU = 0.5", "IGNORE_IOU = 0.4",
         {"engine torchvision", "engine detectron2"}),
        ("bench/engines/torchvision/trunks.py", "FROZEN_EPS = 1e-5", "FROZEN_EPS = 0.0",
         {"engine torchvision", "engine detr", "engine detectron2"}),
        ("bench/data/loader.py", '"order"', '"epoch"', {"augment"}),
        ("bench/data/folder.py", "lvis_frequency(", "len(", {"folder"}),
        ("bench/data/glyph_codepoints.json", '[{"faces":"six"', '[{"faces":"two"', {"glyphs"}),
        ("bench/evaluation/accuracy.py", "best] >= iou", "best] > iou", {"evaluator"}),
        ("bench/seeds.py", "digest_size=8", "digest_size=9",
         {"glyphs", "division", "augment", "engine torchvision", "engine detr", "engine detectron2",
          "kind train"}),
        ("methods/parts/group_softmax.py", "beta: float = 8.0", "beta: float = 4.0", {BAGS}),
        ("methods/parts/group_softmax.py", ".sum().clamp(min=1)", ".sum().clamp(min=2)", {BAGS}),
    ],
)  # fmt: skip
def test_a_changed_line_is_noticed(tree: Path, file: str, old: str, new: str, versions: set[str]) -> None:
    found = changed(tree, file, old, new)
    assert set(found) == versions
    assert all("raise it (" in line and "--update" in line for line in found.values())


def test_a_complaint_says_what_changed_and_where_the_version_is(tree: Path) -> None:
    found = changed(tree, "bench/detection/boxes.py", "a_N4[:, None, 2:]", "a_N4[:, None, :2]")
    line = found["engine torchvision"]
    assert "its code changed (iou), its version 1 did not. If results can change, raise it (its version in" in line
    assert "raise it (KINDS in bench/stage.py)" in found["kind fit"]


def test_a_changed_base_class_in_another_file_is_noticed(tree: Path) -> None:
    found = changed(tree, "methods/parts/softmax.py", "max(len(ce_N), 1)", "max(len(ce_N), 2)")
    assert {"part softmax:Softmax", "part losses:ReweightedSoftmax"} <= set(found)
    assert "part samplers:RepeatFactor" not in found


def test_changed_repeat_factors_are_noticed(tree: Path) -> None:
    assert "part samplers:RepeatFactor" in changed(tree, "bench/frequency.py", "ratio**power", "ratio**power + 0.0")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("methods/parts/samplers.py", '"""Images per epoch."""', '"""Length."""  # a comment'),
        ("methods/parts/samplers.py", 'f"power is {power}"', 'f"power: {power}"'),
        ("bench/run/loop.py", 'f"the loss diverged at step', 'f"the loss exploded at step'),
        (
            "bench/run/learner.py",
            'f"weights are not finite',
            'f"some weights are not finite',
        ),  # an error kept for later
        ("bench/run/train.py", "def _scope(work: Work) -> str:", "def _scope(work):"),
        ("bench/run/features.py", "    tensors: dict[str, Tensor] = {}", "    tensors: Any = {}"),
        ("bench/run/model.py", "built: Detector = engine", "built = engine"),
    ],
)
def test_words_and_annotations_are_no_change(tree: Path, file: str, old: str, new: str) -> None:
    assert not changed(tree, file, old, new)


def test_a_raised_version_asks_for_the_record(tree: Path) -> None:
    found = changed(tree, "methods/parts/softmax.py", "VERSION = 1", "VERSION = 2")
    assert list(found) == ["part softmax:Softmax"]
    assert "VERSION 1 became 2" in found["part softmax:Softmax"]
    assert "--update" in found["part softmax:Softmax"]
    found = changed(tree, "bench/data/augment.py", "VERSION = 1", "VERSION = 2")
    assert list(found) == ["augment"]


def test_a_moved_or_renamed_module_is_no_change(tree: Path) -> None:
    """bench/detection/boxes.py under another name in another room, imported by the new name, one name at a time or as
    a module; and a function that moves to another file of its version."""
    before = current(tree)
    (tree / "bench" / "geometry").mkdir()
    (tree / "bench" / "detection" / "boxes.py").rename(tree / "bench" / "geometry" / "rectangles.py")
    for path in (tree / "bench").rglob("*.py"):
        path.write_text(path.read_text().replace("bench.detection.boxes", "bench.geometry.rectangles"))
    sampling = tree / "bench" / "detection" / "sampling.py"
    text = sampling.read_text()
    assert "from bench.geometry.rectangles import iou\n" in text
    text = text.replace("from bench.geometry.rectangles import iou\n", "from bench.geometry import rectangles as r\n")
    sampling.write_text(text.replace(" iou(", " r.iou("))
    evaluation = tree / "bench" / "evaluation"
    whole = (evaluation / "accuracy.py").read_text()
    start = whole.index("def assign(")
    (evaluation / "accuracy.py").write_text("from bench.evaluation.ap import assign\n" + whole[:start])
    (evaluation / "ap.py").write_text((evaluation / "ap.py").read_text() + "\n\n" + whole[start:])
    table = {
        name: tuple(file.replace("bench/detection/boxes.py", "bench/geometry/rectangles.py") for file in files)
        for name, files in STANDS_FOR.items()
    }
    assert not list(complaints(before, current(tree, table)))
