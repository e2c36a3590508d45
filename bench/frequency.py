"""How often a class occurs. Separate so that samplers, losses, bins and tables count classes in the same way.

Two counts are in use and never mixed: IMAGES that have a class (LVIS r/c/f, repeat factors) and INSTANCES of it (bins,
class weights). Shape legend: C classes, I images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.errors import UserError, unknown

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RARE_IMAGES = 10  # LVIS: a class with at most so many training images is rare (Gupta et al., CVPR 2019, section 3)
COMMON_IMAGES = 100  # and one with at most so many is common
TAIL_INSTANCES = 100  # BAGS (Li et al., CVPR 2020) and the fine-tune-tail row: a tail class has N_j < 100


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Counts of one training list.

    Attributes:
        instance_counts: boxes of each class, int64 length C.
        image_counts: images with at least one box of each class, int64 length C.
        num_images: all images of the list, also those without a box.
        image_classes: the classes of each image, ascending.
        counted_images: how many images image_counts are of, where they are counted over more than this list: in a
            search over all training images, of which it trains on a part. None: num_images.
    """

    instance_counts: Ints
    image_counts: Ints
    num_images: int
    image_classes: tuple[tuple[int, ...], ...]
    counted_images: int | None = None

    @classmethod
    def from_labels(cls, labels_per_image: Iterable[ArrayLike], num_classes: int) -> ClassStatistics:
        """Count the labels (0..C-1) of every image; an image without labels counts as an image.

        Raises:
            ValueError: a label outside 0..C-1.
        """
        instances = np.zeros(num_classes, np.int64)
        images = np.zeros(num_classes, np.int64)
        classes: list[tuple[int, ...]] = []
        for labels in labels_per_image:
            present, number = np.unique(np.asarray(labels, dtype=np.int64).ravel(), return_counts=True)
            if present.size and (present[0] < 0 or present[-1] >= num_classes):
                raise ValueError(f"label outside 0..{num_classes - 1}: {present.tolist()}")
            instances[present] += number
            images[present] += 1
            classes.append(tuple(present.tolist()))
        return cls(instances, images, len(classes), tuple(classes))

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.instance_counts)

    @property
    def images_of_counts(self) -> int:
        """How many images image_counts are of."""
        return self.num_images if self.counted_images is None else self.counted_images


def lvis_frequency(image_count: int) -> str:
    """LVIS group of a class by its number of training IMAGES: r 1-10, c 11-100, f > 100 (a class with none is r).

    Gupta et al., LVIS, CVPR 2019, section 3.
    """
    if image_count <= RARE_IMAGES:
        return "r"
    return "c" if image_count <= COMMON_IMAGES else "f"


def instance_bin(counts: ArrayLike, edges: Sequence[int]) -> Ints:
    """Bin of each class by training INSTANCES: i where edges[i-1] <= count < edges[i]; 0..len(edges).

    With edges (10, 100, 1000) these are BAGS' bins 1-9, 10-99, 100-999, 1000+ (a class with none is in bin 0).
    """
    return np.searchsorted(np.asarray(edges), np.asarray(counts), side="right").astype(np.int64)


def share_of_images(value: float | Mapping[str, float], num_images: int, what: str, where: str) -> float:
    """A share of the images, from a share or from {"images": n}, which means the same on a set of any size.

    Raises:
        UserError: another form, or not positive.
    """
    if isinstance(value, Mapping):
        if set(value) != {"images"}:
            raise unknown(f"form of {what}", ", ".join(value), ["images"], where=where)
        value = value["images"] / num_images
    if not value > 0.0:
        raise UserError(f"{what} is {value}", where=where, allowed="a share of the images > 0, or {images: n}")
    return value


def levels_of(
    image_counts: ArrayLike, edges: Sequence[float | Mapping[str, float]], num_images: int, inclusive: bool = True
) -> Ints:
    """Level of each class by its training images: 0 for the classes above the first edge, and so on; int64 length C.

    Source: Dong et al. (ICCV 2023): head and tail are divided at 30 images.

    Args:
        image_counts: training images of each class.
        edges: falling; each a share of the images, or {"images": n}.
        num_images: all training images.
        inclusive: whether a class at an edge is above it.

    Raises:
        UserError: edges that do not fall, or one that is not positive.
    """
    at = [share_of_images(edge, num_images, "an edge", "edges") for edge in edges]
    if not at or any(a <= b for a, b in pairwise(at)):
        raise UserError(f"edges are {list(edges)}", where="edges", allowed="one or more, falling, e.g. [{images: 30}]")
    shares = np.asarray(image_counts) / num_images
    below_EC = np.stack([shares < edge if inclusive else shares <= edge for edge in at])
    return np.asarray(below_EC.sum(axis=0), dtype=np.int64)


def repeat_factors(stats: ClassStatistics, t: float, power: float | Floats = 0.5) -> tuple[Floats, Floats]:
    """Repeat factors of classes and images: r_c = max(1, (t / f_c)^power), r_I = max of r_c over the image's classes.

    f_c is the share of ALL images of the list that show c. An image without boxes has 1; so has a class without images.
    LVIS (CVPR 2019), appendix B.2 with power 0.5; step-wise learning (ICCV 2023) uses others, one for each class.

    Returns:
        (r_class float64 length C, r_image float64 length I).
    """
    shares = stats.image_counts / max(1, stats.images_of_counts)
    ratio = np.divide(t, shares, out=np.ones_like(shares), where=shares > 0)
    r_class = np.maximum(1.0, ratio**power)
    r_image = np.array([max((float(r_class[c]) for c in classes), default=1.0) for classes in stats.image_classes])
    return r_class, r_image


def tail_classes(instance_counts: ArrayLike, below: int = TAIL_INSTANCES) -> NDArray[np.bool_]:
    """True for each class with fewer than `below` training instances; the others are the head."""
    return np.asarray(np.asarray(instance_counts) < below, dtype=np.bool_)
