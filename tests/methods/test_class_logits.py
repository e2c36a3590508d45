"""Logits by class: what a teacher hands over of any classifier (bench.detection.contract.Classifier.class_logits)."""

from __future__ import annotations

import pytest
import torch

from bench.detection.contract import Classifier, Taps
from methods.parts.focal import SigmoidFocal
from methods.parts.group_softmax import GroupSoftmax
from methods.parts.softmax import Softmax
from tests.methods.rois import head as head_of

COUNTS = [3, 2000, 50, 300, 1]


def outputs(classifier: Classifier) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        z_NK: torch.Tensor = classifier(Taps(torch.randn(40, classifier.head.features, generator=draws).abs() * 40))
    return 5 * z_NK


@pytest.mark.parametrize("kind", [Softmax, GroupSoftmax])
def test_a_softmax_over_some_classes_is_their_share_of_the_scores(kind: type[Classifier]) -> None:
    torch.manual_seed(0)
    classifier = kind(head_of(COUNTS))
    z_NK = outputs(classifier)
    p_NC = classifier.scores(z_NK)[0][:, [1, 3, 4]]
    found = classifier.class_logits(z_NK)[:, [1, 3, 4]].softmax(dim=1)
    torch.testing.assert_close(found, p_NC / p_NC.sum(dim=1, keepdim=True), atol=1e-5, rtol=1e-4)


def test_a_sigmoid_s_are_its_raw_outputs() -> None:
    """As the released code of step-wise learning takes them: the softmax of the logits, not of log p."""
    classifier = SigmoidFocal(head_of(COUNTS))
    z_NK = outputs(classifier)
    torch.testing.assert_close(classifier.class_logits(z_NK), z_NK[:, :-1])


def test_a_score_of_zero_is_a_small_number() -> None:
    classifier = GroupSoftmax(head_of(COUNTS))
    z_NK = torch.full((1, outputs(classifier).shape[1]), -1e4)
    z_NK[0, 0] = 1e4  # all background
    assert classifier.class_logits(z_NK).isfinite().all()
