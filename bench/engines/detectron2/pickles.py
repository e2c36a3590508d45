"""The pickles of detectron2's zoo, read without running code of them. Separate because it is what stands between a
stranger's file and this process.

A pickle may ask for any function by its name. Here every name is refused but those that numpy's arrays are made of, and
for these stand classes of our own, so that not even numpy sees what is unchecked.
"""

from __future__ import annotations

import collections
import pickle
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError


class Refused(pickle.UnpicklingError):
    """A pickle asks for a name that no file of weights needs."""


def read_arrays(path: str) -> dict[str, Tensor]:
    """The tensors of a .pkl: of its entry `model` or `blobs`, or of the whole.

    Raises:
        UserError: it cannot be read, or asks for anything but arrays.
    """
    try:
        with open(path, "rb") as file:
            content = _Reader(file, encoding="latin1").load()
        named = content.get("model", content.get("blobs", content))
        # What is no array (the optimiser's rate in files of Caffe2) is no weight.
        return {str(name): value.tensor() for name, value in named.items() if isinstance(value, _Array)}
    except Refused as error:
        raise UserError(
            f"'{path}' was not read: it asks for {error}, and a file of weights needs arrays alone",
            where="detector.weights", hint="a pickle can run any program; get it again from where you trust it",
        ) from None  # fmt: skip
    except Exception as error:  # what a damaged pickle raises is not bounded
        what = f"cannot read '{path}': damaged, cut short, or not a zoo's file ({type(error).__name__})"
        raise UserError(what, where="detector.weights", allowed="a pickle of arrays by name") from error


class _Reader(pickle.Unpickler):
    """Reads what arrays are made of into stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            _refuse(f"{module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> NoReturn:
        _refuse("an object outside the file")


def _refuse(what: str) -> NoReturn:
    raise Refused(what)


class _Dtype:
    """Stands for numpy.dtype: real numbers only."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[<>|=]?(?:[fiu][1248]|b1)", str(code)):
            _refuse(f"values of type {code}")
        self.code, self.order = str(code).lstrip("<>|="), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """Stands for numpy.ndarray."""

    def __init__(self) -> None:
        self._value: np.ndarray[Any, Any] = np.zeros(0, np.float32)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self._value = _from_bytes(data, dtype, shape, "F" if fortran else "C")

    def tensor(self) -> Tensor:
        """A copy, in the byte order of this machine."""
        value = np.ascontiguousarray(self._value).reshape(self._value.shape)
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=True))

    @classmethod
    def of(cls, data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
        """As numpy's own function of protocol 5."""
        made = cls()
        made._value = _from_bytes(data, dtype, shape, order)
        return made


def _from_bytes(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> np.ndarray[Any, Any]:
    flat = np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype.numpy())
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _empty(*_: object) -> _Array:
    """Of numpy's _reconstruct: what follows sets the state."""
    return _Array()


def _scalar(dtype: _Dtype, data: Any) -> Any:
    return _from_bytes(data, dtype, (), "C").item()


def _bytes(text: str, coding: str) -> bytes:
    if coding != "latin1":
        _refuse(f"the coding {coding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _Array.of,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _bytes,
    ("__builtin__", "bytes"): _no_bytes,
}
