"""Views of an image: what is shown, where its boxes are, and that a view is a function of its address."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_loader import PLAIN, WILD, Shuffle, same, scene

from bench.data.loader import Loader, Workers
from bench.data.split import ArrayPixels, Category, Image, Split
from bench.data.views import AS_THE_FILE, Window, placed
from bench.detection.boxes import carry
from bench.errors import UserError
from bench.spec import Input
from methods.parts.views import View

QUIET = {"colour_share": 0.0, "gray": 0.0, "blur": 0.0}


def loader(
    split: Split, settings: Input, *views: View, share: tuple[int, int] | None = None, workers: int = 0
) -> Loader:
    return Loader(
        split, settings, sampler=Shuffle(len(split)), batch=4, seed=3, phase=1, share=share, views=views,
        workers=Workers(workers),
    )  # fmt: skip


def squares(number: int = 8, size: int = 64) -> Split:
    """Black images, each with one white square of 16 pixels."""
    rng = np.random.default_rng(1)
    pixels = np.zeros((number, size, size, 3), np.uint8)
    boxes = []
    for image in pixels:
        x, y = rng.integers(0, size - 16, 2)
        image[y : y + 16, x : x + 16] = 255
        boxes.append(np.array([[x, y, x + 16, y + 16]], np.float32))
    one = [np.zeros(1, np.int64) for _ in boxes]
    return Split(
        (Category(1, "square", "f", number, number),),
        tuple(Image(i, f"{i}", size, size) for i in range(number)),
        boxes, one, [np.zeros(1, np.bool_) for _ in boxes], [np.zeros((1, 5)) for _ in boxes], one,
        ArrayPixels(pixels), np.arange(number),
    )  # fmt: skip


def test_where_a_box_is_in_a_view_by_hand() -> None:
    """The right half of a 40 x 20 image in a frame of 20 x 20: x 20..40 to 0..20, mirrored x = 20 - (x - 20)."""
    window = (20.0, 0.0, 40.0, 20.0)
    assert placed(window, (20, 20), flip=False) == (1, -20, 1, 0)
    assert placed(window, (20, 20), flip=True) == (-1, 40, 1, 0)
    boxes = torch.tensor([[25.0, 5, 30, 15], [10, 0, 30, 10], [0, 0, 15, 5]])
    cut, left = carry(boxes, AS_THE_FILE, placed(window, (20, 20), flip=False), (20, 20))
    assert cut.tolist() == [[5, 5, 10, 15], [0, 0, 10, 10], [0, 0, 0, 5]]
    assert left.tolist() == [1.0, 0.5, 0.0]
    cut, left = carry(boxes, AS_THE_FILE, placed(window, (20, 20), flip=True), (20, 20))
    assert cut.tolist() == [[10, 5, 15, 15], [10, 0, 20, 10], [20, 0, 20, 5]]
    assert placed((0.0, 0.0, 40.0, 20.0), (10, 20), flip=False) == (0.5, 0, 0.5, 0)


def test_boxes_are_carried_from_view_to_view() -> None:
    """By hand: view 0 is the file at half size, view 1 its right half, mirrored."""
    seen, shown = (0.5, 0.0, 0.5, 0.0), (-1.0, 40.0, 1.0, 0.0)
    boxes = torch.tensor([[12.5, 2.5, 15.0, 7.5], [5.0, 0.0, 15.0, 5.0]])  # of the file: 25 5 30 15 and 10 0 30 10
    cut, left = carry(boxes, seen, shown, (20, 20))
    assert cut.tolist() == [[10, 5, 15, 15], [10, 0, 20, 10]]
    assert left.tolist() == [1.0, 0.5]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_boxes_of_a_view_lie_on_what_they_are_of(flip: float) -> None:
    split = squares()
    settings = Input(min_size=64, max_size=64, flip=flip, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    each = loader(split, settings, View(area=(0.3, 1.0), **QUIET))
    shown = 0
    for t in range(12):
        plain, view = each.batch(t), each.batch(t, 1)
        for i, boxes in enumerate(view.boxes):
            carried, left = carry(plain.boxes[i], plain.placed[i], view.placed[i], view.sizes[i])
            assert (left >= 0.5).sum() == len(boxes)
            for box in boxes:
                shown += 1
                assert torch.allclose(box, carried[0], atol=1e-3)
                x1, y1, x2, y2 = box.round().int().tolist()
                white = view.images[i, 0] > 0.5
                inner = white[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
                assert inner.all()
                outer = white.clone()
                outer[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1] = False
                assert not outer.any()
    assert 20 < shown < 48  # some squares are cut away


def test_a_view_is_a_function_of_its_address_whoever_makes_it() -> None:
    split, views = scene(12), (View(blur=1.0), View(solarise=0.5))
    one = loader(split, WILD, *views)
    whole = {view: [one.batch(t, view) for t in range(5)] for view in (0, 1, 2, 3)}
    other = loader(split, WILD, *views)
    for t in (4, 0, 2):
        for view in (2, 0, 3, 1):
            assert same(other.batch(t, view), whole[view][t])
    assert same(loader(split, WILD).batch(2), whole[0][2])  # the plain view knows nothing of the others
    for view in (1, 2, 3):
        assert not torch.equal(whole[view][0].images, whole[0][0].images)
    with loader(split, WILD, *views, workers=2).batches(range(5), 2) as made:
        assert all(same(a, b) for a, b in zip(made, whole[2], strict=True))
    half = loader(split, WILD, *views, share=(2, 4))
    for t in range(5):
        assert torch.equal(half.batch(t, 1).images, whole[1][t].images[2:])
        assert all(torch.equal(a, b) for a, b in zip(half.batch(t, 1).boxes, whole[1][t].boxes[2:], strict=True))


def shown_of(pixels: NDArray[np.uint8], seed: int, **settings: object) -> tuple[NDArray[np.uint8], Window]:
    return View(
        **{**QUIET, "area": (1.0, 1.0), "ratio": (1.0, 1.0), **settings}
    )(  # type: ignore[arg-type]
        pixels, pixels.shape[:2], np.random.default_rng(seed)
    )


def test_each_operation_does_what_it_says() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    same_, window = shown_of(pixels, 0)
    assert np.array_equal(same_, pixels)
    assert window == pytest.approx((0, 0, 48, 32))
    gray, _ = shown_of(pixels, 0, gray=1.0)
    assert (gray == gray[:, :, :1]).all()
    solar, _ = shown_of(pixels, 0, solarise=1.0)
    assert np.array_equal(solar, np.where(pixels < 128, pixels, 255 - pixels))
    blurred, _ = shown_of(pixels, 0, blur=1.0, sigma=(8.0, 8.0))
    assert blurred.astype(float).std() < pixels.astype(float).std() * 0.8
    coloured, _ = shown_of(pixels, 0, colour_share=1.0)
    assert not np.array_equal(coloured, pixels)
    flat = np.full((8, 8, 3), 100, np.uint8)
    bright, _ = shown_of(flat, 0, colour_share=1.0, colour=(0.5, 0.0, 0.0, 0.0))
    factor = 1 + (2 * np.random.default_rng(0).random(13)[5] - 1) * 0.5
    assert abs(int(bright[0, 0, 0]) - 100 * factor) <= 1
    red = np.zeros((4, 4, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    seed = next(n for n in range(50) if np.random.default_rng(n).random(13)[8] > 0.8)  # a turn of + 0.3 to + 0.5
    turned, _ = shown_of(red, seed, colour_share=1.0, colour=(0.0, 0.0, 0.0, 0.5))
    hue = (2 * np.random.default_rng(seed).random(13)[8] - 1) * 0.5  # red + 1/3 of the circle is green, + 1/2 cyan
    assert turned[0, 0, 0] == 0
    assert turned[0, 0, 1] > 250
    assert turned[0, 0, 2] == pytest.approx(max(0, (hue - 1 / 3) * 6 * 255), abs=6)
    areas = [shown_of(pixels, seed, area=(0.3, 0.5), ratio=(0.5, 2.0))[1] for seed in range(200)]
    shares = [(x2 - x1) * (y2 - y1) / (32 * 48) for x1, y1, x2, y2 in areas]
    assert min(shares) >= 0.29
    assert max(shares) <= 0.5 + 1e-6
    assert all(0 <= x1 < x2 <= 48 + 1e-6 and 0 <= y1 < y2 <= 32 + 1e-6 for x1, y1, x2, y2 in areas)


def test_without_a_window_the_plain_view_says_where_it_is() -> None:
    split = scene(10)
    batch = loader(split, PLAIN).batch(0)
    for i, (ax, bx, ay, by) in enumerate(batch.placed):
        assert (bx, by) == (0, 0)
        assert (ay, ax) == pytest.approx(batch.scale[i])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"area": (0.5, 0.3)}, "area is"), ({"area": (0.5, 1.5)}, "area is"), ({"ratio": (0.0, 1.0)}, "ratio is"),
        ({"colour": (0.4, 0.4, 0.4)}, "colour is"), ({"colour": (0, 0, 0, 0.9)}, "colour is"),
        ({"blur": 2.0}, "blur is"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(given: dict[str, Sequence[float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        View(**given)  # type: ignore[arg-type]
