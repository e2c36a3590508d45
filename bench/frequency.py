"""How often a class occurs. Separate so that samplers, losses, bins and tables count classes in the same way.

Two counts are in use and never mixed: IMAGES that have a class (LVIS r/c/f, repeat factors) and INSTANCES of it (bins,
class weights). Shape legend: C classes, I images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

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
    if image_count <= 10:
        return "r"
    return "c" if image_count <= 100 else "f"


def instance_bin(counts: ArrayLike, edges: Sequence[int]) -> Ints:
    """Bin of each class by training INSTANCES: i where edges[i-1] <= count < edges[i]; 0..len(edges).

    With edges (10, 100, 1000) these are BAGS' bins 1-9, 10-99, 100-999, 1000+ (a class with none is in bin 0).
    """
    return np.searchsorted(np.asarray(edges), np.asarray(counts), side="right").astype(np.int64)


def repeat_factors(stats: ClassStatistics, t: float, power: float = 0.5) -> tuple[Floats, Floats]:
    """Repeat factors of classes and images: r_c = max(1, (t / f_c)^power), r_I = max of r_c over the image's classes.

    f_c is the share of ALL images of the list that show c. An image without boxes has 1; so has a class without images.
    LVIS (CVPR 2019), appendix B.2 with power 0.5; step-wise learning (ICCV 2023) uses power 1.

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
