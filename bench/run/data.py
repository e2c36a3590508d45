"""The `data` stage: make a split, bring a folder of photographs into LVIS form, or divide the training images. Runs
without torch.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.division import Ints, divide
from bench.data.folder import image_root_of
from bench.data.formats import FORMATS
from bench.data.split import ANNOTATIONS, PIXELS, NoPixels, Split, from_document, open_split, read_json, write_json
from bench.frequency import ClassStatistics
from bench.run.work import Work
from bench.stage import WHOLE, DataSpec, spec_of
from bench.store.disk import write_atomic

_CHUNK = 64  # images whose pixels are copied at a time


def run(work: Work) -> None:
    """Write annotations.json, counts.json and, of images that are made, the pixels."""
    if WHOLE in work.stage.inputs:
        _run_side(work)
        return
    spec, out = spec_of(work.stage, DataSpec), work.out
    split = spec["split"]

    def report(step: int, total: int) -> None:
        work.stop.check()
        work.progress(step, total)

    form = FORMATS[spec["data"]["name"]]
    module = importlib.import_module(form.module)
    if form.generated:
        data = form.section.model_validate(spec["data"])
        module.make_split(data, spec["seed"], split, out, processes=work.processes, progress=report)
    else:
        module.write_split(form.section.model_validate(work.stage.not_in_key["source"]), split, out)
    _write_counts(_counts(open_split(out, image_root_of(work.stage))), out)


def _run_side(work: Work) -> None:
    """One side of the training images. Categories and counts, by which bins are made and methods weight classes, stay
    those of all of them; `own` counts this side. `unsplit`: names of the classes that are in `rest` alone.
    """
    spec, whole, out = spec_of(work.stage, DataSpec), work.input(WHOLE), work.out
    document = read_json(whole / ANNOTATIONS)
    split = from_document(document, NoPixels(whole))
    stats = split.statistics()
    division = divide(stats.image_classes, stats.num_classes, spec["fraction"], spec["division_seed"])
    side = division.tune if spec["split"] == "tune" else division.rest
    # The document and not the split is cut: masks and the short form of negatives are in it alone.
    images = [document["images"][i] for i in side.tolist()]
    kept = {image["id"] for image in images}
    annotations = [one for one in document["annotations"] if one["image_id"] in kept]
    info = dict(document.get("info", {}))
    info["description"] = f"{info.get('description', '')}, {spec['split']}"
    write_json(out / ANNOTATIONS, {**document, "info": info, "images": images, "annotations": annotations})
    if (whole / PIXELS).is_file():
        _copy_pixels(work, whole / PIXELS, side)
    counts = read_json(whole / "counts.json")
    unsplit = [split.categories[c].name for c in division.unsplit]
    _write_counts({**counts, "own": _counts(split.subset(side)), "unsplit": unsplit}, out)


def _copy_pixels(work: Work, source: Path, rows: Ints) -> None:
    """The pixels of some images, in the form of np.save, a few at a time: all of them may be more than the memory."""
    pixels = np.load(source, mmap_mode="r")
    header = {"descr": np.lib.format.dtype_to_descr(pixels.dtype), "fortran_order": False}
    with (work.out / PIXELS).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (len(rows), *pixels.shape[1:])})
        for start in range(0, len(rows), _CHUNK):
            work.stop.check()
            file.write(np.ascontiguousarray(pixels[rows[start : start + _CHUNK]]).tobytes())
            work.progress(min(start + _CHUNK, len(rows)), len(rows))


def _counts(split: Split) -> dict[str, Any]:
    """Instances and images of each class of this split: all that a classifier may use of the data."""
    stats = split.statistics()
    return {
        "instances": [int(n) for n in stats.instance_counts],
        "images": [int(n) for n in stats.image_counts],
        "num_images": int(stats.num_images),
    }


def counted(folder: Path) -> ClassStatistics | None:
    """The counts of all training images, in the folder of a part of them; None in any other."""
    counts = read_json(folder / "counts.json")
    if "own" not in counts:
        return None
    instances, images = (np.array(counts[name], np.int64) for name in ("instances", "images"))
    return ClassStatistics(instances, images, int(counts["num_images"]), ())


def _write_counts(value: dict[str, Any], out: Path) -> None:
    write_atomic(out / "counts.json", json.dumps(value).encode())
