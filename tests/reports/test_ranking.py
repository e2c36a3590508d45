"""Which rows are among the best, by hand on few draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reports.figures.ranking import among_best, ranking
from reports.figures.scene import Scene
from reports.load import Draws, RowResult
from tests.reports.made_records import made


def row(
    label: str, ap: float, draws: list[float], seed: int = 0, val: str = "b", engine: str = "torchvision"
) -> RowResult:
    result = made(label, seed, AP=ap, protocol={"val_digest": val * 64, "engine": engine})
    return replace(result, draws=Draws({"AP": np.array(draws)}, {"AP": 99}, val * 64))


def test_one_seed_is_ranked_on_its_draws_of_images() -> None:
    """Centred draws of D are -4 and +4: 19 - 4 and 19 + 4; A, B, C stay at 20, 21 and 22. With D at 23 C is first, D
    before it, and A falls out; with D at 15 it is D that is not among the three."""
    rows = [row(n, ap, [ap, ap]) for n, ap in (("A", 20.0), ("B", 21.0), ("C", 22.0))]
    found = among_best([*rows, row("D", 19.0, [0.0, 8.0])], "AP")
    assert found["B"] == found["C"] == 1.0
    assert found["D"] == pytest.approx(0.5, abs=0.04)
    assert found["A"] == pytest.approx(1 - found["D"])


def test_seeds_with_a_val_of_their_own_are_drawn() -> None:
    """A is 20 and 24, D 21 and 21: widened by sqrt 2, A's mean is 22 less or more 2 * sqrt 2 in a quarter of the draws
    each, and 22 in half of them; D's is 21 throughout. B and C are ahead of both."""
    rows = [
        row(name, ap, [ap, ap + 9], seed, "bc"[seed])
        for name, values in (("A", (20.0, 24.0)), ("B", (40.0, 40.0)), ("C", (50.0, 50.0)), ("D", (21.0, 21.0)))
        for seed, ap in enumerate(values)
    ]
    found = among_best(rows, "AP")
    assert found["A"] == pytest.approx(0.75, abs=0.03)
    assert found["D"] == pytest.approx(0.25, abs=0.03)


def test_rows_that_cannot_be_ranked_are_left_out() -> None:
    rows = [row(n, ap, [ap, ap]) for n, ap in (("A", 20.0), ("B", 21.0), ("C", 22.0), ("D", 23.0))]
    assert set(among_best([*rows, made("E", AP=99.0)], "AP")) == {"A", "B", "C", "D"}
    assert among_best(rows[:3], "AP") == {}
    assert among_best(rows, "AP1") == {}
    assert ranking(Scene(rows[:3])) is None


def test_the_figure_has_a_bar_for_each_row() -> None:
    rows = [row(n, ap, [ap, ap]) for n, ap in (("A", 20.0), ("B", 21.0), ("C", 22.0), ("D", 23.0))]
    drawing = ranking(Scene(rows, order=("D", "A")))
    assert drawing is not None
    assert drawing.lines == (("D", "AP", 100.0), ("A", "AP", 0.0), ("B", "AP", 100.0), ("C", "AP", 100.0))
    (axes,) = drawing.figure.axes
    assert [text.get_text() for text in axes.texts] == ["100", "0", "100", "100"]


def test_rows_of_two_engines_are_not_ranked_together() -> None:
    """The best row of all is last of its own engine; three rows of another engine are too few."""
    rows = [row(n, ap, [ap, ap]) for n, ap in (("A", 20.0), ("B", 21.0), ("C", 22.0), ("D", 23.0))]
    others = [row(n, ap, [ap, ap], engine="detr") for n, ap in (("E", 30.0), ("F", 31.0), ("G", 32.0), ("H", 33.0))]
    drawing = ranking(Scene([*rows, *others]))
    assert drawing is not None
    zero = [label for label, _, percent in drawing.lines if percent == 0.0]
    assert zero == ["A", "E"]
    assert "best 3 of its engine" in drawing.figure.get_supxlabel()
    few = ranking(Scene([*rows, *others[:3]]))
    assert few is not None
    assert [label for label, *_ in few.lines] == ["A", "B", "C", "D"]
