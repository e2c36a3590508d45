"""COCO folders. Separate from lvis.py because COCO is annotated exhaustively and has no lists.

A class without a box in an image is absent from it: all such classes are negatives (stored once as `info.exhaustive`,
written out by `Split.lvis_json`) and no class is "not exhaustive". Lists in a COCO file are ignored. A crowd box
(`iscrowd`) is no instance: training leaves it out, it is in no count, and its class is not a negative.
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
    """One split in stored form. Raises UserError as `folder.read`."""
    return folder.read(spec, split, {"exhaustive": True})


def write_split(spec: FolderData, split: SplitName, out: Path) -> None:
    """Write `annotations.json` of a split into the folder `out`; the images stay where they are."""
    write_json(out / ANNOTATIONS, read_folder(spec, split))
