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

from bench.data.pixels import depth_of, eight_bit
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
    if ".." not in name and not name.startswith(("/", "\\")):  # most names
        return False
    clean = posixpath.normpath(name.replace("\\", "/"))
    return clean.startswith(("/", "../")) or clean == ".." or os.path.isabs(name)


def locate(root: Path, beside: Path, images: Sequence[tuple[int, tuple[str, ...]]]) -> Located:
    """Find each image, given as (id, candidates).

    Args:
        root: the image root.
        beside: folder of the annotation file, looked into if it lies below the root.
    """
    found = Located()
    near, files = _below(root, beside), _Files(str(root))
    seen: dict[str, int] = {}
    for identity, names in images:
        name, size, file = _find(files, near, identity, names, found)
        found.names.append(name)
        found.sizes.append(size)
        if name is None:
            continue
        same = seen.setdefault(file, identity)
        if same != identity:
            _add(found.faults, "same_file_twice", f"{shown(name)}: images {shown(same)} and {shown(identity)}")
        depth = "8" if eight_bit(name) else depth_of(root / name)
        if depth == "other":
            _add(found.faults, "unreadable_depth", shown(name))
        elif depth == "16":
            _add(found.mends, "sixteen_bit", shown(name))
    return found


def _find(
    files: _Files, near: str | None, identity: int, names: tuple[str, ...], found: Located
) -> tuple[str | None, int, str]:
    """Name below the root, bytes, and which file it is; None where there is none."""
    for name in names:
        if leaves_root(name):
            _add(found.faults, "outside_root", f"'{shown(name)}'")
            return None, 0, ""
    for name in names:
        if file := files.named(name):
            return name, *file
    for name in names if near else ():
        if file := files.named(f"{near}/{name}"):
            _add(found.mends, "beside", shown(f"{near}/{name}"))
            return f"{near}/{name}", *file
    for name in names:
        for other in variants(name, os.path.basename(files.root), near):
            if file := files.named(other):
                _add(found.mends, "name_variant", f"{shown(name)} is {shown(other)}")
                return other, *file
    what = " or ".join(shown(n) for n in names) or f"image {shown(identity)} without a name"
    _add(found.faults, "missing_image", what)
    return None, 0, ""


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


class _Files:
    """The files below a root. Each folder is looked for once: that of LVIS v1's first names is mostly not there."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._folders: dict[str, bool] = {}

    def named(self, name: str) -> tuple[int, str] | None:
        """Bytes of a file below the root, and a text that is the same for the same file, whatever its spelling.

        None: there is no such file. Hard links are files of their own.
        """
        path = f"{self.root}/{name}"
        folder = name[: max(0, name.rfind("/"))]
        if folder and not self._is_folder(folder):
            return None
        try:
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode):
                return found.st_size, posixpath.normpath(name) if "//" in name or "./" in name else name
            found = os.stat(path)
            if stat.S_ISREG(found.st_mode):
                return found.st_size, os.path.relpath(os.path.realpath(path), os.path.realpath(self.root))
        except (OSError, ValueError):  # ValueError: a NUL, or half of a surrogate pair
            return None
        return None

    def _is_folder(self, folder: str) -> bool:
        if folder not in self._folders:
            self._folders[folder] = os.path.isdir(f"{self.root}/{folder}")
        return self._folders[folder]


def _add(kinds: dict[str, list[str]], kind: str, entry: str) -> None:
    kinds.setdefault(kind, []).append(entry)
