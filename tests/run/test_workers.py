"""machine.workers in real jobs over image files: other threads make the batches, and no bit of a result changes."""

from __future__ import annotations

import json
import signal
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_suite import bring, digests, key_of, work

from bench.cli.open import open_suite
from bench.data.ahead import THREADS
from bench.data.split import Split
from bench.lineage import features_stage
from bench.plan import planning
from bench.plan.planning import Plan
from bench.run import job, loading
from bench.run.job import Job, Outcome
from bench.run.work import StopFlag, Work
from bench.spec import Machine
from bench.stage import Stage
from bench.store.store import Store
from bench.suite.suite import Suite

TRAIN_IMAGES, VAL_IMAGES = 10, 6
STEPS, HEAD_STEPS, BATCH = 5, 3, 4
SUITE = f"""\
preset: cpu
data: {{name: lvis, path: FOLDER}}
input: {{min_size: 64, max_size: 96, flip: 0.5, scale_jitter: [0.7, 1.2]}}
schedule: {{steps: {STEPS}, batch: {BATCH}, lr: 0.01, warmup: 1, checkpoint_every: 2}}
stages:
  classifier_only: {{steps: {HEAD_STEPS}, lr: 0.01}}
test: {{bins: [2, 4, 8], batch: 2}}
rows:
  baseline: {{method: baseline}}
  cls-retrain: {{method: cls_retrain, keep_classifier: true}}
  BAGS: {{method: bags}}
  NCM: {{method: ncm}}
"""


def write_folder(root: Path) -> None:
    """JPEG files of several sizes, with two boxes each of three classes."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    number = 0
    for split, count in (("train", TRAIN_IMAGES), ("val", VAL_IMAGES)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(count):
            number += 1
            height, width = (72, 96) if i % 2 else (96, 80)
            coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((width, height)).save(root / "images" / f"{number}.jpg", quality=90)
            images.append({"id": number, "file_name": f"{number}.jpg", "width": width, "height": height})
            images[-1] |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
            for k in range(2):
                box = [4 + 30 * k, 6 + 20 * k, 28, 24]
                entry = {"id": 2 * number + k, "image_id": number, "category_id": 1 + (i * (k + 1)) % 3, "bbox": box}
                annotations.append({**entry, "area": box[2] * box[3], "segmentation": [[0, 0, 1, 0, 1, 1]]})
        categories = [{"id": c, "name": f"c{c}"} for c in (1, 2, 3)]
        document = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(document))


def suite_of(folder: Path, workers: int | str, *sets: str) -> Suite:
    path = folder / "photos.yaml"
    path.write_text(SUITE.replace("FOLDER", str(folder / "photos")))
    return open_suite(path, sets=[f"machine.workers={workers}", *sets])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    write_folder(folder / "photos")
    return folder


@dataclass(frozen=True)
class Brought:
    """A store with all stages, and the thread of every image that was decoded, by kind of stage."""

    root: Path
    suite: Suite
    plan: Plan
    features: Stage
    threads: Mapping[str, list[str]]


def record_threads(patch: pytest.MonkeyPatch) -> Mapping[str, list[str]]:
    """Kind of stage -> name of the thread that decoded an image for it, once an image."""
    found: dict[str, list[str]] = defaultdict(list)
    kinds = ["none"]
    execute, pixels = Job._execute, Split.pixels

    def executed(self: Job, store: Store, works: list[Work]) -> dict[str, Outcome]:
        kinds.append(works[0].stage.kind)
        return execute(self, store, works)

    def noted(self: Split, i: int) -> NDArray[np.uint8]:
        found[kinds[-1]].append(threading.current_thread().name)
        return pixels(self, i)

    patch.setattr(job.Job, "_execute", executed)
    patch.setattr(Split, "pixels", noted)
    return found


@pytest.fixture(scope="module", params=[0, 3])
def brought(request: pytest.FixtureRequest, folder: Path) -> Brought:
    """All stages of the suite, and the features of its baseline."""
    suite = suite_of(folder, request.param)
    plan, root = planning.make(suite), folder / f"store{request.param}"
    features = features_stage(plan.stages[key_of(plan, "baseline", "predict")], ["box_features"])
    with pytest.MonkeyPatch.context() as patch:
        threads = record_threads(patch)
        outcomes = bring(suite, root)
        Store(root).add(features)
        outcomes |= work(root, suite, (features.key,))
    assert {(outcome.state, outcome.message) for outcome in outcomes.values()} == {("done", "")}
    return Brought(root, suite, plan, features, threads)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Mapping[str, str | None]:
    """What each stage holds where nothing is said of workers: on a CPU, none are taken."""
    suite, root = suite_of(folder, "auto", "machine.device=cpu"), folder / "reference"
    bring(suite, root)
    return digests(planning.make(suite), root)


def test_threads_change_no_bit(brought: Brought, reference: Mapping[str, str | None]) -> None:
    """Weights, class means, detections, AP: every stage has the key and the content it has without threads."""
    kinds = {stage.kind for stage in brought.plan.stages.values()}
    assert kinds == {"data", "train", "fit", "patch", "predict", "evaluate"}
    assert None not in reference.values()
    assert digests(brought.plan, brought.root) == reference


def test_other_threads_decode_and_each_image_once(brought: Brought) -> None:
    """Two trainings and two predictions, since the two classifiers are trained and predicted in one pass, as are the
    baseline and NCM predicted; a fit and a features stage."""
    workers = brought.suite.sections.machine.workers
    expected = {
        "train": (STEPS + HEAD_STEPS) * BATCH, "fit": TRAIN_IMAGES, "predict": 2 * VAL_IMAGES, "features": VAL_IMAGES,
    }  # fmt: skip
    assert {kind: len(names) for kind, names in brought.threads.items()} == expected
    for kind, names in brought.threads.items():
        assert {name.startswith(THREADS) for name in names} == {workers > 0}, kind  # type: ignore[operator]
        assert len(set(names)) <= max(1, int(workers))


def test_the_record_says_how_many_there_were(brought: Brought) -> None:
    workers = brought.suite.sections.machine.workers
    store = Store(brought.root)
    for key, stage in [*brought.plan.stages.items(), (brought.features.key, brought.features)]:
        done = store.done(key)
        assert done is not None
        made = stage.kind in ("train", "fit", "predict", "features")
        assert done.environment.get("workers") == (workers if made else None), stage.kind


def test_no_thread_is_left(brought: Brought) -> None:
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(THREADS)]


class StopAfter(StopFlag):
    """As if a SIGTERM came before the step after these."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def check(self) -> None:
        if self.left == 0:
            self.receive([signal.SIGTERM])
        self.left -= 1
        super().check()


@pytest.mark.parametrize("step", [1, 3])
def test_a_stopped_training_leaves_no_thread_and_goes_on_exactly(
    folder: Path, tmp_path: Path, reference: Mapping[str, str | None], step: int
) -> None:
    suite = suite_of(folder, 3)
    plan, root = planning.make(suite), tmp_path / "store"
    key = key_of(plan, "baseline")
    bring(suite, root, only=lambda one: plan.stages[one].kind == "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "StopFlag", lambda: StopAfter(step))
        assert work(root, suite, (key,))[key].state == "stopped"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(THREADS)]
    assert Store(root).saved(key) == step
    with pytest.MonkeyPatch.context() as patch:
        threads = record_threads(patch)
        assert work(root, suite, (key,))[key].state == "done"
    assert len(threads["train"]) == (STEPS - step) * BATCH, "it decodes from where it goes on"
    assert digests(plan, root)[key] == reference[key]


@pytest.mark.parametrize("kind", ["train", "fit", "predict"])
def test_an_undecodable_image_is_named_and_no_thread_is_left(tmp_path: Path, kind: str) -> None:
    write_folder(tmp_path / "photos")
    suite = suite_of(tmp_path, 3)
    plan, root = planning.make(suite), tmp_path / "store"
    before = {"train": ("data",), "fit": ("data", "train"), "predict": ("data", "train")}[kind]
    bring(suite, root, only=lambda one: plan.stages[one].kind in before)
    key = key_of(plan, "baseline", "predict" if kind == "predict" else "train")
    if kind == "fit":
        key = next(one for one, stage in plan.stages.items() if stage.kind == "fit")
    for image in (tmp_path / "photos" / "images").iterdir():
        image.write_bytes(image.read_bytes()[:100])
    outcome = work(root, suite, (key,))[key]
    assert (outcome.state, outcome.code) == ("failed", 2)
    assert "cannot decode this image" in outcome.message
    assert str(tmp_path / "photos" / "images") in outcome.message
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(THREADS)]


@pytest.mark.parametrize(
    ("workers", "device", "files", "cores", "count"),
    [
        ("auto", "cpu", True, 64, 0),  # the training has the core
        ("auto", "cuda", False, 64, 0),  # nothing to decode
        ("auto", "cuda", True, 64, 4),
        ("auto", "cuda", True, 3, 2),
        ("auto", "cuda", True, 1, 1),  # while the GPU computes, its process waits
        (2, "cpu", True, 64, 2),
        (7, "cuda", False, 2, 7),
        (0, "cuda", True, 64, 0),
    ],
)
def test_what_auto_means(
    monkeypatch: pytest.MonkeyPatch, workers: int | str, device: str, files: bool, cores: int, count: int
) -> None:
    monkeypatch.setattr(loading, "_cores", lambda: cores)
    machine = Machine.model_validate({"workers": workers})
    assert loading.count_of(machine, device, files=files) == count
