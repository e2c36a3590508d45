"""Figures of images: how much of a map is in the boxes, the error of a reconstruction, what is drawn of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reports.figures.pictures import attention, error, reconstructions, shares
from reports.figures.scene import Scene
from reports.looks import Attended, Attention, Looks, Painted
from tests.reports.made_records import made
from tests.reports.test_lettering import ENDLESS, inside

MAP = np.array([[4.0, 0.0], [1.0, 3.0]])


def attended(image: int = 3, label: int = 4, boxes: tuple[tuple[float, ...], ...] = ((0, 0, 0.5, 0.5),)) -> Attended:
    return Attended(np.full((20, 30, 3), 0.5), MAP, np.array(boxes), label, image)


@pytest.mark.parametrize(
    ("boxes", "inside", "area"),
    [
        (((0, 0, 0.5, 0.5),), 0.5, 0.25),
        (((0, 0, 0.5, 0.5), (0, 0, 0.5, 1)), 5 / 8, 0.5),  # a cell in two boxes counts once
        (((0.8, 0.8, 0.9, 0.9),), 3 / 8, 0.25),  # no centre is inside: the cell that holds the box's centre
        (((0, 0, 1, 1),), 1.0, 1.0),
    ],
)
def test_how_much_of_a_map_is_in_the_boxes(boxes: tuple[tuple[float, ...], ...], inside: float, area: float) -> None:
    assert shares(attended(boxes=boxes)) == pytest.approx((inside, area))


def test_a_map_of_zeros_has_nothing_inside() -> None:
    assert shares(replace(attended(), map=np.zeros((2, 2)))) == (0.0, 0.25)


@pytest.mark.parametrize("name", ["2DRCL", ENDLESS])
@pytest.mark.parametrize("images", [1, 2, 4])
def test_names_above_the_pictures_lie_on_the_paper(name: str, images: int) -> None:
    seen = tuple(replace(attended(i, 4), pixels=np.full((32, 32, 3), 0.5)) for i in range(images))
    looks = Looks(attention=(Attention(1, False, seen), Attention(2, True, seen)))
    drawing = attention(Scene([replace(made(name), looks=looks)]))
    assert drawing is not None
    inside(drawing.figure)


def test_a_column_for_each_row_and_training() -> None:
    first = Attention(1, False, (attended(3, 4), attended(5, 0)))
    last = Attention(2, True, (attended(3, 4), attended(5, 0)))
    rows = [
        replace(made("baseline"), looks=Looks(attention=(replace(last, number=1),))),
        replace(made("2DRCL"), looks=Looks(attention=(first, last))),
    ]
    drawing = attention(Scene(rows))
    assert drawing is not None
    assert [axes.get_title() for axes in drawing.figure.axes[:4]] == [
        "e (1)", "baseline", "2DRCL,\nafter training 1", "2DRCL",
    ]  # fmt: skip
    assert drawing.figure.axes[4].get_title() == "a (5)"
    assert len(drawing.figure.axes) == 8
    assert drawing.lines[0] == ("baseline", 1, 3, "e", 1, 0.5, 0.25)
    assert [line[:3] for line in drawing.lines] == [
        ("baseline", 1, 3), ("baseline", 1, 5), ("2DRCL", 1, 3), ("2DRCL", 1, 5), ("2DRCL", 2, 3), ("2DRCL", 2, 5),
    ]  # fmt: skip
    assert drawing.figure.axes[1].get_xlabel() == "50 % of it in 25 %"
    assert attention(Scene([made("baseline")])) is None


def painted(number: int = 1) -> Painted:
    view = np.zeros((8, 8, 3))
    view[:4] = 1.0
    return Painted(number, view, view + 0.25, view * 0, view * 0 + 0.5, np.full(3, 0.5))


def test_the_error_of_a_reconstruction_is_that_of_normalised_pixels() -> None:
    one = painted()
    assert error(one, one.view_painted) == pytest.approx(0.25)  # (0.25 / 0.5)^2
    drawing = reconstructions(Scene([made("baseline"), replace(made("2DRCL"), looks=Looks(painted=(one, one)))]))
    assert drawing is not None
    # Half of the image is 1, half 0: its mean colour is off by 0.5 everywhere.
    assert drawing.lines == tuple(
        ("2DRCL", 1, k, what, pytest.approx(off), pytest.approx(1.0))
        for k in (0, 1) for what, off in (("whole", 0.25), ("masked", 1.0))
    )  # fmt: skip
    assert len(drawing.figure.axes) == 8
    assert reconstructions(Scene([made("baseline")])) is None
