"""Which file and line, or option, an error in a value names."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import UserError
from bench.suite.layers import PRESETS
from bench.suite.suite import Source, load
from tests.conftest import Write

SOURCE = Source(lambda data, split: "0", lambda name: 1)


def test_a_value_is_blamed_on_the_file_that_gave_it(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suite's own line, the preset's, that of what the preset stands on, or --set; and missing weights of
    torchvision's with where to get them."""
    monkeypatch.delenv("BENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    rows = "rows: {a: {method: baseline}}\n"
    suite = load(write("preset: photo-cpu\n" + rows), source=SOURCE, data=str(tmp_path))
    line = 1 + (PRESETS / "photo-cpu.yaml").read_text().splitlines().index(
        "  weights: mobilenet_v2-b0353104.pth  # torchvision's MobileNet_V2_Weights.IMAGENET1K_V1"
    )
    with pytest.raises(UserError) as raised:
        suite.train_spec()
    assert raised.value.where == f"{PRESETS / 'photo-cpu.yaml'}:{line} detector.weights mobilenet_v2-b0353104.pth"
    get = f"get https://download.pytorch.org/models/mobilenet_v2-b0353104.pth into {tmp_path}/cache/hub/checkpoints"
    assert raised.value.hint.startswith(get)
    document = suite.document
    assert document.where("rows", "a") == f"{tmp_path / 'tiny.yaml'}:2"
    assert document.where("nowhere", "at all") == f"{tmp_path / 'tiny.yaml'}:1"

    with pytest.raises(UserError) as raised:
        load(write("preset: photo-cpu\n" + rows), source=SOURCE, sets=["schedule.lr=-1"])
    assert raised.value.where == "--set schedule.lr"
    with pytest.raises(UserError) as raised:
        load(write("preset: cpu\nschedule:\n  lr: -1\n" + rows), source=SOURCE, sets=["schedule.steps=5"])
    assert raised.value.where == f"{tmp_path / 'tiny.yaml'}:3 schedule.lr"
    replaced = load(write("schedule:\n  lr: 1\n" + rows), source=SOURCE, preset="cpu").document
    assert replaced.where("schedule", "lr").startswith(f"{PRESETS / 'cpu.yaml'}:"), "its section stands, not the file's"
