"""The benchmark of the loader on a tiny size: what is counted as waiting, and that every way makes the same batches."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from data.photographs import make_folder

from bench import spec
from bench.detection.contract import Batch
from benchmarks import loader

SMALL = [
    *("--px", "64", "--batch", "2", "--workers", "0", "2", "--steps", "3"),
    *("--rounds", "1", "--device", "cpu", "--drawn", "4"),
]


def test_every_number_of_workers_is_measured() -> None:
    found = loader.run(loader.arguments_of([*SMALL, "--network-steps", "1", "--pauses", "5"]))
    assert [(entry["how"], entry["workers"]) for entry in found["results"]] == [("threads", 0), ("threads", 2)]
    for entry in found["results"]:
        assert entry["alone"]["images_per_second"] > 0
        assert entry["alone"]["cpu_ms_per_image"] > 0
        assert entry["pause 5 ms"]["ms_per_step"] >= 5
        assert 0 < entry["network"]["waiting"] < 1
    assert found["images"] == "4 drawn, 640 x 480"


def test_a_folder_may_be_measured(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos")
    found = loader.run(loader.arguments_of([*SMALL, "--network-steps", "0", "--pauses", "--data", str(folder)]))
    assert found["images"] == "photos"
    assert [list(entry) for entry in found["results"]] == [["how", "workers", "alone"]] * 2


def test_waiting_is_what_lies_between_asking_and_having(tmp_path: Path) -> None:
    """Batches that take 30 ms beside a step of 10; those before the measured steps are left out."""
    batch = loader.loader_of(loader.drawn(tmp_path, 1), spec.Input(min_size=32, max_size=53), 1, 0, "cpu").batch(0)
    numbers: list[int] = []

    def slow() -> Iterator[Batch]:
        for number in itertools.count():
            time.sleep(0.5 if number < 2 else 0.03)
            yield batch

    def step(_: Batch, number: int) -> None:
        numbers.append(number)
        time.sleep(0.01)

    waiting, seconds, used = loader.waits(slow(), 2, 5, "cpu", step)
    assert numbers == list(range(7))
    assert waiting >= 5 * 0.03
    assert seconds - waiting >= 5 * 0.01
    assert used < seconds, "it sleeps"
    assert waiting < 1.0, "the two slow ones alone take that long"


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_make_the_same_batches(tmp_path: Path, workers: int) -> None:
    section = spec.Input(min_size=64, max_size=106)
    one = loader.loader_of(loader.drawn(tmp_path, 3), section, 2, 0, "cpu")
    with loader.processes(one, range(4), workers) as batches:
        for t, batch in enumerate(batches):
            assert torch.equal(batch.images, one.batch(t).images)
            assert batch.image_index == one.indices(t)
