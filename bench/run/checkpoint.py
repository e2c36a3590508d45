"""Weights and checkpoints on disk. Separate from the store (no torch there) and from train (which knows no formats).

A checkpoint is one safetensors file (weights, buffers, optimiser, all by name) with a sha256 file beside it; one that
is truncated or corrupt is skipped and the one before it is taken. It holds no random state: every draw has an address.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from bench.errors import UserError
from bench.store.disk import disk_errors, make_folder, read_bytes, remove, write_atomic
from bench.store.form import is_number

KEEP = 2  # the newest, and the one before it in case the newest is corrupt
_META = "meta"


def save(
    folder: Path, step: int, state: Mapping[str, Tensor], meta: Mapping[str, Any], older: Sequence[Path] = ()
) -> Path:
    """Write checkpoint-<step>.safetensors and its checksum; of the older ones one is kept.

    Args:
        folder: the attempt's folder.
        step: optimiser steps done.
        state: tensors by name, any device.
        meta: JSON-like; comes back from `newest` as it went in (NaN and infinity too).
        older: folders of earlier attempts, whose checkpoints are removed once this one has `KEEP`.

    Raises:
        UserError: it cannot be written (disk full, read-only); no partial file is left and the older ones stay.
    """
    make_folder(folder)
    path = folder / f"checkpoint-{step}.safetensors"
    data = _to_bytes(state, {**meta, "step": step})
    # The checksum comes last: a kill between the two leaves a file without one, which `newest` skips.
    with disk_errors(path, len(data)):
        remove(_checksum_of(path))
        write_atomic(path, data)
        write_atomic(_checksum_of(path), hashlib.sha256(data).hexdigest().encode())
        complete = [old for old in _found([folder]) if _checksum_of(old).exists()]
        outdated = _found([path for path in older if path != folder]) if len(complete) >= KEEP else []
        for old in [*complete[KEEP:], *outdated]:
            remove(_checksum_of(old))
            remove(old)
    return path


def newest(
    folders: Sequence[Path],
    warn: Callable[[str], None] = lambda text: None,
    accept: Callable[[Mapping[str, Any]], bool] = lambda meta: True,
) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """The checkpoint of the highest step whose checksum matches, over all attempts.

    Args:
        folders: `store.attempts(key)`; of equal steps that of the later folder is taken.
        warn: called with one line per skipped checkpoint.
        accept: whether a checkpoint with this meta may be taken.

    Returns:
        (step, tensors on the CPU, meta), or None where there is no intact checkpoint.
    """
    for path in _found(folders):
        try:
            data = read_bytes(path)
            checksum = read_bytes(_checksum_of(path)).decode("ascii", "replace")
        except FileNotFoundError:
            warn(f"{path}: without a checksum (killed while saving), skipped")
            continue
        if hashlib.sha256(data).hexdigest() != checksum:
            warn(f"{path}: its checksum does not match (truncated or corrupt), skipped")
            continue
        meta = _meta_of(data)
        if not accept(meta):
            warn(f"{path}: made from other inputs, skipped")
            continue
        return int(meta.pop("step")), safetensors.torch.load(data), meta
    return None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write final weights: equal tensors give equal bytes (safetensors orders them by itself; no metadata).

    Raises:
        UserError: it cannot be written.
    """
    write_atomic(path, _to_bytes(tensors, None))


def read_tensors(path: Path, digest: str | None = None) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote, onto the CPU.

    Args:
        path: a safetensors file.
        digest: its sha256 (`Done.digests`), to be checked where given.

    Raises:
        UserError: missing, not a safetensors file, cut, or of another digest.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError as error:
        raise UserError("no such weight file", where=str(path)) from error
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise UserError("the weights are corrupt: the sha256 is not the recorded one", where=str(path), hint=_AGAIN)
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError) as error:
        what = f"not a whole safetensors file ({error})"
        raise UserError(what, where=str(path), hint=_AGAIN) from error


def flatten(tree: Any, prefix: str) -> tuple[dict[str, Tensor], Any]:
    """Take the tensors out of a nested value, such as an optimiser's state_dict.

    Args:
        tree: dicts (keys str or int), lists, tuples, tensors, numbers, strings, None.
        prefix: what the tensors' names begin with.

    Returns:
        (tensors by name, a JSON-like skeleton); `unflatten` of both gives an equal tree with equal types and dtypes.

    Raises:
        TypeError: a value of another type.
    """
    tensors: dict[str, Tensor] = {}

    def visit(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            tensors[name] = value
            return {"tensor": name}
        if isinstance(value, dict):
            return {"dict": [[_key(key), visit(item, f"{name}.{key}")] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [visit(item, f"{name}.{i}") for i, item in enumerate(value)]}
        if value is None or isinstance(value, bool | int | float | str):
            return {"value": value}
        raise TypeError(f"{name}: a {type(value).__name__} cannot go into a checkpoint")

    return tensors, visit(tree, prefix)


def unflatten(tensors: Mapping[str, Tensor], skeleton: Any) -> Any:
    """The inverse of `flatten`; `tensors` may hold more than the skeleton names."""
    kind, value = next(iter(skeleton.items()))
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: unflatten(tensors, item) for key, item in value}
    if kind in ("list", "tuple"):
        items = [unflatten(tensors, item) for item in value]
        return items if kind == "list" else tuple(items)
    return value


_AGAIN = "delete it, or run the suite again: a stage with a broken output is redone"


def _key(key: Any) -> str | int:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise TypeError(f"{key!r}: a checkpoint's dicts have str or int keys")
    return key


def _to_bytes(tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None) -> bytes:
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        # safetensors refuses two names for one memory (tied weights, views): each is copied.
        memory = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    # One entry only: several come out of safetensors in an order that differs from process to process.
    return safetensors.torch.save(plain, None if meta is None else {_META: json.dumps(dict(meta), sort_keys=True)})


def _meta_of(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    meta: dict[str, Any] = json.loads(header["__metadata__"][_META])
    return meta


def _checksum_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _found(folders: Sequence[Path]) -> list[Path]:
    """Checkpoints, best first."""
    found = []
    for order, folder in enumerate(folders):
        for path in folder.glob("checkpoint-*.safetensors"):
            step = path.name.removeprefix("checkpoint-").removesuffix(".safetensors")
            if is_number(step):
                found.append((int(step), order, path))
    return [path for _, _, path in sorted(found, reverse=True)]
