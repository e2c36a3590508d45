"""Several real processes that do one job. Shared by tests of what they train and of how they continue."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_suite import PATIENCE, ROOT

from bench.suite.suite import Suite


class Processes:
    """The processes of one job, started as torchrun starts them."""

    def __init__(
        self,
        root: Path,
        suite: Suite,
        units: Sequence[Sequence[str]],
        size: int,
        *,
        stop: Mapping[int, int] | None = None,
    ) -> None:
        """`stop`: rank -> the look at its stop flag at which it gets a SIGTERM."""
        self.notes = [root.parent / f"{root.name}.{rank}.pt" for rank in range(size)]
        machine = suite.sections.machine.model_copy(update={"tasks": size}).model_dump_json()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.running = [
            subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "run" / "rank.py"), str(root), machine, json.dumps(units),
                 str(self.notes[rank]), *([str(stop[rank])] if stop and rank in stop else [])],
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RANK": str(rank),
                     "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for rank in range(size)
        ]  # fmt: skip

    def outcomes(self) -> dict[str, list[Any]]:
        """What the first process returns: state, message, code by key; the others return nothing."""
        self.ended = [process.communicate(timeout=2 * PATIENCE) for process in self.running]
        assert self.running[0].returncode == 0, self.ended[0][1]
        told = [json.loads(out.splitlines()[-1]) if out else {} for out, _ in self.ended]
        assert not any(told[1:])
        found: dict[str, list[Any]] = told[0]
        return found

    def steps(self) -> list[list[dict[str, Any]]]:
        """What each process noted of each step (tests/run/rank.py)."""
        return [torch.load(path) for path in self.notes]
