"""What ran where: commit, versions, machine. Separate because it is in the record and never in a key.

No package is imported for its version, nothing raises, and nothing takes longer than a few seconds.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.errors import parsed
from bench.launchers import LAUNCHERS

TREE = Path(__file__).resolve().parent.parent
# What can change a number, or how it was launched.
PACKAGES = (
    "torch", "torchvision", "numpy", "pillow", "safetensors", "pydantic", "faster-coco-eval", "lvis", "pycocotools",
    "submitit", "mlflow", "optuna", "detectron2",
)  # fmt: skip
SECONDS = 10.0  # longest wait for git or nvidia-smi
LARGE = 10_000_000  # bytes; untracked files from this size on count by their size: they are data, and slow to read
ORIGIN = "snapshot.json"  # in a copy of the product (bench/run/snapshot.py): the commit it was taken from
PER_ATTEMPT = (*LAUNCHERS, "seed", "workers")  # not compared between rows: no footnote on a mixture


@functools.cache
def of_this_process() -> dict[str, Any]:
    """`capture`, once per process: its result does not change, and git and nvidia-smi are slow."""
    return capture()


def capture(root: Path = TREE) -> dict[str, Any]:
    """JSON-like description of where this process runs; None for what is unknown.

    Args:
        root: the checkout of the commit.

    Returns:
        commit, dirty (None: as committed; else sha256 of the difference), python, packages (name -> version, those
        installed), cuda (that torch was built for), host, system, cpu, cpus (usable by this process), omp_num_threads,
        gpus (names), gpu_driver; in a job of a queue that queue's kind (see
        LauncherFacts.environment). Of a copy of the product: commit and dirty of the checkout it was taken from.
    """
    gpus, driver = _gpus()
    return {
        **source(root),
        "python": platform.python_version(),
        "packages": _packages(),
        "cuda": _version_line("torch", "cuda"),
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "gpus": gpus,
        "gpu_driver": driver,
        **_queued(),
    }


def job_of(environment: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The kind of queue whose job an attempt was, and what is recorded of that job; ("", {}) without one."""
    found = ((kind, environment.get(kind)) for kind in LAUNCHERS)
    return next(((kind, job) for kind, job in found if isinstance(job, Mapping) and job), ("", {}))


def _queued() -> dict[str, dict[str, str]]:
    """The variables of each queue in this process's environment, by kind; without those that set none."""
    found = {
        kind: {name: os.environ[variable] for name, variable in facts.environment.items() if os.environ.get(variable)}
        for kind, facts in LAUNCHERS.items()
    }
    return {kind: job for kind, job in found.items() if job}


_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]+@", re.IGNORECASE)
_SECRET = re.compile(r"\b(?:\w+_)?(?:password|passwd|secret|token|api_?key|credentials?)=", re.IGNORECASE)


def masked(word: str) -> str:
    """A word or message that is shown or stored, without what gives access: the user and password of an address, and
    what follows a name that says that it is secret (`x.token=...`)."""
    secret = _SECRET.search(word)
    return _USERINFO.sub(r"\1***@", word[: secret.end()] + "***" if secret else word)


def version() -> str:
    """That of pyproject.toml beside this package, or of the installed package where there is none (a job's copy)."""
    try:
        return str(tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, ValueError, KeyError):
        try:
            return metadata.version("longtail-bench")
        except metadata.PackageNotFoundError:
            return "unknown"


def source(root: Path = TREE) -> dict[str, str | None]:
    """commit and dirty of `capture`."""
    with contextlib.suppress(OSError, ValueError):
        origin = parsed((root / ORIGIN).read_bytes())
        return {name: None if origin[name] is None else str(origin[name]) for name in ("commit", "dirty")}
    return {"commit": _git(root, "rev-parse", "HEAD"), "dirty": _difference(root)}


def _run(command: list[str], cwd: Path | None = None) -> bytes | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        # No optional locks: a job must not stop a commit that its user makes at the same time.
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
                size = os.fstat(file.fileno()).st_size
                total.update(hashlib.file_digest(file, "sha256").digest() if size < LARGE else str(size).encode())
    return total.hexdigest()


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = _build(name) or metadata.version(name)
    return found


def _build(name: str) -> str | None:
    """Version with its build (2.15.0+cu132), which the metadata of torch and torchvision may leave out."""
    return _version_line(name, "__version__") if name in ("torch", "torchvision") else None


def _version_line(package: str, name: str) -> str | None:
    """The text of a name in a package's version.py."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        spec = importlib.util.find_spec(package)  # of a top-level name: imports nothing
        if spec and spec.origin:
            text = Path(spec.origin).with_name("version.py").read_text(errors="replace")
            written = re.search(rf"^{name}\b.*?['\"](.+?)['\"]", text, re.MULTILINE)
            return written.group(1) if written else None
    return None


def _cpu() -> str | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None


def _gpus() -> tuple[list[str], str | None]:
    """Names of the cards that this process may use, and the version of their driver."""
    if shutil.which("nvidia-smi") is None:
        return [], None
    output = _run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]) or b""
    lines = [line.split(",") for line in output.decode(errors="replace").splitlines() if line.strip()]
    drivers = [line[1].strip() for line in lines if len(line) > 1]
    return [line[0].strip() for line in _visible(lines)], next(iter(drivers), None)


def _visible(cards: list[list[str]]) -> list[list[str]]:
    """Without those that CUDA_VISIBLE_DEVICES hides: nvidia-smi may list all cards of a node to a job that has two."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return cards
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    if any(name.startswith(("GPU-", "MIG-")) for name in names):  # by UUID: not resolved to names
        return cards[: len(names)]
    return [cards[int(name)] for name in names if name.isdigit() and int(name) < len(cards)]
