"""ACC by hand and against the toy values of the method notes."""

from __future__ import annotations

import numpy as np
import pytest

from bench.evaluation.accuracy import NO_PREDICTION, accuracy, assign


def test_toy_values() -> None:
    """methods_toy_values.json, check acc_bins; written background-first there, so 0 -> 3 and c -> c - 1 here."""
    predicted = (np.array([0, 0, 1, 2, 0, 2, 3]) - 1) % 4
    assigned = (np.array([0, 0, 1, 2, 3, 3, 3]) - 1) % 4
    result = accuracy(assigned, predicted, instance_counts=[5, 50, 500])
    expected = {"ACC1": 1.0, "ACC2": 1.0, "ACC3": 0.3333333333333333, "ACC4": None, "ACCbg": 1.0}
    assert result.metrics() == {"ACC": 0.7142857142857143} | expected
    assert list(result.metrics()) == ["ACC", "ACC1", "ACC2", "ACC3", "ACC4", "ACCbg"]
    assert result.proposals_per_bin == (1, 1, 3, 0, 2)


def test_classes_of_one_bin_are_pooled_over_proposals() -> None:
    """Micro average: 3 of 4 right in bin 1, though the classes have 1 and 0."""
    result = accuracy([0, 0, 0, 1], [0, 0, 0, 0], instance_counts=[3, 4], edges=(10,))
    assert result.acc_bins == (0.75, None)
    assert result.acc_bg is None


def test_without_a_background_probability_nothing_is_said() -> None:
    result = accuracy([0, 1, 2], [0, NO_PREDICTION, 2], instance_counts=[5, 50])
    assert set(result.metrics().values()) == {None}
    assert result.proposals_per_bin == (1, 1, 0, 0, 1)


def test_no_proposals() -> None:
    assert set(accuracy([], [], instance_counts=[5, 50]).metrics().values()) == {None}


@pytest.mark.parametrize(("assigned", "predicted"), [([0], [0, 1]), ([3], [0]), ([0], [3]), ([0], [-2])])
def test_bad_input(assigned: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError, match=r"classes|predicted"):
        accuracy(assigned, predicted, instance_counts=[5, 50])


def test_assign_takes_the_best_box_from_one_half_on() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60]]
    proposals = [
        [0, 0, 10, 10],  # IoU 1 and 1/2
        [0, 0, 10, 18],  # 10/18 and 18/20: the second is better
        [50, 50, 60, 55],  # exactly 1/2
        [50, 50, 60, 54.9],  # just below
        [80, 80, 80, 80],  # without area
    ]
    assert assign(proposals, boxes, [4, 2, 7], num_classes=9).tolist() == [4, 2, 7, 9, 9]
    assert assign(proposals, boxes, [4, 2, 7], num_classes=9, iou=0.95).tolist() == [4, 9, 9, 9, 9]


def test_assign_gives_the_first_of_equal_boxes() -> None:
    assert assign([[0, 0, 4, 4]], [[0, 0, 4, 4], [0, 0, 4, 4]], [1, 0], num_classes=2).tolist() == [1]


def test_assign_without_boxes_or_proposals() -> None:
    assert assign(np.ones((2, 4)), np.zeros((0, 4)), [], num_classes=5).tolist() == [5, 5]
    assert assign(np.zeros((0, 4)), np.ones((1, 4)), [0], num_classes=5).tolist() == []


def test_assign_equals_a_loop() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 12, (60, 2))
    all_boxes = np.concatenate([corner, corner + rng.uniform(2, 25, (60, 2))], 1)
    proposals, boxes, labels = all_boxes[:50], all_boxes[50:], np.arange(10)
    expected = []
    for p in proposals:
        best, chosen = 0.5, 10
        for b, label in zip(boxes, labels.tolist(), strict=True):
            w, h = min(p[2], b[2]) - max(p[0], b[0]), min(p[3], b[3]) - max(p[1], b[1])
            inter = max(w, 0) * max(h, 0)
            iou = inter / ((p[2] - p[0]) * (p[3] - p[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)
            if iou > best:
                best, chosen = iou, label
        expected.append(chosen)
    assert len(set(expected)) > 4
    assert assign(proposals, boxes, labels, num_classes=10).tolist() == expected
