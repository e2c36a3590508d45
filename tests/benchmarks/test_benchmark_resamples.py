"""What intervals cost, on a few images: it runs, and is the evaluation where nothing is drawn."""

from __future__ import annotations

from benchmarks.evaluation import TOLERANCE
from benchmarks.resamples import cost


def test_it_is_counted_what_was_drawn() -> None:
    found = cost(30, 40, 25, draws=20, blocks=500)
    assert (found["draws"], found["blocks"]) == (20, 30)  # a block for each image
    assert found["largest_difference"] <= TOLERANCE
    assert all(seconds > 0 for seconds in found["cpu"].values())
    assert found["peak_mb"] > 0
