"""Whether the images of a val set say which classes are absent from them. Separate from the readers because commands
ask before anything is trained.

By LVIS rules a false positive counts only where its class is known to be absent (Gupta et al., CVPR 2019, section 3):
in a file without such lists nearly every false positive is free.
"""

from __future__ import annotations

from bench.data.entries import LISTS
from bench.data.folder import annotation_file
from bench.data.formats import FORMATS
from bench.data.split import listing
from bench.data.summaries import stamp_of, summary_of
from bench.errors import UserError
from bench.spec import FolderData


def check_negatives(data: FolderData) -> None:
    """Refuse a val set in which no image lists a negative class, unless `data.negatives` is optional.

    Raises:
        UserError: with the ways out; a file of COCO's form is recognised. Or the file is missing or damaged.
    """
    if not FORMATS[data.name].negatives or data.negatives == "optional":
        return
    file = annotation_file(data, "val")
    try:
        stamp = stamp_of(file)
    except (OSError, ValueError):
        raise UserError("no such annotation file", where=str(file), allowed=listing(file.parent)) from None
    _, val = summary_of(file, stamp, True)
    if val.negatives:
        return
    form = "" if val.lists else f" (no image has the entry {LISTS[0]}: a file of COCO's form?)"
    raise UserError(
        f"no image lists a class that is absent from it{form}", where=str(val.file),
        hint="so nearly all false positives would be free, and AP far too high. If every object has its box: "
        "--set data.name=coco, or `bench data fill-negatives`. To go on all the same: --set data.negatives=optional",
    )  # fmt: skip
