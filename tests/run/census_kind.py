"""A kind of stage that the product does not have: it counts a split's boxes per class. One file, as in bench/run."""

from __future__ import annotations

import torch

from bench.data.folder import image_root_of
from bench.data.split import open_split
from bench.run import checkpoint
from bench.run.work import Work
from bench.stage import KINDS, Kind

ENTRY = Kind(
    "census",
    3,
    1,
    images="data",
    hands="census.safetensors",
    torch=False,
    module="tests.run.census_kind",
    named_by="what",
)


def run(work: Work) -> None:
    """Write census.safetensors: how many boxes each class has, times the spec's `times`."""
    split = open_split(work.input("data"), image_root_of(work.stage.inputs["data"]))
    counts = torch.zeros(split.num_classes)
    for i, labels in enumerate(split.labels):
        counts += torch.bincount(torch.from_numpy(labels), minlength=split.num_classes) * work.spec["times"]
        work.progress(i + 1, len(split.images))
    checkpoint.write_tensors(work.out / str(KINDS["census"].hands), {"counts": counts})
