"""Whether a detector's anchors fit the boxes of a data set. Separate because it is told before hours are spent: a box
that no anchor overlaps enough, not even one that is centred on it, teaches the RPN little and is rarely proposed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.data.augment import resized_size
from bench.engines.facts import facts
from bench.engines.sections import DetectorSection, TwoStage
from bench.spec import Input

MISFIT = 0.2  # share of the boxes from which it is said


def misfits(sizes_N2: Sequence[tuple[float, float]], anchors_A2: Sequence[tuple[float, float]], iou: float) -> float:
    """The share of N boxes whose IoU with each of A anchors of the same centre is below `iou`; (width, height), pixels.

    0 where there are no boxes or no anchors.
    """
    if not sizes_N2 or not anchors_A2:
        return 0.0
    box_N2, anchor_A2 = np.asarray(sizes_N2, np.float64), np.asarray(anchors_A2, np.float64)
    shared_NA = np.minimum(box_N2[:, None], anchor_A2[None]).prod(-1)
    union_NA = box_N2.prod(-1)[:, None] + anchor_A2.prod(-1)[None] - shared_NA
    return float(((shared_NA / union_NA).max(1) < iou).mean())


def anchors_note(
    sides_N4: Sequence[tuple[float, float, int, int]], settings: Input, detector: DetectorSection
) -> str | None:
    """What to say of the anchors, with sizes that fit better where there are such; None where they fit or there are
    none.

    Args:
        sides_N4: width and height of each box, and of its image, pixels of the image as it is stored.
    """
    engine = facts(detector.engine)
    if not isinstance(detector, TwoStage) or not engine.anchors(detector)[0]:
        return None
    anchors, iou = engine.anchors(detector)
    resized = [_resized(*sides, settings) for sides in sides_N4 if min(sides) > 0]
    share = misfits(resized, anchors, iou)
    if share < MISFIT:
        return None
    lengths = np.sqrt(np.asarray(resized).prod(-1))
    text = (
        f"{share:.0%} of the training boxes ({len(resized):,} were looked at) overlap every anchor by less than"
        f" {iou:g}, also where it is centred on them, and will hardly be proposed: their median side is"
        f" {np.median(lengths):.0f} px after the resize"
    )
    levels = len(detector.rpn.anchor_sizes)
    quantiles = np.quantile(lengths, [(level + 0.5) / levels for level in range(levels)])
    sizes = [(max(1, round(float(one))),) for one in quantiles]
    better = detector.model_copy(update={"rpn": detector.rpn.model_copy(update={"anchor_sizes": tuple(sizes)})})
    left = misfits(resized, engine.anchors(better)[0], iou)
    if left <= share / 2:
        proposed = ",".join(f"[{size}]" for (size,) in sizes)
        text += f"; with --set 'detector.rpn.anchor_sizes=[{proposed}]' it is {left:.0%}"
    return text


def _resized(width: float, height: float, image_width: int, image_height: int, settings: Input) -> tuple[float, float]:
    new_height, new_width = resized_size(image_height, image_width, settings)
    return width * new_width / image_width, height * new_height / image_height
