"""Records keep what they were given, refuse what they do not know, and say so."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.errors import UserError
from bench.record import METRICS, PerClass, Protocol, Record, Result, dumps, format_metric, loads, metric_names, points


def protocol(**changes: Any) -> Protocol:
    fields: dict[str, Any] = {
        "data": "glyphs", "train_digest": "a" * 64, "val_digest": "b" * 64, "train_images": 700, "val_images": 120,
        "classes": 2, "split": "val", "engine": "torchvision", "engine_version": "1", "trunk": "small",
        "initialisation": "random", "reinitialised": ("classifier.weight", "classifier.bias"),
        "steps": {"base": 900, "final": 300}, "batch": {"base": 16, "final": 16}, "precision": "float32",
        "evaluator": "faster-coco-eval", "evaluator_version": "1.8.0", "max_detections": 300, "score_threshold": 1e-4,
        "nms": 0.5, "bins": (10, 100, 1000),
    }  # fmt: skip
    return Protocol(**{**fields, **changes})


def result(metrics: dict[str, float | None] | None = None, **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "evaluate_key": "e" * 64, "model_key": "m" * 64, "classes_per_bin": (1, 0, 0, 1), "protocol": protocol(),
        "metrics": metrics if metrics is not None else {"AP": 20.98, "AP1": 0.0, "AP2": None},
        "per_class": PerClass(
            category_ids=(1, 4), names=("a", "b"), instance_counts=(3, 2000), ap=(None, 41.5), ap50=(None, 60.0)
        ),
    }  # fmt: skip
    return Result(**{**fields, **changes})


def record(**changes: Any) -> Record:
    row: dict[str, Any] = {"row": "BAGS", "suite": "table1", "seed": 0, "method": "bags", "settings": {"beta": 8}}
    return Record.of(result(), **{**row, **changes})


def test_round_trip() -> None:
    for value in (result(), record(), record(environment={"host": "h", "packages": {"torch": "2"}, "dirty": None})):
        again = loads(type(value), dumps(value))
        assert again == value
        assert dumps(again) == dumps(value)
    assert record().result == result()


@given(st.dictionaries(st.sampled_from(METRICS), st.none() | st.floats(0, 100)))
def test_round_trip_of_any_metrics(metrics: dict[str, float | None]) -> None:
    value = result(metrics)
    assert loads(Result, dumps(value)).metrics == metrics
    assert list(value.metrics) == [name for name in METRICS if name in metrics]


def test_a_missing_number_is_a_dash_and_never_zero() -> None:
    assert [format_metric(v) for v in (None, math.nan, 0.0, 20.98, 0.04)] == ["-", "-", "0.0", "21.0", "0.0"]
    assert result({"AP": math.nan}).metrics == {"AP": None}
    assert points({"AP": 0.25, "APr": None, "APc": math.nan}) == {"AP": 25.0, "APr": None, "APc": None}
    with pytest.raises(ValidationError):
        result({"AP": math.inf})


def test_metric_names() -> None:
    assert METRICS == (
        "AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AP1", "AP2", "AP3", "AP4",
        "ACC", "ACC1", "ACC2", "ACC3", "ACC4", "ACCbg",
    )  # fmt: skip
    assert "AP3" not in metric_names(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": {"AP": 1.0, "mAP": 2.0}}, "mAP"),
        ({"metrics": {"AP5": 1.0}}, "AP5"),  # four bins
        ({"classes_per_bin": [1, 2]}, "4 bins"),
        ({"metrics": {"AP": "20"}}, "metrics.AP"),  # strict: no text for a number
        ({"duration": 3.0}, "duration"),
        ({"per_class": {"category_ids": [1], "names": [], "instance_counts": [], "ap": [], "ap50": []}}, "lengths"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    content = json.loads(dumps(result())) | change
    with pytest.raises(UserError, match=message) as caught:
        loads(Result, json.dumps(content), where="store/x/result.json")
    assert str(caught.value).startswith("store/x/result.json: ")


def test_unknown_protocol_field_is_refused() -> None:
    content = json.loads(dumps(result()))
    content["protocol"]["moon"] = "full"
    with pytest.raises(UserError, match=r"protocol\.moon"):
        loads(Result, json.dumps(content))


@pytest.mark.parametrize(
    ("version", "message"), [(99, "newer version: schema 99"), (0, "0 is not"), ("1", "'1' is not")]
)
def test_another_schema_is_named(version: object, message: str) -> None:
    content = json.loads(dumps(result())) | {"schema_version": version, "future": 1}
    with pytest.raises(UserError, match=message):
        loads(Result, json.dumps(content))


def test_a_file_without_a_division_is_what_it_was() -> None:
    """Byte for byte that of schema 2: an evaluation made again has the digest that others were made from."""
    content = json.loads(dumps(result()))
    assert content["schema_version"] == 2
    assert "counted_images" not in content["protocol"]
    assert content["protocol"]["settings"] is None
    divided = result(protocol=protocol(split="tune", counted_images=820))
    content = json.loads(dumps(divided))
    assert (content["schema_version"], content["protocol"]["counted_images"]) == (3, 820)
    assert loads(Result, dumps(divided)) == divided
    assert Record.of(divided, row="a", suite="s", seed=0, method="m", settings={}).result == divided


@pytest.mark.parametrize("version", [1, 2, 3])
def test_files_of_earlier_schemas_are_read(version: int) -> None:
    content = json.loads(dumps(result())) | {"schema_version": version}
    assert loads(Result, json.dumps(content)).protocol == protocol()


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"not a record|schema version None"):
        loads(Record, text)


def test_a_result_is_not_a_record() -> None:
    with pytest.raises(UserError, match="row"):
        loads(Record, dumps(result()))
    with pytest.raises(UserError, match="Extra inputs"):
        loads(Result, dumps(record()))


def test_imports_nothing_heavy() -> None:
    code = (
        "import sys, bench.record, bench.environment; print(sorted({'torch', 'pandas', 'mlflow'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
