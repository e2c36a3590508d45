"""A search whose jobs go through a real Slurm finds what one on this machine finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.conftest import SETTINGS
from tests.cluster.slurm_up import Slurm
from tests.search import tiny


@pytest.mark.slow
def test_slurm_finds_what_one_process_finds(slurm: Slurm, tmp_path: Path) -> None:
    suite = tiny.written(tmp_path)
    (tmp_path / "slurm.yaml").write_text(SETTINGS)
    for place, more in (("here", ["--jobs", "1"]), ("slurm", ["--cluster", str(tmp_path / "slurm.yaml")])):
        ended = tiny.search(suite, tmp_path / place, *more)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert tiny.outcome(suite, tmp_path / "slurm") == tiny.outcome(suite, tmp_path / "here")
