"""Where the images of an annotation file lie. Separate from folder.py because check, reader and converter find them
alike.

A name is looked for below the image root as it is written, then beside the annotation file, then in the obvious other
spellings (backslashes, percent signs, another case of the suffix, the root's own name in front). No file outside the
image root is looked at.
"""

from __future__ import annotations

import os
import posixpath
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bench.data.pixels import depth_of
from bench.data.values import shown

_COCO_NAME = 16  # "000000266409.jpg": LVIS v0.5 writes COCO_val2014_000000266409.jpg for an image of train2017
_SUFFIXES = (".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG")
_ONE_JPEG = ({".jpg", ".jpeg"}, {".png"})


@dataclass(frozen=True)
class Located:
    """The images of a split on disk.

    Attributes:
        names: per image the name below the root, or None.
        sizes: per image its bytes.
        faults, mends: kind -> entries (bench/data/kinds.py).
    """

    names: list[str | None] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    mends: dict[str, list[str]] = field(default_factory=dict)


def candidates(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Where below the image root an image may lie, likeliest first: file_name (v0.5), then coco_url (v1)."""
    found: list[str] = []
    name, url = entry.get("file_name"), entry.get("coco_url")
    if isinstance(name, str) and name:
        found.append(name)
    if isinstance(url, str) and url:
        parts = [p for p in _url_path(url).split("/") if p]
        found += ["/".join(parts[-2:]), *parts[-1:]]
    if isinstance(name, str) and name.startswith("COCO_"):
        found.append(name[-_COCO_NAME:])
    return tuple(dict.fromkeys(found))


def leaves_root(name: str) -> bool:
    """Whether a name points outside the folder it is relative to."""
    clean = posixpath.normpath(name.replace("\\", "/"))
    return clean.startswith(("/", "../")) or clean == ".." or os.path.isabs(name)


def locate(root: Path, beside: Path, images: Sequence[tuple[int, tuple[str, ...]]]) -> Located:
    """Find each image, given as (id, candidates).

    Args:
        root: the image root.
        beside: folder of the annotation file, looked into if it lies below the root.
    """
    found = Located()
    near = _below(root, beside)
    seen: dict[str, int] = {}
    for identity, names in images:
        name, size = _find(root, near, identity, names, found)
        found.names.append(name)
        found.sizes.append(size)
        if name is None:
            continue
        same = seen.setdefault(_identity(root, name), identity)
        if same != identity:
            _add(found.faults, "same_file_twice", f"{shown(name)}: images {shown(same)} and {shown(identity)}")
        depth = depth_of(root / name)
        if depth == "other":
            _add(found.faults, "unreadable_depth", shown(name))
        elif depth == "16":
            _add(found.mends, "sixteen_bit", shown(name))
    return found


def _find(
    root: Path, near: str | None, identity: int, names: tuple[str, ...], found: Located
) -> tuple[str | None, int]:
    outside = next((name for name in names if leaves_root(name)), None)
    if outside is not None:
        _add(found.faults, "outside_root", f"'{shown(outside)}'")
        return None, 0
    for name in names:
        if (size := _size(root, name)) is not None:
            return name, size
    if near:
        for name in names:
            if (size := _size(root, f"{near}/{name}")) is not None:
                _add(found.mends, "beside", shown(f"{near}/{name}"))
                return f"{near}/{name}", size
    for name in names:
        for other in variants(name, root.name, near):
            if (size := _size(root, other)) is not None:
                _add(found.mends, "name_variant", f"{shown(name)} is {shown(other)}")
                return other, size
    _add(
        found.faults, "missing_image", " or ".join(shown(n) for n in names) or f"image {shown(identity)} without a name"
    )
    return None, 0


def variants(name: str, root: str, near: str | None) -> Iterator[str]:
    """Other spellings of an image name that stay below the root, likeliest first.

    Args:
        root: the name of the image root, which may stand in front once more.
        near: folder of the annotation file below the root, if it is there.
    """
    clean = posixpath.normpath(unquote(name, errors="replace").replace("\\", "/"))
    bare = [posixpath.normpath(name.replace("\\", "/")), clean]
    parts = clean.split("/")
    bare += ["/".join(parts[i:]) for i in range(1, len(parts)) if parts[i - 1] == root]
    bare.append(parts[-1])
    bare += [unicodedata.normalize(form, one) for one in (bare[-1], clean) for form in ("NFC", "NFD")]
    tried = {name}
    for one in bare:
        stem, suffix = posixpath.splitext(one)
        group = next((g for g in _ONE_JPEG if suffix.lower() in g), {suffix.lower()})
        for end in (suffix, *(s for s in _SUFFIXES if s.lower() in group), suffix.lower(), suffix.upper()):
            for other in (stem + end, f"{near}/{stem}{end}") if near else (stem + end,):
                if other not in tried and not leaves_root(other):
                    tried.add(other)
                    yield other


def _url_path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:  # e.g. a bracket that is not closed
        return url


def _below(root: Path, folder: Path) -> str | None:
    """The folder as a name below the root; None if it is the root or elsewhere."""
    try:
        inside = folder.resolve().relative_to(root.resolve()).as_posix()
    except (ValueError, OSError):
        return None
    return None if inside == "." else inside


def _size(root: Path, name: str) -> int | None:
    """Bytes of a file below the root; None: there is no such file."""
    try:
        found = os.stat(f"{root}/{name}")
    except (OSError, ValueError):  # ValueError: a NUL, or half of a surrogate pair
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _identity(root: Path, name: str) -> str:
    """The same text for the same file, whatever its spelling. Hard links are files of their own."""
    clean = posixpath.normpath(name)
    full = f"{root}/{clean}"
    return os.path.relpath(os.path.realpath(full), os.path.realpath(root)) if os.path.islink(full) else clean


def _add(kinds: dict[str, list[str]], kind: str, entry: str) -> None:
    kinds.setdefault(kind, []).append(entry)
