"""What the trainings of a row cost: minutes and memory, over seeds."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from reports.figures.cost import cost
from reports.figures.scene import Scene
from reports.load import RowResult
from reports.trainings import Training, _seconds
from tests.reports.made_records import made


def training(number: int, seconds: float | None, steps: int, **memory: float) -> Training:
    return Training(number, (1,), {}, False, steps, seconds, memory)


def row(label: str, seed: int, *chain: Training) -> RowResult:
    return replace(made(label, seed), trainings=chain)


ROWS = (
    row("baseline", 0, training(1, 60.0, 300, host=500.0)),
    row("baseline", 1, training(1, 120.0, 300, host=600.0)),
    row("2DRCL", 0, training(1, 240.0, 100, host=900.0), training(2, 60.0, 300, host=500.0)),
)


def test_minutes_steps_and_memory_are_means_over_seeds() -> None:
    drawing = cost(Scene(ROWS, order=("2DRCL", "baseline")))
    assert drawing is not None
    found = {line[:3]: line[3:] for line in drawing.lines}
    assert found["baseline", "training 1", "minutes"] == (1.5, pytest.approx(0.5**0.5), 2)
    assert found["baseline", "training 1", "seconds of a step"] == (pytest.approx(0.3), pytest.approx(0.1 * 2**0.5), 2)
    assert found["baseline", "training 1", "host MB"][0] == 550.0
    assert found["2DRCL", "training 1", "minutes"] == (4.0, None, 1)
    assert found["2DRCL", "training 1", "steps"][0] == 100.0
    time_axes, memory_axes = drawing.figure.axes
    assert [text.get_text() for text in time_axes.get_yticklabels()] == ["2DRCL", "baseline"]
    assert [text.get_text() for text in time_axes.texts] == ["5.0", "1.5"]
    assert [text.get_text() for text in memory_axes.texts] == ["900", "550"]
    assert memory_axes.get_xlabel() == "most memory of the process (MB)"


def test_a_gpu_s_memory_stands_for_the_host_s_where_there_is_one() -> None:
    drawing = cost(Scene([row("baseline", 0, training(1, 60.0, 300, host=900.0, gpu=400.0))]))
    assert drawing is not None
    assert drawing.figure.axes[1].get_xlabel() == "most memory of the GPU (MB)"
    assert [text.get_text() for text in drawing.figure.axes[1].texts] == ["400"]


def test_a_row_without_a_known_time_is_not_drawn() -> None:
    assert cost(Scene([row("baseline", 0, training(1, None, 300))])) is None
    assert cost(Scene([made("baseline")])) is None


@pytest.mark.parametrize(
    ("seconds", "extra", "whole"),
    [
        (50.0, {}, 50.0),
        (50.0, {"own_seconds": 30.0, "shared_seconds": 10.0, "part": 0.5}, 80.0),  # half of it was resumed
        (50.0, {"own_seconds": 0.0, "shared_seconds": 0.0, "part": 0.0}, None),
    ],
)
def test_the_time_of_all_steps(seconds: float, extra: dict[str, float], whole: float | None) -> None:
    assert _seconds(SimpleNamespace(seconds=seconds, extra=extra)) == whole  # type: ignore[arg-type]
