"""Parts that lie outside the product are run as they were planned, or not at all. Separate from job.py because a queued
job may start days after somebody has edited the file.

The digest of such a file is the part's version, and so in the key (bench/key.py); code of the product is copied when a
job is submitted (bench/run/snapshot.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.key import changed_since, signature_of

_DIGITS = 16  # of a file's sha256 that stand as version; a part of the product has a small whole number


def check(specs: Iterable[Any]) -> None:
    """Refuse specs whose outside parts have changed since they were planned.

    Args:
        specs: of a stage and of all its sources (a model is assembled along its lineage), as in stage.json.

    Raises:
        UserError: a file has changed or is missing.
    """
    planned = {(ref, version) for spec in specs for ref, version in _parts(spec) if len(version) == _DIGITS}
    for ref, version in sorted(planned):
        if signature_of(ref).version != version:
            raise changed_since(ref)


def _parts(value: Any) -> Iterator[tuple[str, str]]:
    """(reference, version) of all parts in a spec, those in settings of others too."""
    if isinstance(value, Mapping):
        if "part" in value and "version" in value:
            yield str(value["part"]), str(value["version"])
        for inner in value.values():
            yield from _parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner)
