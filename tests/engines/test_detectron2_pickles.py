"""Zoo files are read without running code of them. Needs no detectron2."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.engines.detectron2.weights import read_file
from bench.errors import UserError


class Does:
    """What pickle runs where it is read."""

    def __init__(self, what: Any, *arguments: Any) -> None:
        self.what, self.arguments = what, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.what, self.arguments


def written(path: Path, content: Any, protocol: int = 2) -> str:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return str(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_arrays_come_back_whatever_the_protocol(protocol: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays = {
        "float": draw.normal(size=shape).astype(np.float32), "half": draw.normal(size=shape).astype(np.float16),
        "double": draw.normal(size=shape), "count": draw.integers(0, 99, shape), "mask": draw.normal(size=shape) > 0,
        "big": draw.normal(size=shape).astype(">f4"), "turned": np.asarray(draw.normal(size=shape), order="F"),
    }  # fmt: skip
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    content = {"model": collections.OrderedDict(arrays), "__author__": "Detectron2 Model Zoo", "iteration": np.int64(7)}
    found = read_file(written(tmp_path / "a.pkl", content, protocol))
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        assert found[name].shape == shape
        assert np.array_equal(found[name].numpy(), value), name
        assert found[name].dtype == torch.from_numpy(np.asarray(value, value.dtype.newbyteorder("="))).dtype


def test_files_of_caffe2_have_blobs_or_nothing_around_them(tmp_path: Path) -> None:
    arrays = {"conv1_w": np.ones((2, 3), np.float32), "lr": 0.1}
    for content in (arrays, {"blobs": arrays, "cfg": "text"}):
        assert list(read_file(written(tmp_path / "a.pkl", content))) == ["conv1_w"]


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """As files of 2017 are: bytes are text, and numpy's modules have the names of then."""
    data = np.arange(250, 254, dtype=np.uint8).tobytes()
    lines = [
        b"(dp0\nS'conv1_w'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR",
        b"(I1\n(I4\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS" + repr(data)[1:].encode(),
        b"\ntbs.",
    ]
    (tmp_path / "a.pkl").write_bytes(b"".join(lines))
    assert read_file(str(tmp_path / "a.pkl"))["conv1_w"].tolist() == [250, 251, 252, 253]


@pytest.mark.parametrize(
    ("hidden", "asked"),
    [
        (Does(os.system, "touch done"), "posix.system"),
        (Does(eval, "open('done', 'w')"), "eval"),
        (Does(getattr, 1, "real"), "getattr"),
        (Does(np.load, "done.npy"), "numpy.load"),
        (Does(np.dtype, "O"), "values of type O"),
        (Does(np.dtype, "V8"), "values of type V8"),
        (np.array([Does(os.system, "touch done")], dtype=object), "posix.system|values of type O"),
        (np.zeros(2, dtype=[("a", "f4")]), "values of type"),
        (torch.zeros(2), "torch"),
        (Path("done"), "pathlib"),
    ],
    ids=["system", "eval", "getattr", "load", "objects", "raw", "array of objects", "fields", "tensor", "path"],
)
def test_what_asks_for_anything_else_is_refused(
    hidden: Any, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4):
        file = written(tmp_path / "a.pkl", {"model": {"a": np.zeros(1), "b": hidden}}, protocol)
        with pytest.raises(UserError, match=f"was not read: it asks for .*(?:{asked})"):
            read_file(file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_objects_outside_the_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02X\x01\x00\x00\x00aQ.")
    with pytest.raises(UserError, match="it asks for an object outside the file"):
        read_file(str(tmp_path / "a.pkl"))


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"text", pickle.dumps([1, 2]), pickle.dumps({"model": 3})])
def test_what_is_no_file_of_weights_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(UserError, match="cannot read"):
        read_file(str(tmp_path / "a.pkl"))


def test_a_file_cut_short_or_with_a_wrong_shape_is_damaged(tmp_path: Path) -> None:
    whole = pickle.dumps({"model": {"a": np.arange(6.0)}}, protocol=2)
    for content in (whole[:-20], whole.replace(b"K\x06\x85", b"K\x05\x85")):
        assert content != whole
        (tmp_path / "a.pkl").write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            read_file(str(tmp_path / "a.pkl"))


def test_other_files_are_those_of_torchvision_or_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(2)}, tmp_path / "plain.pth")
    torch.save({"model": {"a": torch.ones(2)}, "iteration": 3, "optimizer": {}}, tmp_path / "training.pth")
    torch.save({"model": [1]}, tmp_path / "other.pth")
    assert list(read_file(str(tmp_path / "plain.pth"))) == ["conv1.weight"]
    assert list(read_file(str(tmp_path / "training.pth"))) == ["a"]
    with pytest.raises(UserError, match="is not a state dict of tensors"):
        read_file(str(tmp_path / "other.pth"))
    with pytest.raises(UserError, match="no file"):
        read_file(str(tmp_path / "nothing.pkl"))
