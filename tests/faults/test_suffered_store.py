"""A finished store beside bad input, and one whose files were cut or changed: nothing wrong is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from refused import refused, tree

from bench.cli.open import open_suite
from bench.evaluation.stored import DETECTIONS
from bench.plan import planning
from bench.plan.planning import Plan
from bench.run.model import WEIGHTS
from bench.store.store import Store
from tests.conftest import TINY, Bench
from tests.tiny_suite import bring


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """The tiny suite, run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY)
    suite = open_suite(folder / "tiny.yaml")
    outcomes = bring(suite, folder / "store")
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    return planning.make(suite), folder


def digests(plan: Plan, root: Path) -> dict[str, str]:
    store = Store(root)
    found = {key: store.done(key) for key in plan.stages}
    return {key: done.digest for key, done in found.items() if done is not None}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_bad_input_leaves_a_finished_store_as_it_is(call: Bench, finished: tuple[Plan, Path]) -> None:
    _, folder = finished
    before = tree(folder / "store")
    for words in (["--set", "schedule.stps=3"], ["--only", "BAG"], ["--preset", "cpo"], ["--set", "test.bins=[3, 2]"]):
        refused(call("run", folder / "tiny.yaml", "--store", folder / "store", *words))
    assert tree(folder / "store") == before


@pytest.mark.slow
def test_corrupt_files_of_a_store_are_redone_and_never_loaded(
    bench: Bench, finished: tuple[Plan, Path], tmp_path: Path
) -> None:
    plan, folder = finished
    root = tmp_path / "store"
    shutil.copytree(folder / "store", root)
    before = digests(plan, root)
    assert set(before) == set(plan.stages)
    store = Store(root)
    evaluated = {row.label: row.evaluate for row in plan.rows if row.evaluate is not None}
    predicted = {label: stage.inputs["predict"] for label, stage in evaluated.items()}
    model = {label: stage.inputs["model"] for label, stage in predicted.items()}

    cut(store.output(model["baseline"].key) / WEIGHTS)  # a weights file that is too short
    detections = store.output(predicted["baseline"].key) / DETECTIONS
    content = bytearray(detections.read_bytes())
    content[-1] ^= 1
    detections.write_bytes(content)  # a bit that turned: found when somebody reads it
    cut(store.folder(evaluated["baseline"].key) / "done")
    attempt = store.attempts(model["BAGS"].key)[-1]
    (store.folder(model["BAGS"].key) / "done").unlink()
    (attempt / "checkpoint-1.safetensors").write_bytes(b"not a checkpoint")
    cut(store.folder(predicted["BAGS"].key) / "stage.json")
    (store.folder(evaluated["BAGS"].key) / "done").write_bytes(b"")

    ran = bench("run", folder / "tiny.yaml", "--store", root)
    assert ran.code == 0, ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
    assert digests(plan, root) == before
    for stage in (model["baseline"], predicted["baseline"], evaluated["baseline"], model["BAGS"], evaluated["BAGS"]):
        assert len(Store(root).attempts(stage.key)) == 2, stage.kind
        assert Store(root).verify(stage.key)
    assert json.loads((store.folder(predicted["BAGS"].key) / "stage.json").read_text())["key"] == predicted["BAGS"].key
