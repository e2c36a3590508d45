"""What a refusal looks like, and that it leaves everything as it was. Shared by the tests of bad input."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bench.store.store import Store
from tests.conftest import Ran


def refused(ran: Ran, *patterns: str) -> None:
    """One message on stderr that says all this, exit code 2, no traceback."""
    assert ran.code == 2, ran.out + ran.err
    assert "Traceback" not in ran.err + ran.out
    assert ran.err.startswith("error: "), ran.err
    assert len(re.findall("^error: ", ran.err, re.M)) == 1, ran.err
    assert len(ran.err.splitlines()) <= 3, ran.err
    for pattern in patterns:
        assert re.search(pattern, ran.err), f"{pattern!r} is not in {ran.err!r}"


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below, with size and time of its last change."""
    found = {p: p.stat() for p in folder.rglob("*")}
    return {str(p.relative_to(folder)): (s.st_size, s.st_mtime_ns) for p, s in found.items() if not p.is_dir()}


def kept_store(folder: Path) -> Iterator[Path]:
    """A store that holds something; it is the same afterwards. For a fixture."""
    (folder / "0123abc").mkdir(parents=True)
    (folder / "0123abc" / "stage.json").write_text("{}")
    before = tree(folder)
    yield folder
    assert tree(folder) == before


def states(root: Path) -> dict[str, str]:
    """Kind -> state of the stages of a store with one stage of a kind (or several of one state)."""
    store = Store(root)
    keys = store.keys()
    return {store.load(key)["kind"]: "done" if store.done(key) else "missing" for key in keys}
