"""Detections and proposals as a `predict` stage stores them. Separate because reports, which import no torch, read them
as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from bench.data.split import Split
from bench.errors import UserError
from bench.evaluation.ap import DetectedBoxes, Floats, Ints

DETECTIONS = "detections.safetensors"
PROPOSALS = "proposals.safetensors"


@dataclass(frozen=True, eq=False)
class Proposals:
    """Class-agnostic boxes of a split in ORIGINAL pixels; those of one image stand best first.

    Attributes:
        image_id: int64 N, ids of the annotation file. xywh: float64 N x 4.
    """

    image_id: Ints
    xywh: Floats


def read_detections(split: Split, content: bytes, where: str) -> DetectedBoxes:
    """The detections of a predict stage, under the ids of the annotation file.

    Args:
        split: what was predicted.
        content: of the file `DETECTIONS`.
        where: its path, for an error.

    Raises:
        UserError: not a whole safetensors file.
    """
    rows = _loaded(content, where)
    image_ids = np.array([image.id for image in split.images], np.int64)
    category_ids = np.array([category.id for category in split.categories], np.int64)
    return DetectedBoxes.from_xyxy(
        image_ids[rows["image"]], category_ids[rows["labels"]], rows["boxes"], rows["scores"]
    )


def read_proposals(split: Split, content: bytes, where: str) -> Proposals:
    """The proposals of a predict stage, under the ids of the annotation file; those of one image by falling objectness.

    Every engine hands them over in that order, and a stage keeps it: torchvision's and detectron2's are the RPN's after
    its NMS. detr has none; its are the boxes that enter the last layer, of queries by falling objectness of the token
    that each began at. They were refined by all layers before, which an RPN's proposals were not.

    Args:
        split: what was predicted.
        content: of the file `PROPOSALS`.
        where: its path, for an error.

    Raises:
        UserError: not a whole safetensors file.
    """
    rows = _loaded(content, where)
    image_ids = np.array([image.id for image in split.images], np.int64)
    corners = rows["boxes"].astype(np.float64).reshape(-1, 4)
    return Proposals(
        image_ids[rows["image"]], np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    )


def _loaded(content: bytes, where: str) -> dict[str, NDArray[Any]]:
    try:
        return safetensors.numpy.load(content)
    except (SafetensorError, ValueError) as error:
        what, hint = f"not a whole safetensors file ({error})", "run the suite again: what was changed is made anew"
        raise UserError(what, where=where, hint=hint) from error
