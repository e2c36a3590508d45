"""Attention maps: which images are kept, by hand; what is kept of a padded batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.detection.contract import WholeImages
from bench.errors import UserError
from methods.parts.looks import Attention
from tests.methods.rois import head

COUNTS = (50, 2, 0, 2, 7)  # training instances of five classes


def seen(labels: dict[int, list[int]], last: Tensor | None = None, sizes: list[tuple[int, int]] | None = None) -> Any:
    """A batch of 64 x 64 images: position in the split -> classes of its boxes; box k is at k / 10."""
    flat = [(image, label, k) for image, of in labels.items() for k, label in enumerate(of)]
    corners = torch.tensor([[k / 10, 0.0, k / 10 + 0.05, 1.0] for _, _, k in flat]).view(-1, 4)
    images = torch.stack([torch.full((3, 64, 64), float(image)) for image in labels])
    batch = SimpleNamespace(image_index=list(labels), images=images, sizes=sizes or [(64, 64)] * len(labels))
    return SimpleNamespace(
        image_N=torch.tensor([image for image, _, _ in flat]),
        labels_N=torch.tensor([label for _, label, _ in flat]),
        boxes_N4=corners,
        whole=WholeImages(batch, torch.ones(len(labels), 6, 4, 4) if last is None else last),  # type: ignore[arg-type]
    )


def kept(part: Attention) -> list[tuple[int, int]]:
    """(image, class) in the order of the result."""
    found = part.result()
    number = sum(name.endswith("/image") for name in found)
    return [(int(found[f"{k}/image"]), int(found[f"{k}/class"])) for k in range(number)]


def test_an_image_stands_for_its_rarest_class_and_the_first_of_each_rarest_class_is_taken() -> None:
    part = Attention(head(COUNTS), images=2)
    part.update(seen({0: [0, 4], 1: [2], 2: [0]}))  # class 2 has no training instance: image 1 stands for none
    assert kept(part) == [(0, 4), (2, 0)]
    part.update(seen({3: [3, 0], 4: [3]}))  # the first with class 3 takes the place of the most frequent one
    assert kept(part) == [(3, 3), (0, 4)]
    part.update(seen({5: [1, 3], 6: [4]}))  # 1 and 3 are as rare: the lower number first
    assert kept(part) == [(5, 1), (3, 3)]
    part.update(seen({7: [1]}))
    assert kept(part) == [(5, 1), (3, 3)]


def test_what_is_kept_is_of_the_image_without_its_padding() -> None:
    last = torch.zeros(1, 2, 4, 4)
    last[0, 0], last[0, 1, 1, 0] = -1.0, 3.0  # what is negative counts as 0
    part = Attention(head(COUNTS), images=1)
    part.update(seen({9: [1, 0, 1]}, last, sizes=[(32, 48)]))
    found = part.result()
    assert found["0/pixels"].shape == (3, 32, 48)
    assert found["0/map"].tolist() == [[0.0, 0.0, 0.0], [1.5, 0.0, 0.0]]
    assert found["0/boxes"].flatten().tolist() == pytest.approx([0.0, 0.0, 0.05, 1.0, 0.2, 0.0, 0.25, 1.0])
    assert all(value.is_contiguous() for value in found.values())


def test_large_images_are_kept_smaller() -> None:
    part = Attention(head(COUNTS))
    one = seen({0: [1]})
    one.whole.batch.images, one.whole.batch.sizes = torch.ones(1, 3, 640, 1024), [(512, 1024)]
    part.update(one)
    assert part.result()["0/pixels"].shape == (3, 128, 256)


def test_no_image_is_refused() -> None:
    with pytest.raises(UserError, match="images is 0"):
        Attention(head(COUNTS), images=0)
