"""A detector of one's own behind the seam: a grid of queries, no RPN, no NMS. Here are its facts, which planning reads:
no torch. The detector is in detector.py.

The entry point in pyproject.toml names GRID; nothing else has to know of it.
"""

from __future__ import annotations

from bench.engines.contract import EngineFacts
from bench.engines.sections import TwoStage
from bench.errors import UserError

GROUPS = ("encoder", "decoder", "classifier")  # the names of all parameters begin with one of these
SIDE, STRIDE, WIDTH, BOX = 8, 8, 12, 24.0  # queries along a side, pixels of a cell, channels, pixels of a query's box


def check(detector: TwoStage) -> None:
    """Refuse what cannot be built.

    Raises:
        UserError: with what is legal.
    """
    if not detector.roi.class_agnostic:
        raise UserError("a grid has one box for all classes", where="detector.roi.class_agnostic", allowed="true")


def parameters(detector: TwoStage, classes: int) -> int:
    """Below the classifier."""
    features = detector.roi.width
    return (3 * STRIDE**2 + 1) * WIDTH + (WIDTH + 1) * features + (features + 1) * 4


GRID = EngineFacts(
    name="grid",
    version=1,  # raise it when the same settings may give other numbers
    module="grid_engine.detector",
    provides=frozenset(
        {"classifier", "background", "box_features", "class_weights", "box_taps", "box_regressor", "ignore"}
    ),
    trunks={"cells": ("cells",)},
    groups=GROUPS,
    projector=(),
    head=("decoder",),
    check=check,
    head_widths=lambda detector: (detector.roi.width, (WIDTH, 1, 1)),
    parameters=parameters,
    proposals=lambda detector, classes: (SIDE**2, 1),
    postprocess="grid_engine.detector",
    # It borrows settings of TwoStage. Settings of its own would be a subclass of DetectorSection, named as `section=`.
    tiny={
        "detector": {"engine": "grid", "trunk": "cells", "roi": {"class_agnostic": True, "width": 16}},
        "schedule": {"lr": 0.02},
    },
)
