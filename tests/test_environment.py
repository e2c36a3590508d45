"""What ran where, in a repository made here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import environment
from bench.environment import capture
from bench.launchers import LAUNCHERS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "a.py").write_text("a = 1\n")
    git("add", "a.py")
    git("commit", "-q", "-m", "one")
    return tmp_path


def test_commit_and_difference(checkout: Path) -> None:
    clean = capture(checkout)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is None
    seen = set()
    for name, text in (("a.py", "a = 2\n"), ("a.py", "a = 3\n"), ("new.py", "b = 1\n"), ("new.py", "b = 2\n")):
        (checkout / name).write_text(text)
        seen.add(capture(checkout)["dirty"])
    assert len(seen) == 4
    assert all(len(digest) == 64 for digest in seen)
    assert capture(checkout)["dirty"] in seen  # the same difference has the same digest
    assert capture(checkout)["commit"] == clean["commit"]


def test_this_machine_as_json() -> None:
    found = json.loads(json.dumps(capture()))
    assert set(found) == {
        "commit", "dirty", "python", "packages", "cuda", "host", "system", "cpu", "cpus", "omp_num_threads", "gpus",
        "gpu_driver",
    }  # fmt: skip
    import torch
    import torchvision

    assert found["packages"]["torch"] == torch.__version__
    assert found["cuda"] == torch.version.cuda
    assert found["packages"]["torchvision"] == torchvision.__version__
    assert found["cpus"] >= 1


def test_never_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No repository, no git, no nvidia-smi, or one that fails or hangs."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert capture(tmp_path)["commit"] is None
    assert capture(tmp_path / "absent")["dirty"] is None
    for script in ("exit 9", "exec sleep 30"):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(environment, "SECONDS", 0.3)
        assert capture(tmp_path)["gpus"] == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA H200, 580.95.05'\necho 'NVIDIA H200, 580.95.05'\n")
    monkeypatch.setattr(environment, "SECONDS", 10)
    assert capture(tmp_path)["gpus"] == ["NVIDIA H200", "NVIDIA H200"]
    assert capture(tmp_path)["gpu_driver"] == "580.95.05"
    for chosen, cards in (("1", 1), ("0,1", 2), ("", 0), ("NoDevFiles", 0), ("GPU-8a56", 1), ("7", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert capture()["gpus"] == ["NVIDIA H200"] * cards, chosen
    monkeypatch.setenv("PATH", "")
    assert capture()["commit"] is None


def test_what_slurm_tells_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in LAUNCHERS["slurm"].environment.values():
        monkeypatch.delenv(variable, raising=False)
    assert "slurm" not in capture()
    monkeypatch.setenv("SLURM_JOB_ID", "57")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "55")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setenv("SLURMD_NODENAME", "n3")
    assert capture()["slurm"] == {"job": "57", "array_job": "55", "array_task": "1", "restarts": "2", "node": "n3"}


def test_once_a_process() -> None:
    """git and nvidia-smi are asked once, however many stages a job has."""
    script = (
        "from bench import environment as e; asked = []; run = e._run;"
        "e._run = lambda command, cwd=None: asked.append(command) or run(command, cwd);"
        "first = e.of_this_process(); before = len(asked); assert before;"
        "assert e.of_this_process() == first; assert len(asked) == before"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_a_large_untracked_file_is_not_read(checkout: Path) -> None:
    """Somebody's weights in the checkout; a terabyte of holes, which reading would take an hour."""
    with (checkout / "weights.pth").open("wb") as file:
        file.truncate(2**40)
    first = capture(checkout)["dirty"]
    assert first is not None
    with (checkout / "weights.pth").open("wb") as file:
        file.truncate(2**40 + 1)
    assert capture(checkout)["dirty"] not in (None, first)
