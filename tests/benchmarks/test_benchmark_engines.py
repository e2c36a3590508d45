"""The benchmark of engines measures steps that learn, beside the libraries that they are made of or written after."""

from __future__ import annotations

import pytest

from bench.engines.facts import ENGINES
from benchmarks import engines
from benchmarks.step import batch_of


def test_both_sides_of_each_pair_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(engines, "batch_of", lambda *_: batch_of(2, 128, 4, 34.0))
    monkeypatch.setattr(engines, "_sizes", lambda _: [("resnet18_fpn", 128, 2)])
    found = engines.measured("cpu", 1)
    by_engine = {pair["engine"]: pair["seconds"] for pair in found["pairs"]}
    absent = ENGINES["detectron2"].absent()
    assert set(by_engine) == ({"detr"} if absent else {"detr", "detectron2"})
    assert found["skipped"] == ({"detectron2": absent} if absent else {})
    for seconds in by_engine.values():
        assert set(seconds) == {"plain", "ours"}
        assert seconds["plain"]["ratio"] == 1.0
        assert all(one["median"] > 0 for one in seconds.values())
