"""Batches are pure functions of their address; geometry moves images and boxes together."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from photographs import PHOTOGRAPHS, make_folder

from bench.data import augment
from bench.data.augment import Draw
from bench.data.folder import image_root
from bench.data.loader import Loader, Workers, eval_batch, eval_batches, eval_pass
from bench.data.lvis import write_split
from bench.data.split import ArrayPixels, Category, Image, Split, open_split
from bench.detection.contract import Batch
from bench.errors import UserError
from bench.seeds import generator
from bench.spec import FolderData, Input

PLAIN = Input(min_size=32, max_size=32, flip=0.0)
WILD = Input(
    min_size=32, max_size=40, flip=0.5, channel_permutation=True, invert=0.5, scale_jitter=(0.6, 1.2), pad_multiple=8
)


class Shuffle:
    """Every image once, or the first `lengths[e]` of them."""

    def __init__(self, number: int, lengths: tuple[int, ...] = ()) -> None:
        self.number, self.lengths = number, lengths

    def epoch(self, e: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.permutation(self.number)[: self.lengths[e] if e < len(self.lengths) else None]


def scene(number: int = 10, size: int = 32, seed: int = 0) -> Split:
    """Noise images with one or two boxes each, in an array."""
    rng = np.random.default_rng(seed)
    boxes, labels = [], []
    for _ in range(number):
        n = int(rng.integers(0, 3))
        corner = rng.uniform(0, size / 2, (n, 2))
        boxes.append(np.concatenate([corner, corner + rng.uniform(2, size / 2, (n, 2))], 1).astype(np.float32))
        labels.append(rng.integers(0, 3, n))
    pixels = rng.integers(0, 256, (number, size, size, 3), dtype=np.uint8)
    return Split(
        categories=tuple(Category(k + 1, f"c{k}", "r", 1, 1) for k in range(3)),
        images=tuple(Image(i, f"{i}", size, size) for i in range(number)),
        boxes=boxes,
        labels=labels,
        ignore=[np.zeros(len(b), np.bool_) for b in boxes],
        annotated=[np.zeros((len(b), 5)) for b in boxes],
        annotation_ids=[np.arange(len(b)) for b in boxes],
        source=ArrayPixels(pixels),
        rows=np.arange(number),
    )


def loader(
    split: Split,
    settings: Input = PLAIN,
    *,
    batch: int = 4,
    seed: int = 0,
    phase: int = 0,
    lengths: tuple[int, ...] = (),
    share: tuple[int, int] | None = None,
    workers: int = 0,
) -> Loader:
    order = Shuffle(len(split), lengths)
    return Loader(
        split, settings, sampler=order, batch=batch, seed=seed, phase=phase, share=share, workers=Workers(workers)
    )


def same(a: Batch, b: Batch) -> bool:
    tensors = all(
        torch.equal(x, y)
        for name in ("boxes", "labels", "ignore", "negative")
        for x, y in zip(getattr(a, name), getattr(b, name), strict=True)
    )
    rest = (a.sizes, a.image_index, a.scale, a.original_sizes) == (b.sizes, b.image_index, b.scale, b.original_sizes)
    return tensors and rest and torch.equal(a.images, b.images)


def test_a_batch_is_a_function_of_its_step() -> None:
    split = scene()
    forwards = [loader(split, WILD).batch(t) for t in range(8)]
    one = loader(split, WILD)
    for t in (7, 0, 3, 3, 5):
        assert same(one.batch(t), forwards[t])
    assert not same(forwards[0], forwards[1])


@pytest.mark.parametrize(("seed", "phase"), [(1, 0), (0, 1)])
def test_seed_and_phase_change_order_and_augmentation(seed: int, phase: int) -> None:
    split = scene()
    one, other = loader(split, WILD), loader(split, WILD, seed=seed, phase=phase)
    assert [one.indices(t) for t in range(5)] != [other.indices(t) for t in range(5)]
    jitters = [[s for t in range(5) for s in each.batch(t).sizes] for each in (one, other)]
    assert jitters[0] != jitters[1]


def test_batches_cut_the_concatenated_epochs() -> None:
    split = scene(10)
    each = loader(split, batch=4, lengths=(3, 10, 1))
    shown = [i for t in range(6) for i in each.indices(t)]
    order = [Shuffle(10, (3, 10, 1)).epoch(e, generator(0, "order", 0, e)).tolist() for e in range(4)]
    assert shown == [i for epoch in order for i in epoch][:24]
    assert [each.epoch_length(e) for e in range(4)] == [3, 10, 1, 10]


def test_a_batch_may_be_longer_than_an_epoch() -> None:
    each = loader(scene(3), batch=8)
    assert sorted(each.indices(0)[:3]) == sorted(each.indices(0)[3:6]) == [0, 1, 2]
    assert len(each.batch(0).boxes) == 8


def test_a_sampler_without_images_is_refused() -> None:
    with pytest.raises(UserError, match="shows no image in epoch 1"):
        loader(scene(10), batch=4, lengths=(3, 0)).batch(0)


def test_a_draw_of_one_operation_does_not_move_another() -> None:
    rng = [np.random.default_rng(5) for _ in range(2)]
    with_jitter = augment.draw(WILD, rng[0])
    without = augment.draw(WILD.model_copy(update={"scale_jitter": (1.0, 1.0), "channel_permutation": False}), rng[1])
    assert (with_jitter.flip, with_jitter.invert) == (without.flip, without.invert)
    assert without.jitter == 1.0


def test_normalisation() -> None:
    split = scene(2)
    batch = eval_batch(split, PLAIN, [1])
    expected = (split.pixels(1) / 255.0 - np.array(PLAIN.mean)) / np.array(PLAIN.std)
    np.testing.assert_allclose(batch.images[0].numpy().transpose(1, 2, 0), expected, atol=1e-5)


def test_padding_is_zero_at_bottom_and_right() -> None:
    split = scene(2, size=30)
    batch = eval_batch(split, Input(min_size=30, max_size=30), [0, 1])
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.images[:, :, 30:, :].abs().sum() == batch.images[:, :, :, 30:].abs().sum() == 0
    assert (batch.images[:, :, :30, :30].abs().sum((1, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    "how", [Draw(flip=True), Draw(invert=True), Draw(channels=(2, 0, 1)), Draw(flip=True, invert=True)]
)
def test_colour_and_flip_on_pixels(how: Draw) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    out = np.zeros((3, 8, 8), np.uint8)
    augment.paste(out, pixels, how)
    expected = pixels[:, ::-1] if how.flip else pixels
    expected = expected[:, :, how.channels]
    expected = 255 - expected if how.invert else expected
    np.testing.assert_array_equal(out[:, :5, :7].transpose(1, 2, 0), expected)
    assert out[:, 5:].sum() == out[:, :, 7:].sum() == 0


@given(
    st.integers(10, 90), st.integers(10, 90), st.integers(0, 6), st.integers(0, 6),
    st.integers(4, 9), st.integers(4, 9), st.booleans(), st.floats(0.5, 2.0),
)  # fmt: skip
def test_boxes_follow_their_pixels(h: int, w: int, x: int, y: int, bw: int, bh: int, flip: bool, zoom: float) -> None:
    """A white rectangle on black, resized and mirrored: its bright half lies where its moved box says.

    It has 4 pixels at least, 2 at half the size: a narrower one is nowhere white, and its bright half ends before it.
    """
    x1, y1, x2, y2 = min(x, w - 2), min(y, h - 2), min(x + bw, w), min(y + bh, h)
    pixels = np.zeros((h, w, 3), np.uint8)
    pixels[y1:y2, x1:x2] = 255
    size = (max(4, round(h * zoom)), max(4, round(w * zoom)))
    scale = (size[0] / h, size[1] / w)
    out = np.zeros((3, *size), np.uint8)
    augment.paste(out, augment.resize(pixels, size), Draw(flip=flip))
    boxes = augment.transform_boxes(np.array([[x1, y1, x2, y2]], np.float32), scale, size[1], flip)
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    ys, xs = np.nonzero(out[0] > 127)
    if len(xs):
        bright = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        np.testing.assert_array_less(np.abs(boxes[0] - bright), 1.01 * max(1.0, *scale))


@given(st.lists(st.tuples(*[st.floats(0, 100, width=32)] * 4), min_size=1, max_size=4), st.integers(100, 200))
def test_flipping_twice_is_no_change(corners: list[tuple[float, float, float, float]], width: int) -> None:
    boxes = np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners], np.float32)
    once = augment.transform_boxes(boxes, (1.0, 1.0), width, True)
    assert (once[:, 2:] >= once[:, :2]).all()
    np.testing.assert_allclose(augment.transform_boxes(once, (1.0, 1.0), width, True), boxes, atol=2e-5)


@pytest.mark.parametrize(("h", "w"), [(480, 640), (640, 480), (500, 1000), (333, 777), (800, 1333), (128, 128)])
def test_resized_size_is_torchvisions(h: int, w: int) -> None:
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    transform = GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3)
    transform.eval()
    theirs, _ = transform.resize(torch.zeros(3, h, w), None)
    ours = augment.resized_size(h, w, Input(min_size=800, max_size=1333))
    # torchvision computes the scale in float32, so its floor may land one pixel below the exact product.
    assert np.abs(np.array(ours) - np.array(theirs.shape[1:])).max() <= 1
    assert ours[0] <= 1333
    assert min(ours) == 800 or max(ours) == 1333


def test_exact_scales_are_not_floored_away() -> None:
    for short in range(60, 800):
        assert min(augment.resized_size(short, short * 2, Input(min_size=800, max_size=4000))) == 800


def test_jitter_moves_the_short_side() -> None:
    assert augment.resized_size(100, 100, Input(min_size=100, max_size=200), 0.5) == (50, 50)
    assert augment.resized_size(100, 100, Input(min_size=100, max_size=120), 1.5) == (120, 120)


def test_batches_report_scale_and_original_size() -> None:
    split = scene(3, size=64)
    batch = eval_batch(split, PLAIN, [2, 0])
    assert batch.scale == [(0.5, 0.5)] * 2
    assert batch.original_sizes == [(64, 64)] * 2
    assert batch.image_index == [2, 0]
    np.testing.assert_allclose(batch.boxes[0].numpy(), split.boxes[2] / 2)
    assert batch.negative[0].tolist() == sorted({0, 1, 2} - set(split.labels[2].tolist()))


def test_boxes_without_area_teach_nothing_and_ignored_ones_stay() -> None:
    split = scene(1)
    flat = replace(
        split,
        boxes=[np.array([[1, 1, 1, 9], [2, 2, 9, 9]], np.float32)],
        labels=[np.array([0, 1])],
        ignore=[np.array([False, True])],
    )
    batch = eval_batch(flat, PLAIN, [0])
    assert batch.boxes[0].tolist() == [[2, 2, 9, 9]]
    assert (batch.labels[0].tolist(), batch.ignore[0].tolist()) == ([1], [True])


@pytest.fixture
def photographs(tmp_path: Path) -> Split:
    spec = FolderData(name="lvis", path=str(make_folder(tmp_path / "photos")))
    write_split(spec, "train", tmp_path)
    return open_split(tmp_path, image_root(spec))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_threads_make_the_same_batches(photographs: Split, workers: int) -> None:
    """From any step on, also where an array holds the pixels."""
    for split in (photographs, scene()):
        alone, ahead = loader(split, WILD, batch=2), loader(split, WILD, batch=2, workers=workers)
        for steps in (range(6), range(4, 9)):
            with ahead.batches(steps) as made:
                found = list(made)
            assert len(found) == len(steps)
            assert all(same(alone.batch(t), batch) for t, batch in zip(steps, found, strict=True))


def test_shares_of_several_processes_make_up_the_batch(photographs: Split) -> None:
    """Each process has threads of its own."""
    shares = [loader(photographs, WILD, batch=5, share=cut, workers=2) for cut in ((0, 2), (2, 5))]
    with shares[0].batches(range(4)) as first, shares[1].batches(range(4)) as second:
        for t, halves in enumerate(zip(first, second, strict=True)):
            whole = loader(photographs, WILD, batch=5).batch(t)
            assert torch.equal(torch.cat([half.images for half in halves]), whole.images)
            assert [i for half in halves for i in half.image_index] == whole.image_index


def test_a_sampler_that_fails_later_is_no_error_now() -> None:
    with loader(scene(10), batch=3, lengths=(3, 0), workers=3).batches(range(9)) as batches:
        assert len(next(batches).boxes) == 3
        with pytest.raises(UserError, match="shows no image in epoch 1"):
            next(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_undecodable_image_is_named(photographs: Split, tmp_path: Path, workers: int) -> None:
    file = tmp_path / "photos/images" / photographs.images[1].file_name
    file.write_bytes(b"nothing")
    passes = (
        loader(photographs, PLAIN, batch=3, workers=workers).batches(range(2)),
        eval_pass(photographs, PLAIN, [[0], [2], [1]], Workers(workers)),
    )
    for each in passes:
        with each as batches, pytest.raises(UserError, match="cannot decode") as error:
            list(batches)
        assert photographs.images[1].file_name in error.value.where


def test_a_pass_shows_the_cuts_in_their_order(photographs: Split) -> None:
    cuts = [[2], [0, 1], [1], [0]]
    with eval_pass(photographs, PLAIN, cuts, Workers(2)) as batches:
        assert all(same(eval_batch(photographs, PLAIN, c), b) for c, b in zip(cuts, batches, strict=True))


def test_a_gpu_gets_batches_that_threads_have_pinned(photographs: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device of their process. No GPU is needed to see who pins what."""
    pinned, current = [], []

    def pin(batch: Batch) -> Batch:
        pinned.append((threading.get_ident(), batch.image_index))
        return batch

    monkeypatch.setattr(Batch, "pinned", pin)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: current.append((threading.get_ident(), number)))
    with eval_pass(photographs, PLAIN, [[0], [1], [2]], Workers(2, pinned=True)) as batches:
        assert [batch.image_index for batch in batches] == [[0], [1], [2]]
    assert sorted(index for _, index in pinned) == [[0], [1], [2]]
    assert {thread for thread, _ in pinned} <= {thread for thread, _ in current}
    assert {number for _, number in current} == {3}
    assert threading.get_ident() not in {thread for thread, _ in pinned}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_what_is_pinned_reaches_the_gpu_unchanged(photographs: Split) -> None:
    plain = loader(photographs, WILD, batch=2)
    ahead = Loader(
        photographs, WILD, sampler=Shuffle(len(photographs)), batch=2, seed=0, phase=0, workers=Workers(2, pinned=True)
    )
    with ahead.batches(range(6)) as batches:
        for t, batch in enumerate(batches):
            assert batch.images.is_pinned()
            assert same(plain.batch(t), batch.to("cuda").to("cpu"))


def test_test_batches_hold_one_padded_size_each() -> None:
    split = scene(11)
    sizes = [(32, 32), (20, 64), (64, 20)]
    images = tuple(replace(im, height=sizes[i % 3][0], width=sizes[i % 3][1]) for i, im in enumerate(split.images))
    mixed = replace(split, images=images)
    settings = Input(min_size=64, max_size=64)
    batches = eval_batches(mixed, settings, 2)
    assert sorted(i for b in batches for i in b) == list(range(11))
    assert all(len(b) <= 2 and b == sorted(b) and len({i % 3 for i in b}) == 1 for b in batches)
    assert [b for b in batches if 0 in b] == [[0, 3]]


def test_an_image_is_padded_the_same_whatever_its_batch() -> None:
    split = scene(6, size=30)
    alone = eval_batch(split, PLAIN, [4]).images[0]
    assert torch.equal(alone, eval_batch(split, PLAIN, [1, 4, 5]).images[1])


@pytest.mark.skipif(not (PHOTOGRAPHS / "coco_mini").is_dir(), reason="no photographs (BENCH_TEST_DATA)")
def test_real_photographs(tmp_path: Path) -> None:
    spec = FolderData(name="lvis", path=str(PHOTOGRAPHS / "coco_mini"))
    write_split(spec, "train", tmp_path)
    split = open_split(tmp_path, image_root(spec))
    batch = loader(split, Input(min_size=224, max_size=320), batch=4).batch(0)
    height, width = batch.images.shape[2:]
    assert height % 32 == width % 32 == 0
    for (h, w), boxes in zip(batch.sizes, batch.boxes, strict=True):
        assert max(h, w) <= 320
        assert (boxes >= -0.01).all()
        assert (boxes <= torch.tensor([w, h, w, h]) + 0.5).all()
