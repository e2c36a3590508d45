"""What ran where: commit, versions, machine. Separate because it is in the record and never in a key.

Nothing is imported to learn its version, nothing may fail, and nothing takes longer than a few seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parent.parent
# What can change a number, or how it was launched.
PACKAGES = (
    "torch", "torchvision", "numpy", "pillow", "safetensors", "pydantic", "faster-coco-eval", "lvis", "pycocotools",
    "submitit", "mlflow", "optuna", "detectron2",
)  # fmt: skip
SECONDS = 10.0  # longest wait for git or nvidia-smi


def capture(root: Path = TREE) -> dict[str, Any]:
    """JSON-like description of this process's surroundings; None for what cannot be known.

    Args:
        root: the checkout whose commit is meant.

    Returns:
        commit, dirty (None: as committed; else sha256 of the difference), python, packages (name -> version, those
        installed), host, system, cpu, cpus (usable by this process), omp_num_threads, gpus (names).
    """
    return {
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": _difference(root),
        "python": platform.python_version(),
        "packages": _packages(),
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "gpus": _gpus(),
    }


def _run(command: list[str], cwd: Path | None = None) -> bytes | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        # No optional locks: a job must not stop a commit that its user makes meanwhile.
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
        ).stdout
    return None


def _git(root: Path, *arguments: str) -> str | None:
    output = _run(["git", *arguments], cwd=root)
    return None if output is None else output.decode(errors="replace").strip()


def _difference(root: Path) -> str | None:
    """sha256 over `git diff HEAD` and the names and contents of untracked files."""
    change = _run(["git", "diff", "HEAD", "--binary", "--no-ext-diff", "--no-color"], cwd=root)
    untracked = _run(["git", "ls-files", "--others", "--exclude-standard", "-z"], cwd=root)
    if not change and not untracked:
        return None
    total = hashlib.sha256(change or b"")
    for name in sorted((untracked or b"").split(b"\0")):
        if name:
            total.update(b"\0" + name + b"\0")
            with contextlib.suppress(OSError), open(os.path.join(os.fsencode(root), name), "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = _build(name) or metadata.version(name)
    return found


def _build(name: str) -> str | None:
    """Version with its build (2.15.0+cu132), which the metadata of torch and torchvision may leave out."""
    if name not in ("torch", "torchvision"):
        return None
    with contextlib.suppress(ImportError, OSError, ValueError):
        spec = importlib.util.find_spec(name)  # of a top-level name: imports nothing
        if spec and spec.origin:
            text = Path(spec.origin).with_name("version.py").read_text(errors="replace")
            written = re.search(r"^__version__\b.*?['\"](.+?)['\"]", text, re.MULTILINE)
            return written.group(1) if written else None
    return None


def _cpu() -> str | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    output = _run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return [line.strip() for line in (output or b"").decode(errors="replace").splitlines() if line.strip()]
