"""The digest of all settings in a protocol: two tables that differ in one of them differ there."""

from __future__ import annotations

import pytest

from bench.lineage import model_chain
from bench.run.evaluate import settings_of
from tests.conftest import TINY, Write
from tests.planned import plan_of


def digest(write: Write, label: str, *sets: str) -> str:
    row = next(row for row in plan_of(write(TINY), *sets).rows if row.label == label)
    assert row.evaluate is not None
    predict = row.evaluate.inputs["predict"]
    first = next(stage for stage in model_chain(predict.inputs["model"]) if stage.kind == "train")
    return settings_of(first, predict.spec["test"])


@pytest.mark.parametrize(
    "changed",
    ["input.max_size=96", "input.flip=0.3", "detector.rpn.anchor_sizes=[[9, 17]]", "detector.roi.width=32",
     "schedule.lr=0.02", "schedule.momentum=0.8", "schedule.warmup=0", "test.nms=0.6", "test.score_threshold=0.01",
     "machine.precision=bfloat16"],
)  # fmt: skip
def test_any_setting_is_in_it(changed: str, write: Write) -> None:
    assert digest(write, "baseline") != digest(write, "baseline", changed)


@pytest.mark.parametrize(
    "same", ["seeds=[7]", "title=x", "data.val_instances=3", "rows.BAGS.beta=4", "machine.threads=2"]
)
def test_method_data_seed_and_machine_are_not(same: str, write: Write) -> None:
    assert digest(write, "BAGS") == digest(write, "BAGS", same)
    assert digest(write, "BAGS") == digest(write, "baseline"), "they start from one training"
