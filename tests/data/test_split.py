"""The in-memory form of a split: grouping, views, the ground truth for evaluators, and errors of its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from photographs import make_folder, pixels_of

from bench.data.folder import image_root
from bench.data.lvis import write_split
from bench.data.split import Split, listing, open_split, read_json, write_json
from bench.errors import UserError
from bench.spec import FolderData


@pytest.fixture
def train(tmp_path: Path) -> Split:
    spec = FolderData(name="lvis", path=str(make_folder(tmp_path / "photos")))
    write_split(spec, "train", tmp_path)
    return open_split(tmp_path, image_root(spec))


def test_class_index_is_the_rank_of_the_id(train: Split) -> None:
    assert [(c.id, c.name) for c in train.categories] == [(3, "dog"), (7, "cat"), (11, "newt")]
    assert [labels.tolist() for labels in train.labels] == [[0, 0, 1], [0], []]


def test_boxes_are_corners_and_images_without_boxes_stay(train: Split) -> None:
    assert train.boxes[0].tolist() == [[4, 4, 24, 14], [30, 5, 40, 15], [10, 20, 18, 28]]
    assert train.boxes[2].shape == (0, 4)
    assert [b.dtype for b in train.boxes] == [np.float32] * 3
    assert len(train) == 3


def test_lists_become_class_indices(train: Split) -> None:
    assert [train.negative(i).tolist() for i in range(3)] == [[], [1], [0, 1]]
    assert train.images[0].not_exhaustive == (2,)


def test_pixels_are_the_file(train: Split) -> None:
    np.testing.assert_array_equal(train.pixels(1), pixels_of(2))
    assert train.array() is None


def test_ground_truth_goes_back_unchanged(train: Split) -> None:
    truth = train.lvis_json()
    assert truth["images"][1]["neg_category_ids"] == [7]
    assert truth["images"][1]["not_exhaustive_category_ids"] == [11]
    assert [a["category_id"] for a in truth["annotations"]] == [3, 3, 7, 3]
    first = truth["annotations"][0]
    assert (first["id"], first["image_id"], first["bbox"], first["area"]) == (1, 1, [4, 4, 20, 10], 200)
    assert truth["categories"][0] == {
        "id": 3, "name": "dog", "frequency": "r", "image_count": 2, "instance_count": 3,
    }  # fmt: skip


def test_subset_takes_pixels_and_boxes_along(train: Split) -> None:
    part = train.subset([1, 0, 1])
    np.testing.assert_array_equal(part.pixels(0), pixels_of(2))
    np.testing.assert_array_equal(part.subset([1]).pixels(0), pixels_of(1))
    assert [len(b) for b in part.boxes] == [1, 3, 1]
    assert part.statistics().instance_counts.tolist() == [4, 1, 0]


def test_dropping_boxes_keeps_the_lists_aligned(train: Split) -> None:
    kept = train.keep_boxes([labels == 1 for labels in train.labels])
    assert [labels.tolist() for labels in kept.labels] == [[1], [], []]
    assert kept.lvis_json()["annotations"][0]["bbox"] == [10, 20, 8, 8]
    assert len(kept) == 3


def test_boxes_to_ignore_are_in_no_count(train: Split) -> None:
    train.ignore[0][0] = True
    assert train.statistics().instance_counts.tolist() == [2, 1, 0]
    assert train.statistics().image_classes == ((0, 1), (0,), ())


def test_the_same_document_is_the_same_bytes(train: Split, tmp_path: Path) -> None:
    stored = tmp_path / "annotations.json"
    write_json(tmp_path / "again.json", read_json(stored))
    assert (tmp_path / "again.json").read_bytes() == stored.read_bytes()


def test_an_image_of_another_size_is_refused(train: Split, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (10, 10)).save(tmp_path / "photos/images" / train.images[1].file_name)
    with pytest.raises(UserError, match="image is 10 x 10, annotated 64 x 48"):
        train.pixels(1)


@pytest.mark.parametrize("content", [b"no image", b"\x89PNG\r\n\x1a\n rest"])
def test_an_undecodable_image_is_named(train: Split, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "photos/images" / train.images[1].file_name
    file.write_bytes(content)
    with pytest.raises(UserError, match="cannot decode this image") as error:
        train.pixels(1)
    assert train.images[1].file_name in error.value.where


def test_a_truncated_image_is_named(train: Split, tmp_path: Path) -> None:
    file = tmp_path / "photos/images" / train.images[1].file_name
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(UserError, match="cannot decode this image"):
        train.pixels(1)


def test_without_an_image_root_there_is_ground_truth_but_no_image(train: Split, tmp_path: Path) -> None:
    split = open_split(tmp_path, None)
    assert split.lvis_json() == train.lvis_json()
    with pytest.raises(UserError, match="no image root"):
        split.pixels(0)


def test_json_errors_name_file_and_position(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"images": [\n{"id": 1,')
    with pytest.raises(UserError, match=r"not valid JSON at character 22 of 22") as error:
        read_json(tmp_path / "cut.json")
    assert error.value.where.endswith("cut.json:2:10")
    with pytest.raises(UserError, match="cannot read it") as error:
        read_json(tmp_path / "none.json")
    assert "cut.json" in error.value.allowed


def test_listing_goes_up_to_what_exists(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert listing(tmp_path / "a" / "b") == f"{tmp_path} holds here/"
