"""How much memory a stage needed at its worst. Separate because it is all about what Linux and CUDA count, and a user
sizes the next job with it: `mem_gb` of a cluster, pictures of a batch on a card.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path
from typing import Any

_PROCESS = Path("/proc/self")


def begin() -> None:
    """Count from here: a job makes several stages in one process."""
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")  # resets VmHWM, Linux 4.0 (proc(5))
    cuda = _cuda()
    if cuda is not None:
        cuda.reset_peak_memory_stats()


def peak() -> dict[str, float]:
    """host_mb: most that this process had resident (not its children's); gpu_mb: most that torch had allocated on its
    card, as detectron2's and MMDetection's logs count, where it has used one. In 1e6 bytes, since `begin`."""
    found = {"host_mb": round(_resident() / 1e6, 1)}
    cuda = _cuda()
    if cuda is not None:
        found["gpu_mb"] = round(cuda.max_memory_allocated() / 1e6, 1)
    return found


def _resident() -> int:
    with contextlib.suppress(OSError):
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Elsewhere: of the whole life of the process, in kB (bytes on macOS).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _cuda() -> Any:
    """torch.cuda where this process uses a card; nothing is imported and no card is touched to find out."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None
