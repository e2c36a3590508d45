"""A search trains on a part of the training images; methods tell rare from frequent by the counts of all of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from bench.data.split import Category, Image, NoPixels, Split
from bench.frequency import ClassStatistics
from methods.parts.annotations import tail_only
from methods.parts.samplers import RepeatFactor
from tests.conftest import ROOT

ALL = ClassStatistics(np.array([100, 8]), np.array([100, 4]), 100, ())  # instances, images, number of images


def rest() -> Split:
    """Eight images with class 0; the last two show class 1 as well."""
    labels = [np.array([0]) if i < 6 else np.array([0, 1]) for i in range(8)]
    boxes = [np.tile(np.float32([0, 0, 5, 5]), (len(found), 1)) for found in labels]
    return Split(
        categories=(Category(1, "a", "f", 100, 100), Category(2, "b", "r", 4, 8)),
        images=tuple(Image(i, f"{i}.png", 9, 9) for i in range(8)),
        boxes=boxes, labels=labels, ignore=[np.zeros(len(found), np.bool_) for found in labels],
        annotated=[np.zeros((len(found), 5)) for found in labels],
        annotation_ids=[np.arange(len(found)) for found in labels],
        source=NoPixels(ROOT), rows=np.arange(8), counted=ALL,
    )  # fmt: skip


def test_repeat_factors_are_those_of_all_training_images() -> None:
    """f of class 1 is 4 / 100, not 2 / 8; t = 9 images of 100: r = sqrt(0.09 / 0.04) = 1.5 for the last two."""
    sampler = RepeatFactor(rest().training_statistics(), t={"images": 9})
    assert sampler.expected_length() == pytest.approx(6 + 2 * 1.5)
    assert len(sampler.epoch(0, np.random.default_rng(0))) in (8, 9, 10)
    alone = RepeatFactor(dataclasses.replace(rest(), counted=None).training_statistics(), t={"images": 9})
    assert alone.expected_length() == pytest.approx(6 * math.sqrt(9 / 8) + 2 * math.sqrt((9 / 8) / (2 / 8)))


def test_tail_classes_are_those_of_all_training_images() -> None:
    """Class 0 has 8 boxes here and 100 in all: with `below` 50 it is a tail class only where it is counted here."""
    assert len(tail_only(rest(), below=50)) == 2
    assert len(tail_only(dataclasses.replace(rest(), counted=None), below=50)) == 8
