"""Longtail-bench: compare methods for long-tailed object detection fairly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> Any:
    """`__version__`, read when somebody asks: that of pyproject.toml beside this package, or of the installed package
    where there is none (a copy for a job)."""
    if name != "__version__":
        raise AttributeError(f"module 'bench' has no attribute '{name}'")
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
