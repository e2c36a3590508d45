"""Image files as tools and cameras leave them: depths, orientations, sizes, names and places."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from exported import AP, ap, every, exported, findings, first, stored
from PIL import Image, ImageOps

from bench.data import coco
from bench.data.folder import image_root
from bench.data.names import candidates, locate, variants
from bench.data.pixels import LIMIT, depth_of, orientation, read_image, turned
from bench.data.split import open_split
from bench.errors import UserError
from bench.key import digest
from bench.spec import FolderData
from bench.stage import Stage

NAME = "000000000008.png"


def opened(spec: FolderData, out: Path, split: Literal["train", "val"] = "val") -> Any:
    """A split with its pixels."""
    out.mkdir()
    coco.write_split(spec, split, out)
    return open_split(out, image_root(spec, split))


# -- depth


def gray16(value: int = 0) -> np.ndarray:
    """A ramp over all 16 bits, 64 x 48."""
    return (np.arange(48 * 64, dtype=np.uint32).reshape(48, 64) * 21 + value).astype(np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_read_by_their_upper_half(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(gray16()).save(tmp_path / f"a.{suffix}")
    pixels = read_image(tmp_path / f"a.{suffix}")
    assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], gray16() // 256)
    assert depth_of(tmp_path / f"a.{suffix}") == "16"
    assert pixels.max() == 251  # (48 * 64 - 1) * 21 // 256


def test_a_folder_of_sixteen_bit_images_is_noted_and_in_the_fingerprint(tmp_path: Path) -> None:
    spec = exported(tmp_path / "data")
    before = coco.inspect(spec, "val").fingerprint
    size = (tmp_path / "data/images" / NAME).stat().st_size
    Image.fromarray(gray16()).save(tmp_path / "data/images" / NAME)
    with (tmp_path / "data/images" / NAME).open("ab") as stream:
        stream.truncate(size)
    Image.fromarray(gray16()).save(tmp_path / "data/images" / NAME)
    assert coco.inspect(spec, "val").fingerprint != before
    (note,) = coco.inspect(spec, "val").notes
    assert note == f"val.json: 1 16-bit images read as v >> 8 ({NAME})"
    assert findings(spec)["sixteen_bit", "val"].severity == "note"
    np.testing.assert_array_equal(opened(spec, tmp_path / "out").pixels(0)[..., 1], gray16() // 256)


def test_twelve_bits_in_sixteen_are_a_warning(tmp_path: Path) -> None:
    spec = exported(tmp_path)
    Image.fromarray(gray16() // 16).save(tmp_path / "images" / NAME)
    found = findings(spec)["dark_sixteen_bit", "val"]
    assert (found.severity, found.examples) == ("warning", (f"{NAME}: largest value 4030 of 65535",))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_without_black_and_white_are_refused(kind: type, tmp_path: Path) -> None:
    spec = exported(tmp_path, val=first("images", file_name="a.tif"))
    Image.fromarray(gray16().astype(kind)).save(tmp_path / "images/a.tif")
    with pytest.raises(UserError, match="for which no range from black to white is defined"):
        read_image(tmp_path / "images/a.tif")
    assert findings(spec)["unreadable_depth", "val"].severity == "error"
    with pytest.raises(UserError, match=r"not whole numbers of 8 or 16 bits \(1\): a\.tif"):
        coco.inspect(spec, "val")


def test_sixteen_bits_under_a_name_of_eight_are_refused(tmp_path: Path) -> None:
    """Planning opens no .jpg, so that the old reading of it must not come under the same key as another one."""
    spec = exported(tmp_path, val=first("images", file_name="a.jpg"))
    Image.fromarray(gray16()).save(tmp_path / "images/a.jpg", format="PNG")
    with pytest.raises(UserError, match=r"16-bit values in a file named \.jpg"):
        read_image(tmp_path / "images/a.jpg")
    assert findings(spec)["unreadable_depth", "val"].severity == "error"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_other_modes_are_read_as_pillow_does(mode: str, tmp_path: Path) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    Image.effect_noise((64, 48), 90).convert(mode).save(tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert image.mode == mode
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), expected)
    assert depth_of(tmp_path / f"a.{suffix}") == "8"


# -- EXIF orientation


def with_orientation(array: np.ndarray, how: int, file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = how
    Image.fromarray(array).save(file, exif=exif)


@pytest.mark.parametrize("how", range(1, 9))
def test_turning_agrees_with_pillow(how: int, tmp_path: Path) -> None:
    array = np.random.default_rng(how).integers(0, 256, (48, 64, 3), np.uint8)
    with_orientation(array, how, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert orientation(image) == how
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(turned(array, how), expected)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", exif=True), expected)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), array)


@pytest.mark.parametrize("how", [5, 6, 7, 8])
def test_annotated_as_shown_is_named_and_can_be_read(how: int, tmp_path: Path) -> None:
    spec = exported(tmp_path / "data")
    stored_pixels = np.random.default_rng(how).integers(0, 256, (64, 48, 3), np.uint8)
    with_orientation(stored_pixels, how, tmp_path / "data/images" / NAME)
    found = findings(spec)["exif_turned", "val"]
    assert found.severity == "error"
    assert found.examples == (f"{NAME}: orientation {how}, stored 48 x 64, annotated as shown",)
    assert "data.exif=apply" in found.advice
    with pytest.raises(UserError, match="image is 48 x 64, annotated 64 x 48"):
        opened(spec, tmp_path / "ignored").pixels(0)
    applied = spec.model_copy(update={"exif": "apply"})
    assert findings(applied) == {}
    np.testing.assert_array_equal(opened(applied, tmp_path / "applied").pixels(0), turned(stored_pixels, how))


@pytest.mark.parametrize("how", [2, 3, 4])
def test_an_orientation_that_sizes_do_not_show_is_a_warning(how: int, tmp_path: Path) -> None:
    spec = exported(tmp_path)
    with_orientation(np.zeros((48, 64, 3), np.uint8), how, tmp_path / "images" / NAME)
    found = findings(spec)["exif_orientation", "val"]
    assert (found.severity, found.count) == ("warning", 1)
    assert found.examples == (f"{NAME}: orientation {how}, the annotated size fits both frames",)
    assert findings(spec.model_copy(update={"exif": "apply"})) == {}


def test_annotated_as_stored_is_a_note(tmp_path: Path) -> None:
    spec = exported(tmp_path)
    with_orientation(np.zeros((48, 64, 3), np.uint8), 6, tmp_path / "images" / NAME)
    assert {(kind, f.severity) for (kind, _), f in findings(spec).items()} == {("exif_stored", "note")}


def test_exif_is_in_a_key_only_where_it_is_applied(tmp_path: Path) -> None:
    spec = exported(tmp_path)
    assert digest(spec.in_key()) == digest({"name": "coco"})
    assert spec.model_copy(update={"exif": "apply"}).in_key() == {"name": "coco", "exif": "apply"}
    assert "exif" not in coco.read_folder(spec, "val")["info"]


# -- size


def test_an_image_over_the_limit_is_no_damaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # and 64 x 48 pixels are more than twice as many
    spec = exported(tmp_path)
    found = findings(spec)["too_large_image", "val"]
    assert found.count == 2
    assert "BENCH_IMAGE_PIXELS" in found.advice
    with pytest.raises(UserError, match=r"over the limit of 2,000 pixels\n.*BENCH_IMAGE_PIXELS="):
        read_image(tmp_path / "images" / NAME)
    monkeypatch.setenv(LIMIT, "4000")
    assert read_image(tmp_path / "images" / NAME).shape == (48, 64, 3)
    assert findings(spec) == {}
    monkeypatch.setenv(LIMIT, "many")
    with pytest.raises(UserError, match="BENCH_IMAGE_PIXELS: not a number of pixels"):
        read_image(tmp_path / "images" / NAME)


# -- names


SPELLINGS = (
    *(
        "images\\" + NAME,
        "images/" + NAME,
        "data\\images\\" + NAME,
        ".\\" + NAME,
        "000000000008.PNG",
        "00000000000%38.png",
    ),
    *("C:\\Users\\me\\photos\\" + NAME, "some/other/folder/" + NAME, ".//.\\" + NAME),
)


@pytest.mark.parametrize("written", SPELLINGS)
def test_obvious_spellings_of_a_name_are_found_and_noted(written: str, tmp_path: Path) -> None:
    spec = exported(tmp_path / "data", val=first("images", file_name=written))
    assert {k for k, _ in findings(spec)} == {"name_variant"}
    (note,) = coco.inspect(spec, "val").notes
    assert "found in another spelling" in note
    assert stored(spec, "val", tmp_path / "out").images[0].file_name == NAME


@pytest.mark.parametrize("suffix", ["jpg", "JPG", "jpeg", "JPEG"])
def test_the_suffix_may_be_written_otherwise(suffix: str, tmp_path: Path) -> None:
    spec = exported(tmp_path, val=first("images", file_name=f"a.{suffix}"))
    Image.new("RGB", (64, 48)).save(tmp_path / "images/a.Jpeg", format="JPEG")
    os.rename(tmp_path / "images/a.Jpeg", tmp_path / "images" / ("a.jpg" if suffix != "jpg" else "a.JPEG"))
    assert {k for k, _ in findings(spec)} == {"name_variant"}


def test_no_spelling_leaves_the_root() -> None:
    for name in ("..\\..\\a.png", "%2e%2e/a.png", "a/../../b.png", "C:\\..\\..\\a.png", "images/../../a.png"):
        assert all(not other.startswith(("/", "..")) for other in variants(name, "images", "train")), name


def test_a_link_to_the_same_file_is_the_same_image(tmp_path: Path) -> None:
    def spoil(document: Any) -> None:
        document["images"].append({**document["images"][0], "id": 88, "file_name": "link.png"})

    spec = exported(tmp_path, val=spoil)
    (tmp_path / "images/link.png").symlink_to(NAME)
    assert findings(spec)["same_file_twice", "val"].examples == ("link.png: images 8 and 88",)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    for name in ("a\0b", "\ud800", "x" * 5000, "http://[", ""):
        found = locate(tmp_path, tmp_path, [(1, candidates({"file_name": name, "coco_url": name}))])
        assert found.names == [None]
        assert set(found.faults) == {"missing_image"}


# -- places


def test_images_beside_their_annotation_file(tmp_path: Path) -> None:
    """Roboflow's COCO export: a folder for each split, each with _annotations.coco.json beside the images."""
    made = exported(tmp_path / "made")
    for split, folder in (("train", "train"), ("val", "valid")):
        (tmp_path / "data" / folder).mkdir(parents=True)
        document = json.loads((tmp_path / "made/annotations" / f"{split}.json").read_text())
        (tmp_path / "data" / folder / "_annotations.coco.json").write_text(json.dumps(document))
        for image in document["images"]:
            shutil.copy(tmp_path / "made/images" / image["file_name"], tmp_path / "data" / folder)
    for images in (".", "images"):
        spec = FolderData(
            name="coco", path=str(tmp_path / "data"), images=images,
            train="train/_annotations.coco.json", val="valid/_annotations.coco.json",
        )  # fmt: skip
        assert {(k, f.severity) for (k, _), f in findings(spec).items()} == {("beside", "note")}
        split = opened(spec, tmp_path / f"out{images}")
        assert [i.file_name for i in split.images] == ["valid/000000000008.png", "valid/000000000009.png"]
        np.testing.assert_array_equal(split.pixels(0), read_image(tmp_path / "made/images" / NAME))
        assert ap(split) == pytest.approx(AP)
    per_split = spec.model_copy(update={"images": {"train": "train", "val": "valid"}})
    assert findings(per_split) == {}
    assert coco.inspect(per_split, "val").fingerprint == coco.inspect(made.model_copy(), "val").fingerprint
    assert opened(per_split, tmp_path / "split").pixels(1).shape == (48, 64, 3)


def test_a_job_finds_the_images_of_its_split(tmp_path: Path) -> None:
    from bench.data.folder import image_root_of

    source = FolderData(name="coco", path=str(tmp_path), images={"train": "a", "val": "b"})
    for split, folder in (("train", "a"), ("val", "b")):
        spec = {"data": {"name": "coco"}, "split": split, "reader": 1, "fingerprint": ""}
        assert image_root_of(Stage("data", spec, not_in_key={"source": source.model_dump()})) == tmp_path / folder
    old = {"name": "coco", "path": str(tmp_path), "train": "t", "val": "v", "images": "i"}  # as it was written before
    assert image_root_of(Stage("data", spec, not_in_key={"source": old})) == tmp_path / "i"


def test_one_folder_or_two() -> None:
    with pytest.raises(ValueError, match="one for train and one for val"):
        FolderData(name="coco", path="x", images={"train": "a"})


def test_the_check_can_leave_images_closed(tmp_path: Path) -> None:
    spec = exported(tmp_path, val=every("images", width=63))
    (tmp_path / "images" / NAME).write_bytes(io.BytesIO(b"no image").getvalue())
    assert findings(spec, decode=False) == {}
    seen: list[tuple[int, int]] = []
    found = findings(spec, progress=lambda done, total: seen.append((done, total)))
    assert {k for k, _ in found} == {"undecodable_image", "size_mismatch"}
    assert seen == [(n, 5) for n in range(1, 6)]
