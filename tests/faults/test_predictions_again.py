"""What is made of stored predictions is kept beside the evaluation, and never taken from anything else."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from test_changed_results import WORDS, change
from tiny_suite import SMOKE, Undisturbed, key_of

from bench.errors import UserError
from bench.evaluation.resample import PASSES
from bench.evaluation.stored import DETECTIONS, PROPOSALS
from bench.store.done import format_done
from bench.store.store import Store
from reports.load import RESULT, RowResult, load
from reports.predictions import with_kept, with_predictions
from tests.conftest import Bench


@pytest.fixture
def store(smoke: Undisturbed, tmp_path: Path) -> Store:
    """A finished store of its own, without kept draws."""
    copied = Path(shutil.copytree(smoke.root, tmp_path / "store", symlinks=True))
    for kept in copied.glob("*/draws-*"):
        kept.unlink()
    return Store(copied)


def made(smoke: Undisturbed, store: Store) -> tuple[list[RowResult], list[tuple[str, int]]]:
    told: list[tuple[str, int]] = []
    kept = with_kept(store, smoke.plan.stages, load(store, smoke.plan))
    rows = with_predictions(store, smoke.plan.stages, kept, lambda row, number: told.append((row.record.row, number)))
    return rows, told


def test_they_are_made_once_and_paired(smoke: Undisturbed, store: Store) -> None:
    rows, told = made(smoke, store)
    assert sum(number for _, number in told) == PASSES * len(rows)
    for row in rows:
        assert row.draws is not None
        assert {name: len(values) for name, values in row.draws.values.items()} == dict.fromkeys(
            ("AP", "AP50", "AP75", "APr", "APc", "APf", "AP1", "AP2", "AP3", "AP4"), 1000
        )
        recorded, drawn = row.record.metrics["AP"], row.draws.values["AP"]
        assert recorded is not None
        # The recorded value lies among the draws, and they differ.
        assert drawn.min() <= recorded <= drawn.max()
        assert drawn.std() > 0
        assert 0 < row.draws.without["AP"].std() < drawn.std()
    again, told = made(smoke, store)
    assert told == []
    for one, other in zip(rows, again, strict=True):
        assert one.draws is not None
        assert other.draws is not None
        assert other.draws.images == one.draws.images
        assert one.draws.without.keys() == one.draws.values.keys()
        for of in ("values", "without"):
            for name, values in getattr(one.draws, of).items():
                np.testing.assert_allclose(getattr(other.draws, of)[name], values, rtol=1e-6)


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_damaged_file_is_made_again(smoke: Undisturbed, store: Store, content: bytes | None) -> None:
    made(smoke, store)
    key = key_of(smoke.plan, "BAGS", "evaluate")
    (path,) = store.folder(key).glob("draws-*")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    _, told = made(smoke, store)
    assert {row for row, _ in told} == {"BAGS"}
    assert path.read_bytes() == whole


def test_what_an_older_version_kept_is_made_anew(smoke: Undisturbed, store: Store) -> None:
    """It had no blocks, and another name; one of the new name without them is no whole file."""
    made(smoke, store)
    (path,) = store.folder(key_of(smoke.plan, "BAGS", "evaluate")).glob("draws-2-*")
    whole = path.read_bytes()
    arrays = safetensors.numpy.load(whole)
    older = {name: array for name, array in arrays.items() if not name.startswith("without a block ")}
    assert len(older) < len(arrays)
    path.write_bytes(safetensors.numpy.save(older))
    _, told = made(smoke, store)
    assert {row for row, _ in told} == {"BAGS"}
    assert path.read_bytes() == whole


def test_changed_predictions_are_refused(smoke: Undisturbed, store: Store) -> None:
    path = store.output(key_of(smoke.plan, "BAGS", "predict")) / DETECTIONS
    change(path)
    with pytest.raises(UserError, match="sha256 differs"):
        made(smoke, store)


def test_predictions_that_give_another_ap_are_refused(smoke: Undisturbed, store: Store) -> None:
    rows = load(store, smoke.plan)
    wrong = [r.record.model_copy(update={"metrics": {**r.record.metrics, "AP": 50.0}}) for r in rows]
    with pytest.raises(UserError, match="the record of this evaluation has 50"):
        with_predictions(
            store, smoke.plan.stages, [RowResult.of(one, None) for one in wrong], lambda *_: None
        )  # fmt: skip


def test_a_store_that_may_only_be_read(smoke: Undisturbed, store: Store) -> None:
    if os.geteuid() == 0:
        # Root may write anywhere: a folder in the way of the file is as good.
        for row in load(store, smoke.plan):
            predicted = store.done(smoke.plan.stages[row.record.evaluate_key].inputs["predict"].key)
            assert predicted is not None
            (store.folder(row.record.evaluate_key) / f"draws-1-1000-{predicted.digest[:16]}.safetensors").mkdir()
    rows, _ = made(smoke, store)
    assert all(row.draws is not None for row in rows)


def test_report_makes_them_unless_told_not_to(smoke: Undisturbed, store: Store, call: Bench) -> None:
    where = ("--store", str(store.root), "--out", str(store.root / "out"))
    shown = call("report", SMOKE, *WORDS, *where, "--no-intervals")
    assert shown.code == 0, shown.err
    assert not list(store.root.glob("*/draws-*"))
    assert not (store.root / "out" / "intervals.csv").exists()
    shown = call("report", SMOKE, *WORDS, *where)
    assert shown.code == 0, shown.err
    results = list(store.root.glob(f"*/attempts/*/outputs/{RESULT}"))
    assert len(list(store.root.glob("*/draws-*"))) == len(results)
    assert "no interval, as fewer than 30 val images" in " ".join(shown.out.split())
    lines = (store.root / "out" / "intervals.csv").read_text().splitlines()
    assert lines[0].startswith("row,metric,seeds,value,low,high,base")
    gone = call("gc", "--store", str(store.root))
    assert "0 stages, 0.0 MB in all can be freed" in gone.out


def test_error_kinds_are_kept_and_come_back_as_they_were(smoke: Undisturbed, store: Store) -> None:
    rows, _ = made(smoke, store)
    (kept, *_) = store.folder(key_of(smoke.plan, "BAGS", "evaluate")).glob("errors-*")
    again, _ = made(smoke, store)
    assert [row.errors for row in again] == [row.errors for row in rows]
    for row in rows:
        assert row.errors is not None
        whole = row.errors.groups["AP"]
        assert whole.boxes == whole.found + whole.counts.missed + sum(
            group.boxes - group.found - group.counts.missed
            for name, group in row.errors.groups.items()
            if name[2:].isdigit()
        )
        assert whole.counts.background == sum(
            group.counts.background for name, group in row.errors.groups.items() if name[2:].isdigit()
        )
    kept.write_text("{}")
    again, told = made(smoke, store)
    assert [row.errors for row in again] == [row.errors for row in rows]
    assert told == []  # draws are still there


def test_more_metrics_are_kept_and_come_back_as_they_were(smoke: Undisturbed, store: Store) -> None:
    for kept in store.root.glob("*/more-*"):
        kept.unlink()
    rows, _ = made(smoke, store)
    (path, *_) = store.folder(key_of(smoke.plan, "BAGS", "evaluate")).glob("more-*")
    again, _ = made(smoke, store)
    assert [row.more for row in again] == [row.more for row in rows]
    for row in rows:
        assert row.more is not None
        assert row.more.recall is not None
        assert row.more.stored <= row.record.protocol.max_detections
        for name, one in row.more.pooled.items():
            recorded = row.record.metrics[name]
            # No limit bites, so that AP-fixed is the recorded AP.
            assert (None if one.fixed is None else pytest.approx(100 * one.fixed, abs=1e-6)) == recorded
            assert row.more.recall.groups[name].boxes == one.boxes
    for damaged in (
        "{}",
        path.read_text()[:-20],
        "[[",
        '{"calibration": {}, "pooled": {}, "recall": null, "stored": 1}',
    ):
        path.write_text(damaged)
        again, told = made(smoke, store)
        assert [row.more for row in again] == [row.more for row in rows]
        assert told == []  # draws are still there


def test_without_proposals_there_is_no_recall(smoke: Undisturbed, store: Store) -> None:
    for kept in store.root.glob("*/more-*"):
        kept.unlink()
    kept_rows = with_kept(store, smoke.plan.stages, load(store, smoke.plan))
    key = key_of(smoke.plan, "BAGS", "predict")
    done = store.done(key)
    assert done is not None
    rest = {
        part: {file: value for file, value in getattr(done, part).items() if file != PROPOSALS}
        for part in ("digests", "sizes")
    }
    assert rest["digests"].keys() < done.digests.keys()
    (store.folder(key) / "done").write_bytes(format_done(replace(done, **rest)))
    rows = with_predictions(Store(store.root), smoke.plan.stages, kept_rows, lambda *_: None)
    found = {row.record.row: row.more for row in rows}
    assert found["BAGS"] is not None
    assert found["BAGS"].recall is None
    assert found["BAGS"].calibration["AP"].count > 0
    assert all(more is not None and (more.recall is None) == (label == "BAGS") for label, more in found.items())
