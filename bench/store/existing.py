"""A store that must be there already. Separate because who only reads must not make one where a name is mistyped."""

from __future__ import annotations

import os
from pathlib import Path

from bench.errors import UserError, did_you_mean
from bench.store.store import Store

NEAR = 0.7  # how alike a name must be to be suggested, where anything may lie beside it


def existing(store: Path) -> Store:
    """The store in a folder.

    Raises:
        UserError: there is none.
    """
    if not store.exists():
        hint = "name it: --store FOLDER, or BENCH_STORE; a run makes it"
        raise UserError(
            f"no such store{did_you_mean(store.name, folders(store.parent), NEAR)}", where=str(store), hint=hint
        )
    return Store(store)


def folders(parent: Path) -> list[str]:
    """The names of the folders in a folder, sorted; none where it cannot be read."""
    try:
        return sorted(entry.name for entry in os.scandir(parent) if entry.is_dir())
    except OSError:
        return []
