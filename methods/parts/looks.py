"""What a trained model makes of a few images, for people to look at. Fit parts.

Shape legend: B images, C foreground classes, F channels, H x W cells of a map, G boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.detection.contract import HeadSpec, LabelledRois
from bench.errors import UserError

VERSION = 1
LONGEST = 256  # pixels of the longer side of an image that is kept


class Attention:
    """Where the backbone's last map is large: its mean over channels, of images that are chosen by a rule.

    The rule: an image stands for its rarest class, by training instances (ties: the class with the lower number;
    classes without one are left out). Of the rarest classes that an image stands for, the first image of each is taken.

    Source: the mean over channels is that of activation-based attention (Zagoruyko and Komodakis 2017, with p = 1, of
    a map that is not negative).

    Args:
        head: training instances of the classes.
        images: how many at most.

    Raises:
        UserError: no image is asked for.
    """

    inputs: tuple[str, ...] = ("last",)
    rois = "gt"

    def __init__(self, head: HeadSpec, *, images: int = 4) -> None:
        if images < 1:
            raise UserError(f"images is {images}", where="Attention", allowed="1 or more")
        self._counts, self._images = head.instance_counts, images
        self._kept: dict[tuple[int, int], dict[str, Tensor]] = {}  # (training instances, class) -> what is kept

    def update(self, seen: LabelledRois) -> None:
        """Take the images of a batch that stand for rarer classes than those kept."""
        assert seen.whole is not None
        batch = seen.whole.batch
        for position, index in enumerate(batch.image_index):
            here_N = seen.image_N == index
            label_G, box_G4 = seen.labels_N[here_N].cpu(), seen.boxes_N4[here_N].cpu()
            rarest = self._rarest(label_G.tolist())
            if rarest is None or rarest in self._kept:
                continue
            frame, size = batch.images.shape[-2:], batch.sizes[position]
            mean_HW = seen.whole.last[position].float().clamp(min=0).mean(dim=0)
            self._kept[rarest] = {
                "pixels": _smaller(_inside(batch.images[position], frame, size)),
                "map": _inside(mean_HW, frame, size),
                "boxes": box_G4[label_G == rarest[1]],
                "class": torch.tensor(rarest[1]),
                "image": torch.tensor(index),
            }
            for rank in sorted(self._kept)[self._images :]:
                del self._kept[rank]

    def result(self) -> dict[str, Tensor]:
        """For image k, the rarest class first: k/pixels 3 x height x width, normalised; k/map H x W, of the image
        without its padding; k/boxes G x 4 of its rarest class, fractions of width and height; k/class; k/image, its
        position in the split."""
        ranked = [self._kept[rank] for rank in sorted(self._kept)]
        return {f"{k}/{name}": value.contiguous() for k, one in enumerate(ranked) for name, value in one.items()}

    def _rarest(self, labels: Sequence[int]) -> tuple[int, int] | None:
        return min(((self._counts[label], label) for label in labels if self._counts[label]), default=None)


def _inside(map_HW: Tensor, frame: Sequence[int], size: Sequence[int]) -> Tensor:
    """A map over the padded batch (of any channels), cut to the cells whose centre is in the image; one at least."""
    rows, columns = (
        max(1, round(length * cells / whole))
        for length, cells, whole in zip(size, map_HW.shape[-2:], frame, strict=True)
    )
    return map_HW[..., :rows, :columns].cpu()


def _smaller(pixels: Tensor) -> Tensor:
    """At most LONGEST pixels on its longer side."""
    height, width = pixels.shape[-2:]
    scale = min(1.0, LONGEST / max(height, width))
    if scale == 1.0:
        return pixels
    return F.interpolate(pixels[None], (round(height * scale), round(width * scale)), mode="area")[0]
