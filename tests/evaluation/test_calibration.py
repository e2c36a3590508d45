"""Reliability and ECE: by hand, and against a loop over the definition."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from federated import boxes_of, federated

from bench.evaluation.ap import lean_ground_truth
from bench.evaluation.calibration import Calibration, ReliabilityBin, calibration, calibrations
from bench.evaluation.matches import match_boxes
from bench.evaluation.resample import class_groups


def test_two_bins_by_hand() -> None:
    """Lower half: mean 0.15, 0 of 2 right. Upper half: mean 0.7, both right. ECE (2 x 0.15 + 2 x 0.3) / 4."""
    found = calibration([0.8, 0.1, 0.6, 0.2], [True, False, True, False], bins=2)
    assert [(pytest.approx(b.score), b.right, b.count) for b in found.bins] == [(0.15, 0.0, 2), (0.7, 1.0, 2)]
    assert found.ece == pytest.approx(0.225)
    assert (found.score, found.right, found.count) == (pytest.approx(0.425), 0.5, 4)


def test_a_score_that_is_the_share_has_no_error() -> None:
    right = np.repeat([0, 0, 0, 1, 1, 1, 1, 0], 5)
    assert calibration(np.repeat([0.25, 0.75], 20), right, bins=2).ece == pytest.approx(0)


def test_equal_scores_share_a_bin_whatever_their_order() -> None:
    score, right = np.array([0.1, 0.5, 0.5, 0.5, 0.5, 0.9]), np.array([0, 1, 0, 0, 1, 1])
    found = calibration(score, right, bins=3)
    assert found.bins == (ReliabilityBin(pytest.approx(0.42), 0.4, 5), ReliabilityBin(0.9, 1.0, 1))
    again = calibration(score[::-1], right[[0, 3, 4, 1, 2, 5]][::-1], bins=3)
    assert again.ece == pytest.approx(found.ece)


def test_nothing_found() -> None:
    assert calibration([], []) == Calibration(None, None, None, 0, ())


def test_lengths_that_differ() -> None:
    with pytest.raises(ValueError, match="2 scores, 1 of them judged"):
        calibration([0.1, 0.2], [True])


@pytest.mark.parametrize("seed", range(5))
def test_distinct_scores_against_a_loop(seed: int) -> None:
    """Guo et al., equation 3, bin by bin: rank r of N (from 0) is in bin floor(r B / N)."""
    rng = np.random.default_rng(seed)
    N, B = 137, 15
    score = rng.permutation(np.linspace(0.001, 0.99, N))
    right = rng.random(N) < score**2
    ranked = sorted(range(N), key=lambda n: score[n])
    expected = 0.0
    for b in range(B):
        members = [n for r, n in enumerate(ranked) if r * B // N == b]
        accuracy = sum(bool(right[n]) for n in members) / len(members)
        confidence = sum(float(score[n]) for n in members) / len(members)
        expected += len(members) / N * abs(accuracy - confidence)
    found = calibration(score, right, B)
    assert found.ece == pytest.approx(expected, abs=1e-12)
    assert {b.count for b in found.bins} <= {9, 10}
    assert sum(b.count for b in found.bins) == N


def test_only_judged_detections_count() -> None:
    """Class 1 in image 7: right at 0.9, wrong at 0.8. Class 2 is not listed, class 3 not exhaustive: not judged."""
    gt = {
        "images": [{"id": 7, "neg_category_ids": [], "not_exhaustive_category_ids": [3]}],
        "categories": [{"id": k, "instance_count": n, "frequency": "r"} for k, n in ((1, 5), (2, 5), (3, 50))],
        "annotations": [{"image_id": 7, "category_id": k, "bbox": [50.0 * k, 0.0, 10.0, 10.0]} for k in (1, 3)],
    }
    here, nowhere = [50.0, 0.0, 10.0, 10.0], [500.0, 0.0, 10.0, 10.0]
    rows = [(7, 1, here, 0.9), (7, 1, nowhere, 0.8), (7, 2, here, 0.7), (7, 3, nowhere, 0.6)]
    matches = match_boxes(lean_ground_truth(gt), boxes_of(rows))
    found = calibrations(matches, class_groups(["r"] * 3, (5, 5, 50), (10, 100)))
    assert (found["AP1"].count, found["AP1"].right, found["AP1"].score) == (2, 0.5, pytest.approx(0.85))
    assert found["AP2"].count == 0
    assert found["AP2"].ece is None
    assert found["AP"] == found["APr"] == found["AP1"]


def test_bins_add_up_to_all_classes() -> None:
    gt, boxes = federated(np.random.default_rng(3), 30, 9, 40)
    lean = lean_ground_truth(gt)
    matches = match_boxes(lean, boxes)
    categories = sorted(gt["categories"], key=lambda c: int(c["id"]))
    groups = class_groups(
        [c["frequency"] for c in categories], [c["instance_count"] for c in categories], (10, 100, 1000)
    )
    found = calibrations(matches, groups)
    assert found["AP"].count == int(matches.counted[0].sum()) == sum(found[f"AP{i}"].count for i in (1, 2, 3, 4))
    right = sum(round((one.right or 0) * one.count) for name, one in found.items() if name[2:].isdigit())
    assert right == int(matches.true[0].sum())
