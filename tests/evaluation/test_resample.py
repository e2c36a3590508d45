"""The bootstrap over images and the jackknife: by hand on two images; without a draw it is the evaluation, without an
image that of the others."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from federated import boxes_of, federated

from bench.evaluation.ap import evaluate_boxes, lean_ground_truth
from bench.evaluation.matches import Accumulator, match_boxes
from bench.evaluation.resample import (
    ap_of,
    block_weights,
    bootstrap,
    class_groups,
    image_weights,
    images_that_show,
    jackknife,
)

DIGEST = "0123456789abcdef" * 4


def test_draws_are_those_of_the_split() -> None:
    whole = np.concatenate(list(image_weights(7, 100, DIGEST, 100)))
    assert (whole.sum(1) == 7).all()
    np.testing.assert_array_equal(whole, np.concatenate(list(image_weights(7, 100, DIGEST, 33))))
    assert (whole != np.concatenate(list(image_weights(7, 100, DIGEST[::-1], 100)))).any()
    assert whole.mean(0) == pytest.approx(np.ones(7), abs=0.4)  # five standard errors: each is a binomial of mean 1


def test_each_image_is_left_out_in_one_block() -> None:
    """Of 7 images 3 blocks are of 3, 2 and 2; of 2 images no more than 2 blocks. Rows that are paired need the same
    blocks, so one split's are written down."""
    whole = np.concatenate(list(block_weights(7, 3, DIGEST, 100)))
    assert (1 - whole).sum(0).tolist() == [1] * 7
    assert sorted((1 - whole).sum(1)) == [2, 2, 3]
    np.testing.assert_array_equal(whole, np.concatenate(list(block_weights(7, 3, DIGEST, 2))))
    assert (1 - whole).argmax(0).tolist() == [2, 0, 1, 2, 0, 1, 0]
    assert (whole != np.concatenate(list(block_weights(7, 3, DIGEST[::-1], 100)))).any()
    assert sorted(np.concatenate(list(block_weights(2, 500, DIGEST, 100))).tolist()) == [[0, 1], [1, 0]]


def test_two_images_by_hand() -> None:
    """Image 1 has its box of class 1 found; image 2 has none found and shows class 2, found, as well. A quarter of the
    draws has image 1 alone: AP 100 %, and no box of class 2. A half has both: recall of class 1 ends at 1/2, so 51 of
    its 101 points. A quarter has image 2 alone: class 1 has 0."""
    box = [0.0, 0.0, 10.0, 10.0]
    shown = [(1, 1), (2, 1), (2, 2)]
    gt = {
        "images": [{"id": i, "neg_category_ids": [], "not_exhaustive_category_ids": []} for i in (1, 2)],
        "categories": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": box} for n, (i, c) in enumerate(shown, start=1)
        ],
    }
    found = boxes_of([(1, 1, box, 0.9), (2, 2, box, 0.8)])
    matches = match_boxes(lean_ground_truth(gt), found)
    groups = class_groups(["f", "r"], [500, 5], (10, 100))
    drawn = bootstrap(matches, groups, DIGEST, 4000)
    assert set(drawn) == {"AP", "AP50", "AP75", "APr", "APc", "APf", "AP1", "AP2", "AP3"}
    values, counts = np.unique(drawn["APf"].round(9), return_counts=True)
    np.testing.assert_allclose(values, [0, 51 / 101, 1], atol=1e-9)
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert np.isnan(drawn["APr"]).mean() == pytest.approx(0.25, abs=0.03)
    assert np.isnan(drawn["APc"]).all()
    np.testing.assert_array_equal(drawn["AP3"], drawn["APf"])
    np.testing.assert_array_equal(drawn["AP1"], drawn["APr"])
    both = drawn["APf"].round(3) == round(51 / 101, 3)
    np.testing.assert_allclose(drawn["AP"][both], (51 / 101 + 1) / 2)
    left = jackknife(matches, groups, DIGEST)  # image 2 alone and image 1 alone, in either order
    assert sorted(left["APf"]) == [0, 1]
    assert sorted(left["AP"]) == [0.5, 1]
    assert np.isnan(left["APr"]).tolist() == (left["APf"] == 1).tolist()
    assert images_that_show(matches, groups) == {
        "AP": 2, "APr": 1, "APc": 0, "APf": 2, "AP1": 1, "AP2": 0, "AP3": 2,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_without_a_draw_it_is_the_evaluation(seed: int) -> None:
    gt, found = federated(np.random.default_rng(seed), images=40, classes=12, detections=20)
    lean = lean_ground_truth(gt)
    ordered = sorted(lean["categories"], key=lambda c: int(c["id"]))
    groups = class_groups([c["frequency"] for c in ordered], [c["instance_count"] for c in ordered], (10, 100, 1000))
    matches = match_boxes(lean, found)
    ones = ap_of(Accumulator(matches).per_class(np.ones((1, 40), np.int64)), groups)
    expected = evaluate_boxes(gt, found).metrics()
    for name, values in ones.items():
        want = expected[name]
        assert (np.isnan(values[0]) and want is None) or values[0] == pytest.approx(want, abs=1e-9), name


def test_the_jackknife_leaves_each_image_out_once() -> None:
    """Beside the evaluator on the other images; of 7 blocks of 20 images each image is in one, of 2 or 3."""
    gt, found = federated(np.random.default_rng(5), images=20, classes=6, detections=12)
    lean = lean_ground_truth(gt)
    ordered = sorted(lean["categories"], key=lambda c: int(c["id"]))
    groups = class_groups([c["frequency"] for c in ordered], [c["instance_count"] for c in ordered], (10, 100, 1000))
    matches = match_boxes(lean, found)
    expected = []
    for image in gt["images"]:
        others = {
            **gt, "images": [one for one in gt["images"] if one is not image],
            "annotations": [one for one in gt["annotations"] if one["image_id"] != image["id"]],
        }  # fmt: skip
        kept = found.image_id != image["id"]
        rest = replace(found, **{name: values[kept] for name, values in vars(found).items()})
        expected.append(evaluate_boxes(others, rest).metrics())
    left = jackknife(matches, groups, DIGEST)
    for name in ("AP", "AP50", "APr", "AP1"):
        wanted = [np.nan if one[name] is None else one[name] for one in expected]
        np.testing.assert_allclose(np.sort(left[name]), np.sort(wanted), atol=1e-9)
        assert len(set(wanted)) > 5
    seen: list[int] = []
    assert len(jackknife(matches, groups, DIGEST, 7, seen.append)["AP"]) == sum(seen) == 7
