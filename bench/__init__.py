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
        from bench.environment import version

        return version()
    if name == "results":
        from reports.frames import results

        return results
    raise AttributeError(f"module 'bench' has no attribute '{name}'")
