"""What methods that contrast views of an image share: losses, a slow copy of the student, a queue, what embeddings look
like. Separate from drcl.py and aligndet.py, which say what is contrasted.

Shape legend: N rows, D width of an embedding, M negatives.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from bench.detection.contract import Context, Detector, HeadSpec
from bench.detection.losses import ExtraLoss
from bench.errors import StageError, UserError, unknown

NORMS: Mapping[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
# A spread (see `spread`) below this is a collapse: float32 tells embeddings of one direction apart to 1e-4 or so.
COLLAPSED = 1e-3


def cosine(p_ND: Tensor, z_ND: Tensor) -> Tensor:
    """Mean over rows of 2 - 2 cos(p, z): 0 where each p points as its z does; 0 without rows.

    Source: Grill et al. 2020 (BYOL), equation 2. SimSiam and SoCo minimise -2 cos, which has the same gradient.
    """
    near_N = (F.normalize(p_ND.float(), dim=1) * F.normalize(z_ND.float(), dim=1)).sum(dim=1)
    return (2 - 2 * near_N).sum() / max(len(p_ND), 1)


def infonce(q_ND: Tensor, k_ND: Tensor, negatives_MD: Tensor, tau: float) -> Tensor:
    """Mean over rows of -log(e^(q k / tau) / (e^(q k / tau) + sum over negatives e^(q n / tau))), all of unit length.

    Source: van den Oord et al. 2018, equation 4; He et al. 2020 (MoCo), equation 1. 0 without rows.
    """
    q_ND, k_ND, n_MD = (F.normalize(x.float(), dim=1) for x in (q_ND, k_ND, negatives_MD))
    logits = torch.cat(((q_ND * k_ND).sum(dim=1, keepdim=True), q_ND @ n_MD.T), dim=1) / tau
    return -logits.log_softmax(dim=1)[:, 0].sum() / max(len(q_ND), 1)


@contextlib.contextmanager
def statistics_held(model: nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics as ever, and keep their running ones: of images that a trained model will
    not see (masked ones)."""
    norms = [one for one in model.modules() if isinstance(one, _BatchNorm)]
    before = [one.momentum for one in norms]
    try:
        for one in norms:
            one.momentum = 0.0
        yield
    finally:
        for one, value in zip(norms, before, strict=True):
            one.momentum = value


def momentum(base: float, progress: float) -> float:
    """Of the slow copy: from `base` to 1 along a cosine. Source: Grill et al. 2020 (BYOL), section 3.2."""
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2


def alignment(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """Mean squared distance of the pairs, all of unit length: 0 to 4. Source: Wang and Isola 2020, section 4.1."""
    off = F.normalize(x_ND.float(), dim=1) - F.normalize(y_ND.float(), dim=1)
    return off.square().sum(dim=1).mean()


def uniformity(x_ND: Tensor) -> Tensor:
    """log of the mean over pairs of rows of e^(-2 |x - y|^2), all of unit length: 0 where all are equal, the lower the
    more evenly they lie on the sphere; 0 of one row. Source: Wang and Isola 2020, section 4.1."""
    if len(x_ND) < 2:
        return x_ND.new_zeros(())
    return torch.pdist(F.normalize(x_ND.float(), dim=1)).square().mul(-2).exp().mean().log()


def spread(x_ND: Tensor) -> float:
    """sqrt(1 - |mean of the unit vectors|^2): 0 where all are equal, 1 where they cancel."""
    mean_D = F.normalize(x_ND.detach().double(), dim=1).mean(dim=0)
    return math.sqrt(max(0.0, 1 - float(mean_D.square().sum())))


def refuse_collapse(x_ND: Tensor, what: str, context: Context) -> None:
    """Raise where all embeddings are one direction, as `_check_loss` of a training does where its loss diverges.

    Raises:
        StageError: two rows or more, and no two of them differ.
    """
    if len(x_ND) > 1 and spread(x_ND) < COLLAPSED:
        raise StageError(
            f"the {what} embeddings have collapsed at step {context.step + 1}: all {len(x_ND)} are one vector",
            where="pre-training",
            hint="lower stages.pretrain.lr, raise the momentum of the slow copy, or keep a norm in the projectors",
        )  # fmt: skip


def mlp(inputs: int, hidden: int, outputs: int, norm: str = "batch") -> nn.Sequential:
    """Linear - norm - ReLU - Linear.

    Raises:
        UserError: a norm that there is not.
    """
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS, where="projector")
    return nn.Sequential(nn.Linear(inputs, hidden), NORMS[norm](hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def copied(module: nn.Module) -> nn.Module:
    """A copy that learns nothing by itself."""
    return copy.deepcopy(module).requires_grad_(False)


def follow(slow: nn.Module, fast: nn.Module, m: float) -> None:
    """Move the parameters of a copy: slow = m slow + (1 - m) fast. Its buffers (statistics of batches) are its own."""
    with torch.no_grad():
        for own, other in zip(slow.parameters(), fast.parameters(), strict=True):
            own.mul_(m).add_(other, alpha=1 - m)


def inside(cells_BFHW: Tensor, sizes: Iterable[tuple[int, int]], frame: tuple[int, int]) -> Tensor:
    """bool B x H x W: cells whose centre is on the image of `sizes` (height, width), not on the padding to `frame`."""
    rows, columns = cells_BFHW.shape[-2:]
    at_y = (torch.arange(rows, device=cells_BFHW.device) + 0.5) * (frame[0] / rows)
    at_x = (torch.arange(columns, device=cells_BFHW.device) + 0.5) * (frame[1] / columns)
    return torch.stack([(at_y[:, None] < height) & (at_x < width) for height, width in sizes])


def pooled(cells_BFHW: Tensor, inside_BHW: Tensor) -> Tensor:
    """B x F: the mean over the cells of each image."""
    mask_B1HW = inside_BHW[:, None].to(cells_BFHW.dtype)
    return (cells_BFHW * mask_B1HW).sum(dim=(2, 3)) / mask_B1HW.sum(dim=(2, 3)).clamp(min=1)


class Queue(nn.Module):
    """The last M embeddings of unit length, the oldest overwritten first. Source: He et al. 2020 (MoCo), section 3.2.

    It begins with random directions, from torch's default generator.
    """

    rows_MD: Tensor
    at: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows_MD", F.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("at", torch.zeros((), dtype=torch.int64))

    def push(self, rows_ND: Tensor) -> None:
        """Take these in; of more than M, the last M."""
        size = len(self.rows_MD)
        rows_ND = F.normalize(rows_ND.detach().float(), dim=1)[-size:]
        where = (self.at + torch.arange(len(rows_ND), device=self.at.device)) % size
        self.rows_MD[where] = rows_ND
        self.at.copy_((self.at + len(rows_ND)) % size)


class Following(ExtraLoss):
    """A loss against a slow copy of the student, in train mode, without gradient: its parameters are an average of the
    student's over the steps.

    Args:
        head: see ExtraLoss.
        base: the average's momentum at the first step; it rises to 1 at the last (`momentum`).

    Raises:
        UserError: a momentum outside 0..1.
    """

    target: nn.Module

    def __init__(self, head: HeadSpec, base: float) -> None:
        super().__init__(head)
        if not 0.0 <= base <= 1.0:
            raise UserError(f"momentum is {base}", where=type(self).__name__, allowed="0 to 1")
        self.base = float(base)
        self._pairs: list[tuple[nn.Module, nn.Module]] = []  # (slow, fast) of what is this loss's own

    def begin(self, student: Detector) -> None:
        self.target = copied(cast(nn.Module, student))

    @property
    def slow(self) -> Detector:
        """The copy, as a Step takes it."""
        return cast(Detector, self.target)

    def slowly(self, fast: nn.Module) -> nn.Module:
        """A copy of a module of this loss that follows it as the detector's copy does the detector."""
        slow = copied(fast)
        self._pairs.append((slow, fast))
        return slow

    def updated(self, student: Detector, context: Context) -> None:
        m = momentum(self.base, context.progress)
        for slow, fast in ((self.target, cast(nn.Module, student)), *self._pairs):
            follow(slow, fast, m)
