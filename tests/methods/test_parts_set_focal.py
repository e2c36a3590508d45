"""The focal loss of set prediction: values by hand, torchvision's own, and what rows weigh.

N rows (queries), C classes; a row with label C has no class.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from bench.detection.contract import Context, HeadSpec, Taps, Targets
from bench.errors import UserError
from methods.parts.patches import tau_norm
from methods.parts.set_focal import ReweightedSetFocal, SetFocal

C = 3
COUNTS = (100, 10, 1)
HEAD = HeadSpec(C, 4, (0, 0, 0), COUNTS, COUNTS, 100, COUNTS, COUNTS)
NOW = Context(0, 0.0, torch.Generator())


def loss_of(classifier: SetFocal, z_NC: Tensor, *labels: int) -> float:
    label_N = torch.tensor(labels, dtype=torch.int64)
    targets = Targets(label_N, torch.zeros_like(label_N), [], [], Taps(torch.zeros(len(labels), 4)))
    found = classifier.loss(z_NC, targets, NOW)
    assert set(found) == {"classification"}
    return float(found["classification"])


def test_a_value_by_hand() -> None:
    """One row at p = 1/2 for all: 0.25 x 1/4 x ln 2 for its class, 0.75 x 1/4 x ln 2 for each other; times 2."""
    z_NC = torch.zeros(1, C)
    log2 = math.log(2)
    assert loss_of(SetFocal(HEAD), z_NC, 1) == pytest.approx(2 * (0.25 + 2 * 0.75) / 4 * log2)
    assert loss_of(SetFocal(HEAD), z_NC, C) == pytest.approx(2 * 3 * 0.75 / 4 * log2)  # says no to all; over 1, not 0
    assert loss_of(SetFocal(HEAD), z_NC[:0]) == 0.0


def test_it_is_torchvisions_divided_by_the_rows_with_a_class() -> None:
    draws = torch.Generator().manual_seed(0)
    z_NC, labels = 4 * torch.randn(7, C, generator=draws), (0, C, 2, C, C, 1, C)
    wanted = torch.nn.functional.one_hot(torch.tensor(labels), C + 1)[:, :C].float()
    theirs = sigmoid_focal_loss(z_NC, wanted, alpha=0.4, gamma=1.5, reduction="sum") / 3
    ours = loss_of(SetFocal(HEAD, alpha=0.4, gamma=1.5, weight=3.0), z_NC, *labels)
    assert ours == pytest.approx(3 * float(theirs), rel=1e-5)


def test_at_the_start_every_class_has_its_prior() -> None:
    p_NC, background = SetFocal(HEAD, prior=0.02).scores(SetFocal(HEAD, prior=0.02)(Taps(torch.zeros(2, 4))))
    assert torch.allclose(p_NC, torch.full((2, C), 0.02))
    assert background is None


def test_a_row_weighs_as_its_class_and_one_without_a_class_as_the_background() -> None:
    """Weights 1/n over their mean, not cut: 3 n_j^-1 / (0.01 + 0.1 + 1)."""
    weighed, plain = ReweightedSetFocal(HEAD, clip=None, background=0.5), SetFocal(HEAD)
    z_NC = torch.linspace(-1, 1, C)[None]
    for label, weight in ((0, 0.03 / 1.11), (1, 0.3 / 1.11), (2, 3 / 1.11), (C, 0.5)):
        assert loss_of(weighed, z_NC, label) == pytest.approx(weight * loss_of(plain, z_NC, label), rel=1e-5)
    assert weighed.state_dict().keys() == plain.state_dict().keys()
    assert weighed.load_from(plain) == []


def test_tau_normalisation_scales_its_rows() -> None:
    one = SetFocal(HEAD)
    with torch.no_grad():
        one.fc.weight.copy_(torch.tensor([[3.0, 4, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]))
    for background in ("scaled", "kept"):  # there is none: its last row is that of a class
        same = SetFocal(HEAD)
        same.load_state_dict(one.state_dict())
        tau_norm(same, tau=1.0, background=background)
        assert same.fc.weight.tolist() == [pytest.approx([0.6, 0.8, 0, 0]), [0, 0, 1, 0], [0, 0, 0, 0]]
        assert torch.equal(same.fc.bias, one.fc.bias)


@pytest.mark.parametrize("wrong", [{"gamma": -1}, {"alpha": 1.5}, {"weight": math.inf}, {"prior": 0.0}, {"prior": 1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="0 < prior < 1"):
        SetFocal(HEAD, **wrong)
