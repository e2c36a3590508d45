"""What planning needs of an annotation file, read once: its digest and its summary, kept in the user's own cache.

Separate from entries.py, which reads. A large file takes half a minute, and a plan that changes nothing would read it
each time. A kept summary is used as long as the file has the same path, size and times, and the code that read it is
the same; only files without a fault are kept. Nothing depends on the cache: what cannot be read or written there is
read anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data import areas, entries, names, quick, values
from bench.data.entries import Mend, Summary, read_entries
from bench.errors import UserError, parsed
from bench.store import own
from bench.store.disk import write_atomic

FOLDER = "annotations"  # below the user's cache
SMALLEST = 1_000_000  # bytes of a file that is worth it
_SETTLED = 2e9  # nanoseconds: a file that was written just now may be written again within the same tick
_CODE = (areas, entries, names, quick, values)

Stamp = tuple[int, int, int]


def stamp_of(file: Path) -> Stamp:
    """Size and times of a file: while they are the same, it has not changed. Raises OSError."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


@functools.lru_cache(maxsize=8)
def summary_of(file: Path, stamp: Stamp, lists: bool) -> tuple[str, Summary]:
    """sha256 and summary of an annotation file with this stamp.

    Raises:
        UserError: the file is damaged.
    """
    large = stamp[0] >= SMALLEST
    place = _place(file, lists)
    kept = _kept(place, file, stamp) if large else None
    if kept is not None:
        return kept
    summary = read_entries(file, lists=lists, keep=False).summary
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if large and not summary.faults and time.time_ns() - max(stamp[1:]) > _SETTLED and stamp == stamp_of(file):
        _keep(place, {"stamp": stamp, "code": _code(), "digest": digest, **_to_json(summary)})
    return digest, summary


def _place(file: Path, lists: bool) -> Path:
    name = hashlib.sha256(f"{os.path.abspath(file)} {lists}".encode(errors="surrogateescape")).hexdigest()
    return own.cache() / FOLDER / f"{name[:32]}.json"


def _kept(place: Path, file: Path, stamp: Stamp) -> tuple[str, Summary] | None:
    try:
        if place.stat().st_uid != os.getuid():
            return None
        with quick.no_collection():
            value = parsed(place.read_bytes())
        if value["stamp"] != list(stamp) or value["code"] != _code():
            return None
        return str(value["digest"]), _from_json(value, file)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(place: Path, value: Mapping[str, Any]) -> None:
    """A cache that cannot be written is no fault."""
    with contextlib.suppress(UserError, OSError):
        own.private(FOLDER)
        write_atomic(place, json.dumps(value).encode("ascii"))


@functools.cache
def _code() -> str:
    """Digest of the code that reads: after a change of it everything is read again."""
    texts = [Path(str(module.__file__)).read_bytes() for module in _CODE]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _to_json(summary: Summary) -> dict[str, Any]:
    return {
        "images": summary.images,
        "categories": list(summary.categories.items()),
        "mends": [[kind, mend.count, mend.examples] for kind, mend in summary.mends.items()],
        "used": list(summary.used.items()),
        "listed": list(summary.listed.items()),
        "counts": list(summary.counts.items()),
        "boxes": [summary.boxes, summary.countable],
        "lists": [summary.negatives, summary.lists],
        "sides": summary.sides,
    }


def _from_json(value: Mapping[str, Any], file: Path) -> Summary:
    return Summary(
        file=file,
        images=[(identity, tuple(names)) for identity, names in value["images"]],
        categories=dict(value["categories"]),
        mends={kind: Mend(count, examples) for kind, count, examples in value["mends"]},
        used={identity: (count, label) for identity, (count, label) in value["used"]},
        listed={identity: (count, label) for identity, (count, label) in value["listed"]},
        counts={identity: (instances, images) for identity, (instances, images) in value["counts"]},
        boxes=value["boxes"][0],
        countable=value["boxes"][1],
        negatives=value["lists"][0],
        lists=value["lists"][1],
        sides=[(w, h, width, height) for w, h, width, height in value["sides"]],
    )
