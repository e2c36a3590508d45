"""Class counts, bins and repeat factors against the hand-worked example of methods.md section 5."""

from __future__ import annotations

import numpy as np
import pytest

from bench.frequency import ClassStatistics, instance_bin, lvis_frequency, repeat_factors, tail_classes

RFS_IMAGES = [[0]] * 6 + [[0, 1]] * 2 + [[1, 2], [0, 2, 3]]


def test_counts_images_and_instances() -> None:
    stats = ClassStatistics.from_labels([[2, 0, 2], [], np.array([2])], 4)
    assert stats.instance_counts.tolist() == [1, 0, 3, 0]
    assert stats.image_counts.tolist() == [1, 0, 2, 0]
    assert stats.num_images == 3
    assert stats.image_classes == ((0, 2), (), (2,))


@pytest.mark.parametrize("label", [-1, 4])
def test_refuses_a_label_outside(label: int) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.3"):
        ClassStatistics.from_labels([[label]], 4)


@pytest.mark.parametrize(("images", "group"), [(1, "r"), (10, "r"), (11, "c"), (100, "c"), (101, "f")])
def test_lvis_frequency_edges(images: int, group: str) -> None:
    assert lvis_frequency(images) == group


def test_bins_are_half_open() -> None:
    counts = [0, 1, 9, 10, 99, 100, 999, 1000, 50_000]
    assert instance_bin(counts, (10, 100, 1000)).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_repeat_factors_of_the_toy_example() -> None:
    r_class, r_image = repeat_factors(ClassStatistics.from_labels(RFS_IMAGES, 4), t=0.4)
    np.testing.assert_allclose(r_class, [1, 1.154701, 1.414214, 2], atol=1e-6)
    np.testing.assert_allclose(r_image, [1] * 6 + [1.154701] * 2 + [1.414214, 2], atol=1e-6)
    assert r_image.sum() == pytest.approx(11.723615, abs=1e-6)


def test_repeat_factors_with_power_one() -> None:
    r_class, r_image = repeat_factors(ClassStatistics.from_labels(RFS_IMAGES, 4), t=0.4, power=1)
    np.testing.assert_allclose(r_class, [1, 4 / 3, 2, 4])
    assert np.ceil(r_image).tolist() == [1] * 6 + [2, 2, 2, 4]


def test_images_without_boxes_lower_every_share() -> None:
    stats = ClassStatistics.from_labels([*RFS_IMAGES, *[[]] * 10], 5)
    r_class, r_image = repeat_factors(stats, t=0.4)
    np.testing.assert_allclose(r_class[:4], np.sqrt([1, 0.4 / 0.15, 0.4 / 0.1, 0.4 / 0.05]))
    assert r_class[4] == 1  # a class without images repeats nothing
    assert r_image[10:].tolist() == [1] * 10


def test_tail_is_below_a_hundred() -> None:
    assert tail_classes([1, 99, 100, 101]).tolist() == [True, True, False, False]
