"""Longtail-bench: compare methods for long-tailed object detection fairly.

import bench
bench.results("suites/table1.yaml", store="store")      # a pandas frame, see reports/frames.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.frames import results as results

    __version__: str


def __getattr__(name: str) -> Any:
    """`__version__` and `results`, looked up when somebody asks: importing the package loads nothing."""
    if name == "__version__":
        return _version()
    if name == "results":
        from reports.frames import results

        return results
    raise AttributeError(f"module 'bench' has no attribute '{name}'")


def _version() -> str:
    """That of pyproject.toml beside this package, or of the installed package where there is none (a job's copy)."""
    import tomllib
    from importlib import metadata
    from pathlib import Path

    try:
        project = Path(__file__).resolve().parent.parent / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, ValueError, KeyError):
        try:
            return metadata.version("longtail-bench")
        except metadata.PackageNotFoundError:
            return "unknown"
