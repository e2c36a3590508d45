"""The spread over repeated runs by hand, and that two runs of one suite on a CPU are the same."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from tiny import tiny

from benchmarks import noise_floor


def numbers(*values: float | None) -> pd.DataFrame:
    """AP of one row at seeds 0, 1, ..."""
    return pd.DataFrame([("BAGS", seed, "AP", value) for seed, value in enumerate(values)],
                        columns=["row", "seed", "metric", "value"])  # fmt: skip


def test_the_spread_by_hand() -> None:
    """Seed 0: 20, 21, 22 (sd 1, range 2); seed 1: 30, 30, 30.5. Seed 2 has no number."""
    found = noise_floor.spread([numbers(20.0, 30.0, None), numbers(21.0, 30.0, None), numbers(22.0, 30.5, None)])
    assert found == {"BAGS": {"AP": {"sd": pytest.approx(1.0), "range": 2.0}}}


@pytest.mark.slow
def test_on_a_cpu_it_is_zero(tmp_path: Path) -> None:
    found = noise_floor.measured(tiny(tmp_path), ["machine.device=cpu"], None, 2)
    assert found["same_bits"] == found["stages"] >= 8
    assert set(found["spread"]) == {"baseline", "BAGS"}
    assert "AP" in found["spread"]["BAGS"]
    assert all(one == {"sd": 0, "range": 0} for metrics in found["spread"].values() for one in metrics.values())
