"""A store that is there already. Separate because who only reads must neither make one where a name is mistyped nor
take another folder for an empty one.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.errors import UserError, did_you_mean
from bench.store import roots
from bench.store.disk import disk_errors
from bench.store.form import is_key
from bench.store.store import Store

HINT = "name it: --store FOLDER, or BENCH_STORE; a run makes it"
SEARCHES = "searches"  # bench/search/study.py makes it before the first root
NEAR = 0.7  # how alike a name must be to be suggested, where anything may lie beside it


def existing(store: Path) -> Store:
    """The store in a folder.

    Raises:
        UserError: there is none.
    """
    if not store.exists():
        raise UserError(
            f"no such store{did_you_mean(store.name, folders(store.parent), NEAR)}", where=str(store), hint=HINT
        )
    return not_another(store)


def not_another(store: Path) -> Store:
    """The store in a folder, in one that is empty, or in none yet.

    Raises:
        UserError: the folder holds other things and nothing of a store.
    """
    found = Store(store)
    if store.is_dir() and not _is_store(store):
        outer = next((f". Did you mean '{folder}'?" for folder in store.parents[:2] if _is_store(folder)), "")
        raise UserError(f"no store: no suite was run on this folder{outer}", where=str(store), hint=HINT)
    return found


def _is_store(folder: Path) -> bool:
    """Whether a folder is empty (hidden files do not count) or has what a run leaves first."""
    with disk_errors(folder):
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    if not names or roots.FOLDER in names or SEARCHES in names:
        return True
    return any(is_key(name) and os.path.isfile(folder / name / "stage.json") for name in names)


def folders(parent: Path) -> list[str]:
    """The names of the folders in a folder, sorted; none where it cannot be read."""
    try:
        return sorted(entry.name for entry in os.scandir(parent) if entry.is_dir())
    except OSError:
        return []
