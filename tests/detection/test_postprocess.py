"""Growing post-processing against a slow plain reference: per class, one box at a time, explicit order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.detection import postprocess as module
from bench.detection.postprocess import MIN_SIZE, greedy_nms, postprocess
from bench.errors import StageError
from bench.spec import Inference


def plain_nms(
    p_NC: Tensor, boxes: Tensor, image_N: Tensor, sizes: list[tuple[int, int]], test: Inference
) -> list[tuple[int, int, float, tuple[float, ...]]]:
    """(image, class, score, box) of every final detection; nothing is cut before the end."""
    C = p_NC.shape[1]
    p, b = p_NC.numpy(), boxes.numpy()
    threshold = np.float32(test.score_threshold)
    result = []
    for i, (height, width) in enumerate(sizes):
        rows = [n for n in range(len(p)) if int(image_N[n]) == i]
        survivors = []
        for c in range(C):
            candidates = []
            for local, n in enumerate(rows):
                x1, y1, x2, y2 = b[n] if b.ndim == 2 else b[n, c]
                box = np.array([x1, y1, x2, y2], dtype=np.float32).clip(0)
                box = np.minimum(box, np.array([width, height, width, height], dtype=np.float32))
                if p[n, c] > threshold and box[2] - box[0] >= MIN_SIZE and box[3] - box[1] >= MIN_SIZE:
                    candidates.append((-p[n, c], local * C + c, box))
            candidates.sort(key=lambda item: item[:2])
            kept: list[tuple[float, int, np.ndarray]] = []
            for candidate in candidates:
                if all(float(overlap(candidate[2], other[2])) <= test.nms for other in kept):
                    kept.append(candidate)
            survivors += [(score, index, c, box) for score, index, box in kept]
        survivors.sort(key=lambda item: item[:2])
        for score, _, c, box in survivors[: test.max_detections]:
            result.append((i, c, float(-score), tuple(float(v) for v in box)))
    return result


def overlap(a: np.ndarray, b: np.ndarray) -> np.float32:
    w = max(np.float32(0), min(a[2], b[2]) - max(a[0], b[0]))
    h = max(np.float32(0), min(a[3], b[3]) - max(a[1], b[1]))
    inter = w * h
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def listed(p_NC: Tensor, boxes: Tensor, image_N: Tensor, sizes: list[tuple[int, int]], test: Inference) -> list[object]:
    found = postprocess(p_NC, boxes, image_N, len(sizes), sizes, test)
    return [
        (int(i), int(c), float(s), tuple(b))
        for i, c, s, b in zip(found.image, found.labels, found.scores, found.boxes.tolist(), strict=True)
    ]


def random_case(
    rng: np.random.Generator, images: int, proposals: int, C: int, *, per_class: bool, levels: int, grid: bool
) -> tuple[Tensor, Tensor, Tensor, list[tuple[int, int]]]:
    """`levels` distinct scores (few: many ties); boxes on a coarse grid have an IoU of exactly 0.5 now and then."""
    N = images * proposals
    p = (rng.integers(0, levels, (N, C)) / max(levels - 1, 1)).astype(np.float32)
    shape = (N, C) if per_class else (N,)
    corner = rng.uniform(-4, 30, (*shape, 2))
    side = rng.uniform(-1, 20, (*shape, 2))
    if grid:
        corner, side = 4 * np.round(corner / 4), 4 * np.round(side / 4)
    boxes = np.concatenate([corner, corner + side], -1).astype(np.float32)
    image = rng.permutation(np.repeat(np.arange(images), proposals))
    sizes = [(int(rng.integers(20, 40)), int(rng.integers(20, 40))) for _ in range(images)]
    return torch.from_numpy(p), torch.from_numpy(boxes), torch.from_numpy(image), sizes


@settings(max_examples=250, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 3),
    proposals=st.integers(0, 14),
    C=st.integers(1, 5),
    per_class=st.booleans(),
    levels=st.sampled_from([1, 2, 3, 8, 10_000]),
    grid=st.booleans(),
    threshold=st.sampled_from([0.0, 1e-4, 0.5]),
    nms=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    keep=st.integers(1, 12),
)
def test_equals_plain_nms(
    seed: int, images: int, proposals: int, C: int, per_class: bool, levels: int, grid: bool, threshold: float,
    nms: float, keep: int,
) -> None:  # fmt: skip
    case = random_case(np.random.default_rng(seed), images, proposals, C, per_class=per_class, levels=levels, grid=grid)
    test = Inference(score_threshold=threshold, nms=nms, max_detections=keep)
    assert listed(*case, test) == plain_nms(*case, test)


@pytest.mark.parametrize("levels", [1, 3, 50, 100_000])
def test_several_rounds_equal_plain_nms(levels: int) -> None:
    """Few survivors: boxes of a class nearly coincide, so many blocks are needed (and all are tried)."""
    rng = np.random.default_rng(levels)
    p = torch.from_numpy((rng.integers(1, levels + 1, (120, 6)) / levels).astype(np.float32))
    boxes = torch.from_numpy((np.array([2, 2, 22, 22]) + rng.uniform(-3, 3, (120, 4))).astype(np.float32))
    image = torch.zeros(120, dtype=torch.int64)
    for keep in (1, 5, 9, 40):
        test = Inference(score_threshold=0.0, nms=0.8, max_detections=keep)
        assert listed(p, boxes, image, [(24, 24)], test) == plain_nms(p, boxes, image, [(24, 24)], test)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), keep=st.integers(1, 6), more=st.integers(0, 40), levels=st.sampled_from([2, 50]))
def test_what_is_stored_beyond_changes_nothing_before(seed: int, keep: int, more: int, levels: int) -> None:
    """More detections are kept, and the best `keep` of each image, which AP counts, are those of keeping no more."""
    case = random_case(np.random.default_rng(seed), 3, 30, 5, per_class=True, levels=levels, grid=True)
    rule = {"score_threshold": 0.0, "nms": 0.5, "max_detections": keep}
    stored, usual = listed(*case, Inference(**rule, stored=keep + more)), listed(*case, Inference(**rule))
    assert stored == plain_nms(*case, Inference(**rule | {"max_detections": keep + more}))
    images = [image for image, *_ in stored]
    best = [one for place, one in enumerate(stored) if images[:place].count(one[0]) < keep]
    assert best == usual


def test_fewer_cannot_be_stored_than_count() -> None:
    with pytest.raises(ValueError, match=r"stored \(299\) is less than max_detections \(300\)"):
        Inference(stored=299)
    assert Inference().kept == 300
    assert Inference(stored=1000).kept == 1000


def test_many_blocks_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The case above does go beyond its first block (else it would show nothing)."""
    lengths: list[int] = []
    original = module._blocks

    def counted(*args: object) -> object:
        for block in original(*args):  # type: ignore[arg-type]
            lengths.append(len(block))
            yield block

    monkeypatch.setattr(module, "_blocks", counted)
    p = torch.linspace(0.1, 0.9, 400).reshape(200, 2)
    boxes = torch.tensor([0.0, 0.0, 10.0, 10.0]).repeat(200, 1)
    test = Inference(score_threshold=0.0, nms=0.5, max_detections=4)
    found = postprocess(p, boxes, torch.zeros(200, dtype=torch.int64), 1, [(20, 20)], test)
    assert found.scores.tolist() == pytest.approx([0.9, float(p[199, 0])])
    assert lengths[:3] == [8, 8, 16]
    assert sum(lengths) == 400


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), nms=st.sampled_from([0.3, 0.5, 0.7]), groups=st.integers(1, 6))
def test_decisions_are_those_of_torchvision_per_group(seed: int, nms: float, groups: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (300, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + rng.uniform(5, 40, (300, 2))], 1).astype(np.float32))
    group = torch.from_numpy(rng.integers(0, groups, 300))
    rank = torch.arange(300, 0, -1).float()  # strictly decreasing: torchvision's order is ours
    expected = torch.zeros(300, dtype=torch.bool)
    for g in range(groups):
        of = (group == g).nonzero().squeeze(1)
        expected[of[torchvision.ops.nms(boxes[of], rank[of], nms)]] = True
    assert torch.equal(greedy_nms(boxes, group, nms), expected)


def test_pairs_compared_in_chunks_decide_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 60, (300, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + rng.uniform(5, 40, (300, 2))], 1).astype(np.float32))
    group = torch.from_numpy(rng.integers(0, 9, 300))
    whole = greedy_nms(boxes, group, 0.5)
    for limit in (1, 700, 2000):
        monkeypatch.setattr(module, "MAX_PAIRS", limit)
        assert len(module._chunks(group)) > 1
        assert torch.equal(greedy_nms(boxes, group, 0.5), whole)


def test_threshold_is_strict_and_small_boxes_go() -> None:
    p = torch.tensor([[0.5], [0.25], [0.9], [0.8]])
    boxes = torch.tensor([[0, 0, 5, 5], [8, 8, 12, 12], [3, 3, 3.005, 9], [30, 30, 40, 40]], dtype=torch.float32)
    test = Inference(score_threshold=0.25)
    found = postprocess(p, boxes, torch.zeros(4, dtype=torch.int64), 1, [(20, 20)], test)
    assert found.scores.tolist() == [0.5]  # 0.25 is not above; 0.9 is a sliver; 0.8 lies outside of the image


def test_scale_and_image_index() -> None:
    p = torch.tensor([[0.5], [0.75], [0.25]])
    boxes = torch.tensor([[2, 4, 6, 8], [0, 0, 10, 10], [40, 40, 99, 99]], dtype=torch.float32)
    found = postprocess(
        p, boxes, torch.tensor([1, 0, 1]), 2, [(20, 20), (50, 60)], Inference(),
        scale=[(1.0, 1.0), (2.0, 0.5)], image_index=[31, 7],
    )  # fmt: skip
    assert found.image.tolist() == [31, 7, 7]
    assert found.image.dtype == torch.int32
    assert found.labels.dtype == torch.int32
    assert found.boxes.tolist() == [[0, 0, 10, 10], [4, 2, 12, 4], [80, 20, 120, 25]]


@pytest.mark.parametrize("images", [0, 2])
def test_empty(images: int) -> None:
    found = postprocess(
        torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), images, [(8, 8)] * images, Inference()
    )
    assert found.boxes.shape == (0, 4)
    assert found.scores.dtype == torch.float32


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(StageError, match="not finite"):
        postprocess(
            torch.tensor([[float("nan")]]),
            torch.zeros(1, 4),
            torch.zeros(1, dtype=torch.int64),
            1,
            [(8, 8)],
            Inference(),
        )
