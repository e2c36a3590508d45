"""LVIS folders, v0.5 and v1. Separate from coco.py because LVIS is annotated in part, with lists for every image.

A class without a box in an image is absent only if `neg_category_ids` names it; `not_exhaustive_category_ids` names
classes of which not every instance has a box (Gupta et al., LVIS, CVPR 2019, section 3). Missing lists are empty ones;
`check.py` warns where no image has negatives.
"""

from __future__ import annotations

from pathlib import Path

from bench.data import folder
from bench.data.folder import inspect
from bench.data.formats import SplitName
from bench.data.split import ANNOTATIONS, Document, write_json
from bench.spec import FolderData

__all__ = ["inspect", "read_folder", "write_split"]


def read_folder(spec: FolderData, split: SplitName) -> Document:
    """One split in stored form. Raises UserError as `folder.read`, and for a list that names an unknown class."""
    return folder.read(spec, split, {})


def write_split(spec: FolderData, split: SplitName, out: Path) -> None:
    """Write `annotations.json` of a split into the folder `out`; the images stay where they are."""
    write_json(out / ANNOTATIONS, read_folder(spec, split))
