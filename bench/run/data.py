"""The `data` stage: make a split, or bring a folder of photographs into LVIS form. Runs without torch."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from bench.data.folder import image_root
from bench.data.formats import FORMATS
from bench.data.split import Split, open_split
from bench.run.work import Work
from bench.spec import FolderData
from bench.stage import DataSpec, Stage, spec_of
from bench.store.disk import write_atomic


def run(work: Work) -> None:
    """Write annotations.json, counts.json and, of images that are made, the pixels."""
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
    write_counts(open_split(out, image_root_of(work.stage)), out / "counts.json")


def image_root_of(data: Stage) -> Path | None:
    """The folder of the images of a folder data set; None where they are made: their pixels lie in the store."""
    source = data.not_in_key.get("source")
    if not isinstance(source, dict):
        return None
    spec = spec_of(data, DataSpec)
    return image_root(FolderData.model_validate(source), spec["split"])


def write_counts(split: Split, path: Path) -> None:
    """Instances and images of each class of this split: all that a classifier may use of the data."""
    stats = split.statistics()
    value = {
        "instances": [int(n) for n in stats.instance_counts],
        "images": [int(n) for n in stats.image_counts],
        "num_images": int(stats.num_images),
    }
    write_atomic(path, json.dumps(value).encode())
