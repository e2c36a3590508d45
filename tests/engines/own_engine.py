"""The package of examples/own_engine, as if it were installed: its folder is on the path. Separate because tests of
engines and of their promises use it."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.conftest import ROOT

FOLDER = ROOT / "examples" / "own_engine"
sys.path.append(str(FOLDER))

from grid_engine import GRID, SIDE, detector  # noqa: E402

__all__ = ["FOLDER", "GRID", "SIDE", "detector", "install"]


def install(folder: Path, name: str, entries: dict[str, str], version: str = "0.1") -> None:
    """What `pip install` leaves of a package's entry points in a folder of the path: {name: "module:object"}."""
    made = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
    (made / "entry_points.txt").write_text(f"[longtail_bench.engines]\n{lines}")
