"""Data parts: from annotations to annotations. Separate because a train stage runs them before anything is drawn.

A data part is a function `(split, *, settings) -> split`. It may leave images or boxes out, or mark boxes `ignore`:
RPN and RoI sampling then draw nothing near them and no statistics count them. Nothing is evaluated on its result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bench.data.split import Split
from bench.errors import UserError, unknown
from bench.frequency import Bools, levels_of, tail_classes

VERSION = 1

NONTAIL = ("drop", "ignore", "keep")


def tail_only(split: Split, *, below: int = 100, nontail: str = "drop") -> Split:
    """The images that show a tail class: one with fewer than `below` training instances.

    Source: BAGS (CVPR 2020), Table 1 row (3): "tail" are the bins of fewer than 100 instances. What becomes of the
    other boxes in such images is not stated there; ACC_bg of 99.85 and the fall of the head classes suggest "drop".

    Args:
        split: annotations; boxes already marked `ignore` are not counted.
        below: a class with fewer instances is a tail class.
        nontail: "drop" (their boxes become background), "ignore" (nothing near them is sampled), "keep".

    Raises:
        UserError: a setting out of range, or no image is left.
    """
    if nontail not in NONTAIL:
        raise unknown("treatment of other boxes", nontail, NONTAIL, where="tail_only")
    counts_C = split.training_statistics().instance_counts
    tail_C = tail_classes(counts_C, below)
    shown = [i for i, labels in enumerate(split.labels) if tail_C[labels[~split.ignore[i]]].any()]
    if not shown:
        seen = counts_C[counts_C > 0]
        raise UserError(
            f"no class has fewer than {below} training instances", where="tail_only",
            hint=f"the rarest has {seen.min()}" if len(seen) else "the split has no boxes at all",
        )  # fmt: skip
    rest = split.subset(shown)
    if nontail == "keep":
        return rest
    tail = [tail_C[labels] for labels in rest.labels]
    if nontail == "ignore":
        return replace(rest, ignore=[old | ~t for old, t in zip(rest.ignore, tail, strict=True)])
    return without(rest, tail)


def of_levels(
    split: Split,
    *,
    keep: Sequence[int],
    edges: Sequence[float | Mapping[str, float]] = ({"images": 30},),
    inclusive: bool = True,
    others: str = "ignore",
) -> Split:
    """The images that show a class of some levels.

    Source: SimLTD (arXiv 2412.20047) trains on head classes, then on tail classes.
    DEVIATION: boxes of other classes are ignored by default; whether they are background there was not read.

    Args:
        split: annotations; boxes already marked `ignore` are not counted.
        keep: levels, 0 the most frequent classes.
        edges, inclusive: levels of classes by training images, see `exemplars.replay`.
        others: what becomes of the other boxes there: "ignore" (nothing near them is sampled), "drop" (background),
            "keep".

    Raises:
        UserError: a setting out of range, or no image is left.
    """
    if others not in NONTAIL:
        raise unknown("treatment of other boxes", others, NONTAIL, where="of_levels")
    stats = split.training_statistics()
    level_C = levels_of(stats.image_counts, edges, stats.images_of_counts, inclusive)
    kept_C = np.isin(level_C, list(keep))
    shown = [i for i, labels in enumerate(split.labels) if kept_C[labels[~split.ignore[i]]].any()]
    if not shown:
        raise UserError(f"no image shows a class of the levels {list(keep)}", where="of_levels", hint="move its edges")
    rest = split.subset(shown)
    of_kept = [kept_C[labels] for labels in rest.labels]
    if others == "drop":
        return without(rest, of_kept)
    if others == "keep":
        return rest
    return replace(rest, ignore=[old | ~k for old, k in zip(rest.ignore, of_kept, strict=True)])


def without(split: Split, keep: Sequence[Bools]) -> Split:
    """The split without the boxes whose entry in `keep` (per image bool n) is false. A class whose boxes go is still in
    the image: it does not become one that is known to be absent."""
    images = tuple(
        image if k.all() else replace(image, negatives=tuple(split.negative(i).tolist()))
        for i, (image, k) in enumerate(zip(split.images, keep, strict=True))
    )
    return replace(split, images=images).keep_boxes(keep)
