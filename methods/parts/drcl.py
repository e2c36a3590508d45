"""The parts of 2DRCL (Duan et al., NeurIPS 2024): two contrasts, two reconstructions, a sampler that rebalances.

HOUSE RECONSTRUCTION: the paper's equations, weights, temperatures, masking ratio and decoder could not be reached, and
there is no released code. Each term here is a known building block that its abstract names (methods.md 19.2); each is a
function or class of its own, to be replaced when the authors publish.

Shape legend: B images, C foreground classes, F channels, H x W cells of a map, K boxes of an image, N rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from bench.detection.boxes import iou
from bench.detection.contract import Context, Detector, HeadSpec
from bench.detection.losses import ExtraLoss, Losses, Step
from bench.errors import UserError, unknown
from bench.frequency import ClassStatistics, Floats, Ints, share_of_images
from methods.parts import contrast

MODES = ("image", "instance", "dynamic")
SOURCES = ("truth", "random")
ONE, OTHER = 1, 2  # the two views
EXAMPLES = 4  # images of a reconstruction that are kept to look at
SAME_BOX = 0.5  # IoU with a true box from which a proposal has its label, and least share of a box that a view shows
SMALLEST, LARGEST, LONGEST = 0.08, 0.6, 3.0  # random boxes: sides beside the image's, and their ratio


def rebalanced(f_image_C: ArrayLike, f_box_C: ArrayLike, t: float, progress: float) -> Floats:
    """r_C = max(1, sqrt(t / f)), f = (1 - progress) f_image + progress f_box: repeat factors that move from shares of
    images to shares of boxes. 1 of a class with neither.

    Source: house reconstruction of dynamic rebalancing (methods.md 19.2).
    """
    f_C = (1 - progress) * np.asarray(f_image_C, np.float64) + progress * np.asarray(f_box_C, np.float64)
    return np.maximum(1.0, np.sqrt(np.divide(t, f_C, out=np.ones_like(f_C), where=f_C > 0)))


def _progress(mode: str, progress: float) -> float:
    return {"image": 0.0, "instance": 1.0, "dynamic": progress}[mode]


def _check_mode(mode: str, where: str) -> None:
    if mode not in MODES:
        raise unknown("rebalancing", mode, MODES, where=where)


class Rebalanced:
    """Repeat factor sampling whose class frequencies move from images to boxes over the training (`rebalanced`).

    An image is shown floor(r) + Bernoulli(frac(r)) times in an epoch, r the largest of its classes.

    Source: house reconstruction (methods.md 19.2); the rounding is that of Gupta et al. (LVIS).

    Args:
        stats: of the images actually used.
        t: threshold on the frequency, or {"images": n}, a share of the images.
        mode: "dynamic"; "image" and "instance" stay at one end.

    Raises:
        UserError: a setting out of range.
    """

    VERSION = 1

    def __init__(
        self, stats: ClassStatistics, *, t: float | Mapping[str, float] = 0.001, mode: str = "dynamic"
    ) -> None:
        _check_mode(mode, "Rebalanced")
        self._t = share_of_images(t, stats.images_of_counts, "t", "Rebalanced")
        self._mode, self._classes, self._epochs = mode, stats.image_classes, 1.0
        self._f_image_C = stats.image_counts / max(1, stats.images_of_counts)
        self._f_box_C = stats.instance_counts / max(1, int(stats.instance_counts.sum()))

    def lasts(self, epochs: float) -> None:
        """How long the training is: epoch e of E is at e / E of the way from images to boxes."""
        self._epochs = float(epochs)

    def epoch(self, e: int, rng: np.random.Generator) -> Ints:
        """Indices of epoch `e`, int64, shuffled; an image may occur several times."""
        r_I = self.factors(e)
        whole = np.floor(r_I)
        copies = (whole + (rng.random(len(r_I)) < r_I - whole)).astype(np.int64)
        return rng.permutation(np.repeat(np.arange(len(r_I)), copies))

    def factors(self, e: int) -> Floats:
        """Repeat factors of the images in epoch `e`, float64."""
        progress = _progress(self._mode, min(1.0, e / self._epochs))
        r_C = rebalanced(self._f_image_C, self._f_box_C, self._t, progress)
        return np.array([max((float(r_C[c]) for c in classes), default=1.0) for classes in self._classes])

    def expected_length(self) -> float:
        """Images of the first epoch, on average."""
        return float(self.factors(0).sum())


class Contrast(contrast.Following):
    """What two views of an image have in common, for a slow copy of the detector to hold against it:

    - holistic: the mean of the backbone's last map, projected;
    - local: the box-head features of the same boxes in both views, projected;
    - semantic: the backbone's last map where half of the image is masked, against that of the copy where it is not;
      running statistics of batch norms are those of whole images.

    Each is `weight` x its mean over images, boxes or cells, of both directions where there are two; 0 leaves it out.

    Source: house reconstruction of Duan et al. 2024 (methods.md 19.2) of BYOL, MoCo and SoCo.
    DEVIATION: all of it is a house reconstruction; the paper's equations could not be reached.

    Args:
        head: counts of the classes, width of the box features.
        holistic, local, semantic: weights.
        kind: of the holistic loss: "byol" (`contrast.cosine`), or "infonce" against a queue.
        tau, queue: of infonce: temperature, and how many embeddings it holds.
        boxes: of each image in a step.
        source: "truth": the true boxes; "random"; or a model's stage, whose proposals they are.
        rebalance: None: all boxes alike; else they are drawn as the repeat factors of their classes are (`rebalanced`;
            a proposal is of the class of the true box that it overlaps by half, or of none, with factor 1).
        t: of these.
        momentum: of the slow copy, at the first step.
        hidden, width, norm: of the projectors and predictors, Linear - norm - ReLU - Linear. Of several processes a
            batch norm would see its own images alone: it is refused there, "layer" is not.
        masked, patch: share of the patches that are masked, and their side in pixels.

    Raises:
        UserError: a setting out of range.
    """

    VERSION = 2  # 2: masked images stay out of the running statistics
    views = 2

    def __init__(
        self,
        head: HeadSpec,
        *,
        holistic: float = 1.0,
        local: float = 1.0,
        semantic: float = 1.0,
        kind: str = "byol",
        tau: float = 0.2,
        queue: int = 65536,
        boxes: int = 8,
        source: str | Detector = "truth",
        rebalance: str | None = None,
        t: float | Mapping[str, float] = 0.001,
        momentum: float = 0.99,
        hidden: int = 256,
        width: int = 256,
        norm: str = "batch",
        masked: float = 0.5,
        patch: int = 32,
    ) -> None:
        super().__init__(head, momentum)
        if kind not in ("byol", "infonce"):
            raise unknown("contrast", kind, ("byol", "infonce"), where="Contrast")
        if isinstance(source, str) and source not in SOURCES:
            raise unknown(
                "source of boxes", source, SOURCES, where="Contrast", hint="or a model's stage: its proposals"
            )
        if not (0 <= masked <= 1 and patch >= 1 and boxes >= 1 and tau > 0 and queue >= 1):
            raise UserError(
                f"masked {masked}, patch {patch}, boxes {boxes}, tau {tau}, queue {queue}", where="Contrast",
                allowed="masked 0 to 1, tau > 0, the others 1 or more",
            )  # fmt: skip
        if rebalance is not None:
            _check_mode(rebalance, "Contrast")
        self.weights = {"holistic": holistic, "local": local, "semantic": semantic}
        self.kind, self.tau, self.boxes, self.masked, self.patch = kind, tau, boxes, masked, patch
        self.source, self.rebalance = source, rebalance
        self._t = share_of_images(t, head.num_images, "t", "Contrast")
        self._sizes, self._queue = (hidden, width, norm), queue
        self._keys: list[Tensor] = []

    def begin(self, student: Detector) -> None:
        super().begin(student)
        hidden, width, norm = self._sizes
        inputs = {"holistic": student.last[0], "local": self.head.features}
        used = [what for what in inputs if self.weights[what]]
        self.project = nn.ModuleDict({what: contrast.mlp(inputs[what], hidden, width, norm) for what in used})
        self.predict = nn.ModuleDict({what: contrast.mlp(width, hidden, width, norm) for what in used})
        self.project_slow = nn.ModuleDict({what: self.slowly(self.project[what]) for what in used})
        if self.kind == "infonce" and self.weights["holistic"]:
            self.queue = contrast.Queue(self._queue, width)

    def loss(self, step: Step) -> Losses:
        found = Losses({}, {}, {})
        if self.weights["holistic"]:
            self._holistic(step, found)
        if self.weights["local"]:
            self._local(step, found)
        if self.weights["semantic"]:
            self._semantic(step, found)
        found.shown = {**found.shown, "momentum": torch.tensor(contrast.momentum(self.base, step.context.progress))}
        return found

    def updated(self, student: Detector, context: Context) -> None:
        super().updated(student, context)
        for keys in self._keys:
            self.queue.push(keys)
        self._keys = []

    def _holistic(self, step: Step, found: Losses) -> None:
        own, slow = ([self._vector(step, model, view) for view in (ONE, OTHER)] for model in (None, self.slow))
        z = [self.project["holistic"](vector) for vector in own]
        p = [self.predict["holistic"](one) for one in z]
        with torch.no_grad():
            k = [self.project_slow["holistic"](vector) for vector in slow]
        self._seen("holistic", z[0], k[1], step, found)
        pairs = ((p[0], k[1]), (p[1], k[0]))
        if self.kind == "infonce":
            values = [contrast.infonce(q, key, self.queue.rows_MD.clone(), self.tau) for q, key in pairs]
            self._keys = [step.whole(key) for key in k]
        else:
            values = [contrast.cosine(q, key) for q, key in pairs]
        self._add("holistic", torch.stack(values).mean(), len(z[0]), found)

    def _vector(self, step: Step, model: Detector | None, view: int) -> Tensor:
        cells, batch = step.last(model, view), step.batch(view)
        frame = (batch.images.shape[-2], batch.images.shape[-1])
        return contrast.pooled(cells.float(), contrast.inside(cells, batch.sizes, frame))

    def _local(self, step: Step, found: Losses) -> None:
        boxes = [self._chosen(step, i) for i in range(len(step.batch().boxes))]
        carried = {view: step.carried(boxes, view) for view in (ONE, OTHER)}
        shown = [
            (one >= SAME_BOX) & (other >= SAME_BOX)
            for one, other in zip(carried[ONE][1], carried[OTHER][1], strict=True)
        ]
        at = {view: [b[keep] for b, keep in zip(carried[view][0], shown, strict=True)] for view in carried}
        number = sum(int(keep.sum()) for keep in shown)
        if number < 2:  # a batch norm needs two rows
            zero = step.last(None, ONE).sum() * 0
            return self._add("local", zero, 0, found)
        own, slow = (
            [step.taps(at[view], model, view).box_features.float() for view in (ONE, OTHER)]
            for model in (None, self.slow)
        )
        z = [self.project["local"](features) for features in own]
        with torch.no_grad():
            k = [self.project_slow["local"](features) for features in slow]
        self._seen("local", z[0], k[1], step, found)
        pairs = ((z[0], k[1]), (z[1], k[0]))
        value = torch.stack([contrast.cosine(self.predict["local"](q), key) for q, key in pairs]).mean()
        return self._add("local", value, number, found)

    def _semantic(self, step: Step, found: Losses) -> None:
        batch = step.batch(ONE)
        hidden_BHW = self.mask(step, batch.images.shape[-2:]).to(batch.images.device)
        images = batch.images.masked_fill(hidden_BHW[:, None], 0.0)  # pixels are normalised: 0 is their mean
        with contrast.statistics_held(cast(nn.Module, step.student)):
            own = list(step.student.body(images).values())[-1].float()
        theirs = step.last(self.slow, ONE).float()
        inside_BHW = contrast.inside(own, batch.sizes, (batch.images.shape[-2], batch.images.shape[-1]))
        off_BHW = 1 - F.cosine_similarity(own, theirs, dim=1)
        cells = inside_BHW.sum(dim=(1, 2)).clamp(min=1)
        value = ((off_BHW * inside_BHW).sum(dim=(1, 2)) / cells).mean()
        self._add("semantic", value, len(own), found)

    def mask(self, step: Step, frame: Sequence[int]) -> Tensor:
        """bool B x H x W of a frame: the pixels of view 1 that are masked."""
        return patches(step, len(step.batch(ONE).boxes), frame, self.patch, self.masked)

    def _chosen(self, step: Step, i: int) -> Tensor:
        """Boxes of image i in view 0, at most `boxes`, n x 4."""
        batch, draws = step.batch(), step.generator("boxes", i)
        boxes_N4, label_N = self._candidates(step, i, draws)
        weight_N = torch.ones(len(boxes_N4), dtype=torch.float64)
        if self.rebalance is not None:
            head, progress = self.head, _progress(self.rebalance, step.context.progress)
            f_image = np.asarray(head.image_counts) / max(1, head.num_images)
            f_box = np.asarray(head.instance_counts) / max(1, sum(head.instance_counts))
            r_C = torch.from_numpy(np.append(rebalanced(f_image, f_box, self._t, progress), 1.0))
            weight_N = r_C[label_N]
        if len(boxes_N4) <= self.boxes:
            return boxes_N4
        rows = torch.multinomial(weight_N, self.boxes, generator=draws)
        return boxes_N4[rows.to(batch.images.device)]

    def _candidates(self, step: Step, i: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """(boxes of view 0, their labels on the CPU, C of a box that is of no class)."""
        batch = step.batch()
        kept = ~batch.ignore[i]
        truth, label_G = batch.boxes[i][kept], batch.labels[i][kept].cpu()
        if self.source == "truth":
            return truth, label_G
        if self.source == "random":
            boxes_N4 = random_boxes(4 * self.boxes, batch.sizes[i], draws).to(truth)
        else:
            assert not isinstance(self.source, str)
            proposals = step.proposals(self.source)
            boxes_N4 = proposals.proposals_N4[proposals.image_N == i]
        label_N = torch.full((len(boxes_N4),), self.head.num_classes)
        if len(truth):
            overlap_N, which_N = (value.cpu() for value in iou(boxes_N4, truth).max(dim=1))
            label_N = torch.where(overlap_N >= SAME_BOX, label_G[which_N], label_N)
        return boxes_N4, label_N

    def _seen(self, what: str, z_ND: Tensor, k_ND: Tensor, step: Step, found: Losses) -> None:
        contrast.refuse_collapse(z_ND, what, step.context)
        z_ND, k_ND = z_ND.detach(), k_ND.detach()
        found.shown = {
            **found.shown,
            f"{what}_alignment": contrast.alignment(z_ND, k_ND),
            f"{what}_uniformity": contrast.uniformity(z_ND),
        }

    def _add(self, what: str, value: Tensor, number: int, found: Losses) -> None:
        found.values[what] = value * self.weights[what]
        found.counts = {**found.counts, what: number}


class Appearance(ExtraLoss):
    """Paint view 1 at half its resolution from the backbone's last map: mean squared error of normalised pixels.

    Source: house reconstruction of appearance reconstruction (methods.md 19.2): doublings of bilinear - conv 3 x 3 -
    norm - ReLU up to half the resolution, then a conv to three channels.

    Args:
        head: see ExtraLoss.
        weight: factor on the loss.
        width: channels of the first doubling; each next one has half of them, 8 at least.
        norm: "batch"; "group" where several processes train.
        masked, patch: of the examples to look at, as `Contrast` has them.
    """

    VERSION = 2  # 2: stores examples
    views = 1

    def __init__(
        self,
        head: HeadSpec,
        *,
        weight: float = 1.0,
        width: int = 32,
        norm: str = "batch",
        masked: float = 0.5,
        patch: int = 32,
    ) -> None:
        super().__init__(head)
        if norm not in ("batch", "group"):
            raise unknown("norm", norm, ("batch", "group"), where="Appearance")
        self.weight, self.width, self.norm = weight, width, norm
        self.masked, self.patch = masked, patch

    def begin(self, student: Detector) -> None:
        channels, stride = student.last
        layers: list[nn.Module] = []
        for k in range(round(math.log2(stride)) - 1):
            width = max(8, self.width // 2**k)
            normed = nn.BatchNorm2d(width) if self.norm == "batch" else nn.GroupNorm(math.gcd(8, width), width)
            doubled = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            layers += [doubled, nn.Conv2d(channels, width, 3, padding=1, bias=False), normed, nn.ReLU(inplace=True)]
            channels = width
        self.decoder = nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))

    def loss(self, step: Step) -> Losses:
        batch = step.batch(ONE)
        wanted = F.avg_pool2d(batch.images, 2)
        painted = self.painted(step.last(None, ONE), wanted.shape[-2:])
        inside_BHW = contrast.inside(wanted, batch.sizes, (batch.images.shape[-2], batch.images.shape[-1]))
        off_BHW = (painted - wanted).square().mean(dim=1) * inside_BHW
        value = (off_BHW.sum(dim=(1, 2)) / inside_BHW.sum(dim=(1, 2)).clamp(min=1)).mean()
        return Losses({"appearance": value * self.weight}, {"appearance": len(painted)})

    def examples(self, step: Step) -> dict[str, Tensor]:
        """view, masked: at most EXAMPLES images of view 1 at half resolution, whole and as `Contrast` masks them;
        view_painted, masked_painted: what is painted from each. n x 3 x H x W normalised pixels; sizes_N2: heights and
        widths inside the padding."""
        batch = step.batch(ONE)
        frame, n = batch.images.shape[-2:], min(EXAMPLES, len(batch.images))
        images = batch.images[:n]
        hidden_BHW = patches(step, n, frame, self.patch, self.masked).to(images.device)
        found = {"sizes_N2": torch.tensor(batch.sizes[:n]) // 2}
        for name, shown in (("view", images), ("masked", images.masked_fill(hidden_BHW[:, None], 0.0))):
            found[name] = F.avg_pool2d(shown, 2)
            cells = list(step.student.body(shown).values())[-1]
            found[f"{name}_painted"] = self.painted(cells, found[name].shape[-2:])
        return found

    def painted(self, cells_BFHW: Tensor, size: Sequence[int]) -> Tensor:
        """B x 3 x height x width of normalised pixels, cut to `size` (a map may cover more than the image)."""
        found: Tensor = self.decoder(cells_BFHW.float())
        return found[..., : size[0], : size[1]]


def patches(step: Step, images: int, frame: Sequence[int], side: int, share: float) -> Tensor:
    """bool B x H x W: a share of the side x side squares of each image, drawn."""
    rows, columns = (math.ceil(length / side) for length in frame)
    found = torch.zeros(images, rows * columns, dtype=torch.bool)
    for i in range(images):
        order = torch.randperm(rows * columns, generator=step.generator("mask", i))
        found[i, order[: round(share * rows * columns)]] = True
    grown = found.view(images, rows, columns).repeat_interleave(side, 1).repeat_interleave(side, 2)
    return grown[:, : frame[0], : frame[1]]


def random_boxes(number: int, size: tuple[int, int], draws: torch.Generator) -> Tensor:
    """Boxes in an image of (height, width): the root of the area is 8 to 60 % of the image's, the sides at most 3 to 1.

    Source: the limits that AlignDet keeps selective search's boxes by, ratio 3 and relative size 0.08; the upper limit
    is a house choice.
    """
    height, width = size
    u_N4 = torch.rand(number, 4, generator=draws)
    side_N = (SMALLEST + (LARGEST - SMALLEST) * u_N4[:, 0]) * math.sqrt(height * width)
    ratio_N = torch.exp((2 * u_N4[:, 1] - 1) * (math.log(LONGEST) / 2))  # height / side
    w_N, h_N = (side_N / ratio_N).clamp(max=width), (side_N * ratio_N).clamp(max=height)
    x_N, y_N = u_N4[:, 2] * (width - w_N), u_N4[:, 3] * (height - h_N)
    return torch.stack((x_N, y_N, x_N + w_N, y_N + h_N), dim=1)
