"""Peak memory of a stage. Separate because it is about what Linux and CUDA count; a user sizes the next job with it:
`mem_gb` of a cluster, images per batch on a card.
"""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path
from typing import Any

from bench.errors import StageError

# Of a card: the CUDA runtime, cuBLAS and cuDNN; of the host: torch's CPU allocator. torch's own class is asked first.
_CARD = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_HOST = ("can't allocate memory", "not enough memory")
_PROCESS = Path("/proc/self")
_most = 0  # Linux counts in batches of pages for each thread: VmHWM can fall slightly between two readings


def begin() -> None:
    """Count from here: a job makes several stages in one process."""
    global _most
    _most = 0
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")  # resets VmHWM, Linux 4.0 (proc(5))
    cuda = _cuda()
    if cuda is not None:
        cuda.reset_peak_memory_stats()


def peak() -> dict[str, float]:
    """host_mb: most that this process had resident (not its children's); gpu_mb: most that torch had allocated on its
    card, as detectron2's and MMDetection's logs count, where it has used one. In 1e6 bytes, since `begin`."""
    global _most
    _most = max(_most, _resident())
    found = {"host_mb": round(_most / 1e6, 1)}
    cuda = _cuda()
    if cuda is not None:
        found["gpu_mb"] = round(cuda.max_memory_allocated() / 1e6, 1)
    return found


def explained(error: Exception) -> Exception:
    """An out-of-memory error as a StageError that names the settings to lower; any other error as it is.

    It is a StageError, and so not tried again: the same stage would need as much the next time.
    """
    text = str(error)
    torch = sys.modules.get("torch")
    ours = torch is not None and isinstance(error, torch.OutOfMemoryError)
    if ours or (isinstance(error, RuntimeError) and any(word in text for word in _CARD)):
        sizes = ", ".join(re.findall(r"[Tt]ried to allocate [\d.]+ \w+|total capacity of [\d.]+ \w+", text))
        return StageError(
            f"the GPU has too little memory ({sizes or text.splitlines()[0][:200]})",
            hint="the same result for less on a card: more processes and GPUs (tasks, gpus), fewer heads in one pass "
            "(--no-fuse), nobody else on it; another result: schedule.batch, test.batch, input.min_size, "
            "machine.precision=bfloat16",
        )  # fmt: skip
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(word in text for word in _HOST)):
        what = f"too little memory on this host ({text.splitlines()[0][:200]})" if text else "too little memory"
        return StageError(what, hint="raise mem_gb of the cluster, or run fewer jobs at a time (--jobs)")
    return error


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
