"""Two classifiers made one: whose rows are whose."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.errors import UserError
from methods.parts.group_softmax import GroupSoftmax
from methods.parts.patches import joined
from methods.parts.softmax import Softmax
from tests.methods.rois import head as head_of


def filled(value: float) -> Softmax:
    made = Softmax(head_of([40, 20, 60]))  # images of each class as many
    with torch.no_grad():
        made.fc.weight.fill_(value)
        made.fc.bias.fill_(10 * value)
    return made


def detector(classifier: object) -> Any:
    return SimpleNamespace(classifier=classifier)


def test_common_classes_come_from_the_other_and_the_background_from_both() -> None:
    found = joined(filled(1.0), other=detector(filled(3.0)), edges=[{"images": 30}])
    assert isinstance(found, Softmax)
    assert found.fc.weight[:, 0].tolist() == [3.0, 1.0, 3.0, 2.0]
    assert found.fc.bias.tolist() == [30.0, 10.0, 30.0, 20.0]


def test_other_layouts_are_refused() -> None:
    grouped = GroupSoftmax(head_of([40, 20, 60]))
    for mine, theirs in ((grouped, filled(1.0)), (filled(1.0), grouped)):
        with pytest.raises(UserError, match="GroupSoftmax has no row of its own for each class"):
            joined(mine, other=detector(theirs))
