"""IoU as evaluators compute it. Separate because matches and error kinds must agree with them to the last bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.ap import Floats


def iou_xywh(found_D4: Floats, boxes_G4: Floats, crowd_G: NDArray[np.bool_]) -> Floats:
    """IoU D x G of x y width height boxes, to the bits of pycocotools; in a crowd box the share of the detection."""
    low = np.maximum(found_D4[:, None, :2], boxes_G4[:, :2])
    high = np.minimum(found_D4[:, None, :2] + found_D4[:, None, 2:], boxes_G4[:, :2] + boxes_G4[:, 2:])
    side = (high - low).clip(0.0)
    shared = side[..., 0] * side[..., 1]
    area_D1, area_G = (found_D4[:, 2] * found_D4[:, 3])[:, None], boxes_G4[:, 2] * boxes_G4[:, 3]
    union = np.where(crowd_G, area_D1, area_D1 + area_G - shared)
    return np.asarray(shared / union)
