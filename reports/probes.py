"""What a linear probe tells right of the features after each training of a row. Separate from load.py, which reads
results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safetensors.numpy import load as read_tensors

from bench.errors import UserError
from bench.stage import KINDS, Stage
from bench.store.store import Store

PREFIX = "linear_probe/"  # of the names that bench/plan/looks.py gives


@dataclass(frozen=True)
class Probe:
    """Of one training of a row.

    Attributes:
        number: in the row's chain, the first training is 1.
        last: whether it is the last of which there is a probe.
        right: for each of the C classes the share of its boxes that the probe tells right; None without a box.
    """

    number: int
    last: bool
    right: tuple[float | None, ...]


def probes(store: Store, looks: Mapping[str, Stage]) -> list[Probe]:
    """Those of a row that are done, the first training first."""
    found: list[Probe] = []
    numbers = sorted(int(name.removeprefix(PREFIX)) for name in looks if name.startswith(PREFIX))
    for number in numbers:
        key = looks[f"{PREFIX}{number}"].key
        if store.done(key) is None:
            continue
        try:
            tensors = read_tensors(store.read(key, str(KINDS["fit"].hands)))
        except UserError:
            continue
        pairs = zip(tensors["hits_C"].tolist(), tensors["seen_C"].tolist(), strict=True)
        found.append(Probe(number, number == numbers[-1], tuple(hit / seen if seen else None for hit, seen in pairs)))
    return found
