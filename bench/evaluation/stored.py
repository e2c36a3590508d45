"""Detections as a `predict` stage stores them. Separate because reports, which import no torch, read them as well."""

from __future__ import annotations

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from bench.data.split import Split
from bench.errors import UserError
from bench.evaluation.ap import DetectedBoxes

DETECTIONS = "detections.safetensors"


def read_detections(split: Split, content: bytes, where: str) -> DetectedBoxes:
    """The detections of a predict stage, under the ids of the annotation file.

    Args:
        split: what was predicted.
        content: of the file `DETECTIONS`.
        where: its path, for an error.

    Raises:
        UserError: not a whole safetensors file.
    """
    try:
        rows = safetensors.numpy.load(content)
    except (SafetensorError, ValueError) as error:
        what, hint = f"not a whole safetensors file ({error})", "run the suite again: what was changed is made anew"
        raise UserError(what, where=where, hint=hint) from error
    image_ids = np.array([image.id for image in split.images], np.int64)
    category_ids = np.array([category.id for category in split.categories], np.int64)
    return DetectedBoxes.from_xyxy(
        image_ids[rows["image"]], category_ids[rows["labels"]], rows["boxes"], rows["scores"]
    )
