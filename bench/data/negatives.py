"""Whether the images of a val set say which classes are absent from them. Separate from the readers because commands
ask before anything is trained.

By LVIS rules a false positive counts only where its class is known to be absent (Gupta et al., CVPR 2019, section 3):
in a file without such lists nearly every false positive is free.
"""

from __future__ import annotations

import functools
from pathlib import Path

from bench.data.folder import annotation_file, sections
from bench.data.formats import FORMATS
from bench.data.split import read_json
from bench.errors import UserError
from bench.spec import FolderData

LIST = "neg_category_ids"


def check_negatives(data: FolderData) -> None:
    """Refuse a val set in which no image lists a negative class, unless `data.negatives` is optional.

    Raises:
        UserError: with the ways out; a file of COCO's form is recognised.
    """
    if not FORMATS[data.name].negatives or data.negatives == "optional":
        return
    file = annotation_file(data, "val")
    stat = file.stat()
    listed, known = _lists(file, (stat.st_size, stat.st_mtime_ns))
    if listed:
        return
    form = "" if known else f" (no image has the entry {LIST}: a file of COCO's form?)"
    raise UserError(
        f"no image lists a class that is absent from it{form}", where=str(file),
        hint="so nearly all false positives would be free, and AP far too high. If every object has its box: "
        "--set data.name=coco, or `bench data fill-negatives`. To go on all the same: --set data.negatives=optional",
    )  # fmt: skip


@functools.lru_cache(maxsize=8)
def _lists(file: Path, _stamp: tuple[int, int]) -> tuple[bool, bool]:
    """Whether any image has a list that is not empty; whether any has one at all."""
    images = [image for image in sections(read_json(file), file)["images"] if isinstance(image, dict)]
    return any(image.get(LIST) for image in images), any(LIST in image for image in images)
