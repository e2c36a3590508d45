"""Which rows are among the best, by hand on few draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reports.figures.ranking import among_best, percent, ranking
from reports.figures.scene import Scene
from reports.load import RowResult
from tests.reports.made_records import made, made_draws


def row(
    label: str, ap: float, draws: list[float], seed: int = 0, val: str = "b", engine: str = "torchvision"
) -> RowResult:
    result = made(label, seed, AP=ap, protocol={"val_digest": val * 64, "engine": engine})
    return replace(result, draws=made_draws({"AP": np.array(draws)}, {"AP": 99}, val * 64))


def test_one_seed_is_ranked_by_its_images() -> None:
    """Draws 0 and 8 have a sample sd of sqrt 32, so D is 19 + 5.657 z; A, B, C stay at 20, 21 and 22. Where D is above
    20 A falls out, else D: 1 - Phi(1 / 5.657) = 0.4298 of a normal law."""
    rows = [row(n, ap, [ap, ap]) for n, ap in (("A", 20.0), ("B", 21.0), ("C", 22.0))]
    found = among_best([*rows, row("D", 19.0, [0.0, 8.0])], "AP")
    assert found["B"] == found["C"] == 1.0
    assert found["D"] == pytest.approx(0.4298, abs=0.025)
    assert found["A"] == pytest.approx(1 - found["D"])


def of_seeds(values: dict[str, tuple[float, ...]], vals: str, *draws: list[float]) -> list[RowResult]:
    """Rows with these values; A's draws of images at each seed lie about its value by `draws`, others' on theirs."""
    return [
        row(name, ap, [ap + x for x in (draws[seed] if draws and name == "A" else [0.0, 0.0])], seed, vals[seed])
        for name, of in values.items()
        for seed, ap in enumerate(of)
    ]


@pytest.mark.parametrize(
    ("of_a", "expected"),
    [
        # Mean 22, standard error 2, one degree of freedom: Student's below 1 / 2 is 1/2 + atan(1/2) / pi.
        ((20.0, 24.0), 0.6476),
        # Mean 22, standard error 2 / sqrt 3, two: t = 0.8660, below which is 1/2 + t / (2 sqrt(2 + t^2)).
        ((20.0, 22.0, 24.0), 0.7611),
    ],
)
def test_seeds_with_a_val_of_their_own_are_students(of_a: tuple[float, ...], expected: float) -> None:
    """D stays at 21; B and C are far ahead. A, 22 in the mean, is among the three where it is above 21. Its draws of
    images, which are of another val at each seed, add nothing."""
    count = len(of_a)
    values = {"A": of_a, "B": (900.0,) * count, "C": (990.0,) * count, "D": (21.0,) * count}
    found = among_best(of_seeds(values, "bcd", *[[-9.0, 9.0]] * count), "AP")
    assert found["A"] == pytest.approx(expected, abs=0.025)
    assert found["D"] == pytest.approx(1 - expected, abs=0.025)


def test_rows_of_equal_means_and_spreads_are_as_likely() -> None:
    """A and D have 5.33 and 5.30, and the same deviations with the other sign. Of the 27 ways to draw three of the
    seeds with replacement 19 had A ahead."""
    values = {"A": (7.33, 4.33, 4.33), "B": (900.0,) * 3, "C": (990.0,) * 3, "D": (3.3, 6.3, 6.3)}
    found = among_best(of_seeds(values, "bcd"), "AP")
    assert abs(found["A"] - found["D"]) < 0.03


def test_rows_that_are_one_share_their_place() -> None:
    values = {"A": (4.0, 6.0), "B": (900.0, 900.0), "C": (990.0, 990.0), "D": (4.0, 6.0)}
    assert among_best(of_seeds(values, "bc"), "AP")["D"] == pytest.approx(0.5, abs=0.03)


def test_images_that_seeds_share_are_drawn_less_what_the_seeds_have_of_them() -> None:
    """Seeds agree on 22, so images alone move A. Draws of -1/sqrt 2 and +1/sqrt 2 at both seeds: variance 1, and A is
    above 21 in 84.13 % of a normal law. Where the seeds' draws oppose one another, the images move nothing but what the
    seeds have: A stays above."""
    values = {"A": (22.0, 22.0), "B": (900.0, 900.0), "C": (990.0, 990.0), "D": (21.0, 21.0)}
    up = [-(0.5**0.5), 0.5**0.5]
    assert among_best(of_seeds(values, "bb", up, up), "AP")["A"] == pytest.approx(0.8413, abs=0.025)
    assert among_best(of_seeds(values, "bb", up, up[::-1]), "AP")["A"] == 1.0


def test_a_share_of_draws_is_never_printed_as_none_or_all() -> None:
    shares = (0.0, 0.0049, 0.006, 0.5, 0.994, 0.996, 1.0)
    assert [percent(share) for share in shares] == ["<1", "<1", "1", "50", "99", ">99", ">99"]


def test_the_caption_says_over_how_many_seeds() -> None:
    values = {"A": (22.0, 23.0, 24.0), "B": (30.0,) * 3, "C": (40.0,) * 3, "D": (21.0,) * 3}
    own, shared = ranking(Scene(of_seeds(values, "bcd"))), ranking(Scene(of_seeds(values, "bbb")))
    assert own is not None
    assert shared is not None
    said = " ".join(own.figure.get_label().split())
    assert "among the best 3, over 3 seeds, by Student's law as the intervals are; all rows" in said
    assert "over 3 seeds, by Student's law as the intervals are, and over the val images that they share" in " ".join(
        shared.figure.get_label().split()
    )


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
    assert [text.get_text() for text in axes.texts] == [">99", "<1", ">99", ">99"]


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
