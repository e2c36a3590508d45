"""What is made again when something of a finished store is gone, rotten or different, and what is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_suite import (
    HEADS,
    Undisturbed,
    attempts,
    below,
    bring,
    copied,
    digests,
    flip_bit,
    key_of,
    tiny,
    work,
)

from bench.plan import planning
from bench.run.checkpoint import read_tensors, save, write_tensors
from bench.store.store import Store


@pytest.fixture
def root(smoke: Undisturbed, tmp_path: Path) -> Path:
    """A copy of the finished store."""
    return copied(smoke.root, tmp_path / "store", set(smoke.plan.stages))


def changed(smoke: Undisturbed, root: Path, before: dict[str, tuple[str, ...]]) -> set[str]:
    after = attempts(smoke.plan, root)
    return {key for key in after if after[key] != before[key]}


def test_nothing_to_do(smoke: Undisturbed, root: Path) -> None:
    assert bring(smoke.suite, root) == {}


@pytest.mark.parametrize("kind", ["train", "predict"])
def test_a_deleted_stage_is_redone_and_nothing_else(smoke: Undisturbed, root: Path, kind: str) -> None:
    """Its digests are the same, so whatever was made from it stands."""
    before = attempts(smoke.plan, root)
    key = key_of(smoke.plan, "baseline", kind)
    shutil.rmtree(root / key)
    outcomes = bring(smoke.suite, root)
    assert set(outcomes) == {key}
    assert changed(smoke, root, before) == {key}
    assert digests(smoke.plan, root) == smoke.digests()


def test_deleted_data_is_redone_and_nothing_else(smoke: Undisturbed, root: Path) -> None:
    before = attempts(smoke.plan, root)
    keys = {key for key, stage in smoke.plan.stages.items() if stage.kind == "data"}
    for key in keys:
        shutil.rmtree(root / key)
    bring(smoke.suite, root)
    assert changed(smoke, root, before) == keys
    assert digests(smoke.plan, root) == smoke.digests()


def test_other_weights_redo_all_that_is_made_from_them(smoke: Undisturbed, root: Path) -> None:
    """The baseline comes back with other bits, as from another kind of CPU."""
    before = attempts(smoke.plan, root)
    key = key_of(smoke.plan, "baseline")
    other = made_again(root, key)
    stale = below(smoke.plan, key) - {key}
    assert len(stale) == 17  # four trainings, a patch, and six rows' predictions and evaluations
    bring(smoke.suite, root)
    assert changed(smoke, root, before) - {key} == stale
    assert digests(smoke.plan, root)[key] == other
    store = Store(root)
    for consumer in smoke.plan.consumers(key):
        done = store.done(consumer.key)
        assert done is not None
        assert other in done.inputs.values()
    assert bring(smoke.suite, root) == {}


def made_again(root: Path, key: str) -> str:
    """Finish a stage anew with slightly different weights; its new digest."""
    store = Store(root)
    old = store.done(key)
    assert old is not None
    files = {path.name: path.read_bytes() for path in store.output(key).iterdir()}
    tensors = read_tensors(store.output(key) / "model.safetensors")
    store.discard(key)
    lease = store.acquire(key)
    assert lease is not None
    with lease:
        attempt = store.begin(key, lease)
        for name, data in files.items():
            (attempt.outputs / name).write_bytes(data)
        moved = {n: t * (1 + 2**-20) if t.is_floating_point() else t for n, t in tensors.items()}
        write_tensors(attempt.outputs / "model.safetensors", moved)
        assert store.finish(attempt, inputs=old.inputs, seconds=1.0, environment={}, extra={})
    done = Store(root).done(key)
    assert done is not None
    assert done.digest != old.digest
    return done.digest


@pytest.mark.parametrize("rotten", ["baseline", "BAGS"])
def test_rotten_weights_are_made_again_and_never_loaded(smoke: Undisturbed, root: Path, rotten: str) -> None:
    """One bit, and the size is right. BAGS reads its own classifier and, along its lineage, the baseline's trunk."""
    key, reader = key_of(smoke.plan, rotten), key_of(smoke.plan, "BAGS", "predict")
    flip_bit(Store(root).output(key) / "model.safetensors")
    assert Store(root).done(key) is not None  # nobody has looked inside yet
    shutil.rmtree(root / reader)
    outcomes = bring(smoke.suite, root)
    assert set(outcomes) == {key, reader}
    assert len(attempts(smoke.plan, root)[reader]) == 1  # it waited; it did not try and fail
    assert digests(smoke.plan, root) == smoke.digests()


def test_a_lineage_with_holes_is_filled_from_below(smoke: Undisturbed, root: Path) -> None:
    """The head is there, its trunk and what was predicted are not."""
    keys = {
        key_of(smoke.plan, "baseline"),
        key_of(smoke.plan, "BAGS", "predict"),
        key_of(smoke.plan, "BAGS", "evaluate"),
    }
    for key in keys:
        shutil.rmtree(root / key)
    outcomes = bring(smoke.suite, root)
    assert {key: outcome.state for key, outcome in outcomes.items()} == dict.fromkeys(keys, "done")
    assert digests(smoke.plan, root) == smoke.digests()


def test_a_job_that_comes_too_early_waits(smoke: Undisturbed, root: Path) -> None:
    """The driver saw the trunk; before the job began, somebody found it rotten and put it away."""
    Store(root).discard(key_of(smoke.plan, "baseline"))
    reader = key_of(smoke.plan, "BAGS", "predict")
    Store(root).discard(reader)
    outcomes = work(root, smoke.suite, (reader,))
    assert outcomes[reader].state == "waiting"
    assert Store(root).failure(reader) is None


def test_heads_do_not_go_on_over_another_trunk(smoke: Undisturbed, root: Path) -> None:
    """Checkpoints that were made from a trunk which has since come back with other bits are passed over."""
    heads = [key_of(smoke.plan, label) for label in HEADS]
    for key in heads:
        shutil.rmtree(root / key)
    store = Store(root)
    for key in heads:
        store.add(smoke.plan.stages[key])
        lease = store.acquire(key)
        assert lease is not None
        with lease:
            attempt = store.begin(key, lease)
        save(
            attempt.folder, 10, {"model/classifier.fc.weight": torch.zeros(1)}, {"key": key, "inputs": {"init": "old"}}
        )
        assert Store(root).saved(key) == 10
    bring(smoke.suite, root)
    assert digests(smoke.plan, root) == smoke.digests()


def test_a_plan_without_a_row_leaves_its_stages_alone(smoke: Undisturbed, root: Path) -> None:
    part = planning.make(tiny(only="baseline,BAGS"))
    assert set(part.stages) < set(smoke.plan.stages)
    assert bring(part.suite, root) == {}
