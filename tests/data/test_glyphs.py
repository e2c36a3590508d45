"""The embedded data set: exact counts, tight boxes, true negatives, the same bytes from any number of processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as rle

from bench.data.glyph_render import Renderer
from bench.data.glyph_vocabulary import DISTRACTORS, FACE_SETS, _template, search, sprite, vocabulary
from bench.data.glyphs import deal, instance_counts, make_split
from bench.data.split import ANNOTATIONS, PIXELS, Split, open_split
from bench.errors import UserError
from bench.frequency import ClassStatistics, instance_bin, lvis_frequency
from bench.seeds import generator
from bench.spec import GlyphsData

SMALL = GlyphsData(classes=12, size=64, objects=6, object_px=(8, 24), max_instances=60, val_instances=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in ("train", "val")}
    make_split(SMALL, 3, "train", made["train"], processes=1)
    make_split(SMALL, 3, "val", made["val"], processes=1)
    return made


@pytest.fixture(scope="module")
def train(folders: dict[str, Path]) -> Split:
    return open_split(folders["train"], None)


@pytest.fixture(scope="module")
def val(folders: dict[str, Path]) -> Split:
    return open_split(folders["val"], None)


def test_default_counts_fill_all_four_bins() -> None:
    counts = instance_counts(GlyphsData(), seed=0)
    assert np.bincount(instance_bin(counts, (10, 100, 1000))).tolist() == [19, 30, 19, 12]
    assert (counts.min(), counts.max(), counts.sum()) == (1, 1568, 23860)


@pytest.mark.parametrize("classes", [4, 7, 80, 300, 1203])
def test_bins_are_filled_for_any_number_of_classes(classes: int) -> None:
    counts = instance_counts(GlyphsData(classes=classes), seed=1)
    assert (np.bincount(instance_bin(counts, (10, 100, 1000)), minlength=4) > 0).all()


def test_a_lower_maximum_keeps_a_long_tail() -> None:
    counts = instance_counts(SMALL, seed=0)
    assert counts.max() <= 60
    assert counts.max() > 5 * np.median(counts)


def test_which_class_is_rare_follows_the_seed() -> None:
    one, other = (instance_counts(GlyphsData(), seed) for seed in (0, 1))
    assert sorted(one) == sorted(other)
    assert (one != other).any()


def test_dealing_keeps_every_instance_and_fills_images() -> None:
    counts = instance_counts(GlyphsData(), seed=0)
    images = deal(counts, 13, generator(0, "glyphs/deal/train"))
    assert ClassStatistics.from_labels(images, 80).instance_counts.tolist() == counts.tolist()
    assert np.mean([len(p) for p in images]) == pytest.approx(13.4, abs=0.5)
    assert min(len(p) for p in images) > 0


def test_written_counts_are_exact(train: Split, val: Split) -> None:
    stats = train.statistics()
    assert stats.instance_counts.tolist() == instance_counts(SMALL, 3).tolist()
    assert val.statistics().instance_counts.tolist() == [4] * 12
    for split in (train, val):  # both carry the training counts
        assert [c.instance_count for c in split.categories] == stats.instance_counts.tolist()
        assert [c.image_count for c in split.categories] == stats.image_counts.tolist()
        assert [c.frequency for c in split.categories] == [lvis_frequency(n) for n in stats.image_counts]


@pytest.mark.parametrize("name", ["train", "val"])
def test_two_processes_write_the_same_bytes(
    name: Literal["train", "val"], folders: dict[str, Path], tmp_path: Path
) -> None:
    calls: list[tuple[int, int]] = []
    make_split(SMALL, 3, name, tmp_path, processes=2, progress=lambda done, total: calls.append((done, total)))
    for file in (ANNOTATIONS, PIXELS):
        assert (tmp_path / file).read_bytes() == (folders[name] / file).read_bytes()
    total = len(open_split(tmp_path, None))
    assert calls == [(i + 1, total) for i in range(total)]


def test_another_seed_is_another_data_set(folders: dict[str, Path], tmp_path: Path) -> None:
    make_split(SMALL, 4, "val", tmp_path)
    assert (tmp_path / PIXELS).read_bytes() != (folders["val"] / PIXELS).read_bytes()


def test_train_and_val_show_different_images(train: Split, val: Split) -> None:
    seen = {train.pixels(i).tobytes() for i in range(len(train))}
    assert not any(val.pixels(i).tobytes() in seen for i in range(len(val)))


def test_boxes_are_tight_around_their_masks(folders: dict[str, Path]) -> None:
    document = json.loads((folders["train"] / ANNOTATIONS).read_text())
    for a in document["annotations"]:
        mask = rle.decode(a["segmentation"]).astype(bool)
        ys, xs = np.nonzero(mask)
        x, y, w, h = a["bbox"]
        assert (x, y, x + w, y + h) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert a["area"] == mask.sum() >= 4
        assert mask.shape == (64, 64)


def test_masks_of_one_image_do_not_overlap(folders: dict[str, Path]) -> None:
    document = json.loads((folders["val"] / ANNOTATIONS).read_text())
    for image in document["images"]:
        masks = [rle.decode(a["segmentation"]) for a in document["annotations"] if a["image_id"] == image["id"]]
        assert np.sum(masks, axis=0).max() == 1


def test_masks_can_be_left_out(tmp_path: Path, folders: dict[str, Path]) -> None:
    make_split(SMALL.model_copy(update={"masks": False}), 3, "val", tmp_path)
    assert "segmentation" not in (tmp_path / ANNOTATIONS).read_text()
    assert (tmp_path / PIXELS).read_bytes() == (folders["val"] / PIXELS).read_bytes()


def test_negatives_are_all_absent_classes(train: Split) -> None:
    for i in range(len(train)):
        assert sorted({*train.negative(i).tolist(), *train.labels[i].tolist()}) == list(range(12))
        assert not set(train.negative(i).tolist()) & set(train.labels[i].tolist())


def test_the_evaluator_reads_it_and_true_boxes_score_one(val: Split) -> None:
    truth = COCO(val.lvis_json())
    found = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in val.lvis_json()["annotations"]
    ]
    evaluator = COCOeval_faster(truth, truth.loadRes(found), "bbox", lvis_style=True, print_function=lambda *_: None)
    evaluator.params.maxDets = [300]
    evaluator.run()
    assert evaluator.stats_as_dict["AP_all"] == pytest.approx(1.0)


def test_stored_vocabulary_is_what_the_search_finds() -> None:
    words = vocabulary(80, 0.93)
    assert [*words.classes, *words.distractors] == search(FACE_SETS["six"], 120, 0.93)
    assert words.faces == FACE_SETS["six"]


def test_stored_vocabulary_reaches_lvis_v1() -> None:
    for similarity in (0.88, 0.93):
        words = vocabulary(1203, similarity)
        assert words.faces == FACE_SETS["sans"]
        assert len({*words.classes, *words.distractors}) == 1203 + DISTRACTORS


def test_a_similarity_that_is_not_stored_is_searched() -> None:
    words = vocabulary(20, 0.6)
    symbols = [sprite(point, words.faces[0]) for point in words.classes]
    templates = np.stack([_template(symbol) for symbol in symbols if symbol is not None])
    correlations = templates @ templates.T - np.eye(20)
    assert correlations.max() <= 0.6
    assert words.classes != vocabulary(20, 0.93).classes


def test_a_vocabulary_that_cannot_be_found_is_refused() -> None:
    with pytest.raises(UserError, match=r"classes correlate at most 0\.2, 300 are needed") as error:
        vocabulary(300, 0.2)
    assert "data.similarity" in error.value.hint


def test_many_classes_at_full_size() -> None:
    words = vocabulary(1203, 0.88)
    chosen = words.classes[:40]
    renderer = Renderer(type(words)(words.faces, chosen, words.distractors[:3]), 640, (14, 90))
    drawn = renderer.draw(list(range(20)), generator(0, "test"))
    assert drawn.pixels.shape == (640, 640, 3)
    assert Counter(drawn.classes) == Counter(range(20))


def test_symbols_larger_than_the_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"symbols of 10 to 60 px do not fit"):
        make_split(SMALL.model_copy(update={"object_px": (10, 60)}), 0, "val", tmp_path)


def test_an_image_too_full_to_show_every_symbol_is_refused() -> None:
    renderer = Renderer(vocabulary(12, 0.93), 64, (48, 48))
    with pytest.raises(UserError, match="60 symbols do not fit into an image of 64 px"):
        renderer.draw([k % 12 for k in range(60)], generator(0, "test"))


def test_a_drawing_process_that_dies_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    script = tmp_path / "script.py"  # without the __main__ guard its spawned processes cannot start
    settings = SMALL.model_dump_json()
    script.write_text(
        "import pathlib; from bench.data.glyphs import *\n"
        f"spec = GlyphsData.model_validate_json({settings!r})\n"
        f"make_split(spec, 0, 'train', pathlib.Path({str(tmp_path)!r}), processes=2)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": root}
    )
    assert done.returncode == 1
    assert "UserError" in done.stderr
    assert "a drawing process died" in done.stderr


def test_data_modules_need_no_torch() -> None:
    code = (
        "import sys, bench.frequency, bench.data.glyphs, bench.data.split, bench.data.lvis, bench.data.check\n"
        "import bench.data.augment; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
