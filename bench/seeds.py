"""Every random draw has an address. Separate because all levels draw through this file.

A draw is made by a generator for (seed, role, phase, step, index), never from a shared stream; so batch t is a pure
function of its address and a resumed or fused training draws what an undisturbed one draws.
"""

from __future__ import annotations

import hashlib

import numpy as np


def address(seed: int, role: str, phase: int = 0, step: int = 0, index: int = 0) -> int:
    """A 63-bit integer for one address; feed it to `torch.Generator().manual_seed` or `generator`.

    Args:
        seed: seed of the stage.
        role: what is drawn, e.g. "augment" or "roi_sample".
        phase: length of the init chain (a second schedule sees new batches).
        step: optimiser step or epoch.
        index: position in the global batch.
    """
    text = f"{seed}/{role}/{phase}/{step}/{index}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(seed: int, role: str, phase: int = 0, step: int = 0, index: int = 0) -> np.random.Generator:
    """A numpy generator for one address (see `address`)."""
    return np.random.Generator(np.random.PCG64(address(seed, role, phase, step, index)))
