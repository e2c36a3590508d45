"""Every setting of a cluster file changes what is submitted, or has a test of what it does. Fields as in
tests/test_settings.py; Slurm is not asked: what submitit would be handed is looked at.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.launch.slurm.slurm import Slurm
from bench.launch.slurm.task import Task
from bench.plan.cost import Estimate
from bench.plan.jobs import make_jobs
from bench.plan.planning import Plan
from bench.store.store import Store
from bench.suite import clusters
from bench.suite.clusters import Cluster, Resources
from bench.suite.sections import Cost
from tests.conftest import TINY, Write
from tests.test_settings import is_there, only_value, others, plan_of

OTHER: dict[str, str] = {  # where its type does not say what to try
    "account": "project",
    "partition": "gpu",
    "python": "apptainer exec image.sif python",
    "qos": "long",
    "sbatch": "{constraint: a100}",
    "setup": "[module load cuda]",
    "stages": "{train: {cpus: 3}}",
}
EFFECTS = {"kind": "tests/test_cluster.py::test_the_same_suite_in_this_process"}
HINT = "hand it to submitit (bench/launch/slurm/slurm.py), or name the test of what it does in EFFECTS"


@pytest.fixture
def plan(write: Write) -> Plan:
    return plan_of(write(TINY))


class Executor:
    """In place of submitit's: notes what it is handed."""

    noted: list[Any]
    numbers = itertools.count(1)

    def __init__(self, **made: Any) -> None:
        self.noted.append({name: value for name, value in made.items() if name != "folder"})

    def update_parameters(self, **parameters: Any) -> None:
        del parameters["name"]  # a new one each time
        self.noted.append(parameters)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        yield

    def submit(self, task: Task) -> Any:
        self.noted.append(task.job)
        return SimpleNamespace(job_id=next(self.numbers), paths=SimpleNamespace(stderr="/log"))


def submitted(text: str, plan: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What submitit is handed for all jobs of a plan on a cluster of this file."""
    import submitit

    noted: list[Any] = []
    monkeypatch.setattr(Executor, "noted", noted, raising=False)
    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    (folder / "mine.yaml").write_text(text)
    launcher = Slurm(plan, Store(folder / "store"), clusters.read(str(folder / "mine.yaml")), "mine.yaml")
    launcher.__dict__["_code"] = folder  # no copy of the code
    launcher.submit(make_jobs(plan, set(plan.stages), Estimate(Cost())), ())
    assert noted
    return noted


BASE = "kind: slurm\n"


@pytest.mark.parametrize("name", Cluster.model_fields)
def test_a_setting_of_a_cluster_changes_what_is_submitted(
    name: str, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = Cluster.model_fields[name]
    if only_value(info.annotation) or name in EFFECTS:
        assert name in {"nodes", *EFFECTS}
        return
    known = OTHER.get(name) or next(iter(others(info.annotation, info.get_default(call_default_factory=True))), None)
    assert known is not None, f"say in OTHER which value of {name} to try"
    before = submitted(BASE, plan, tmp_path, monkeypatch)
    assert submitted(BASE, plan, tmp_path, monkeypatch) == before, "else any difference would do"
    assert submitted(f"{BASE}{name}: {known}\n", plan, tmp_path, monkeypatch) != before, f"{name} does nothing: {HINT}"


def test_what_is_submitted_by_hand(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The options of sbatch under the names that it has for them."""
    text = BASE + (
        "partition: gpu\naccount: project\nqos: long\ntime_min: 90\ngpus: 2\ncpus: 8\nmem_gb: 1.5\ntasks: 2\n"
        "sbatch: {constraint: a100}\narray_parallelism: 7\nsetup: [module load cuda]\npython: mypython\n"
        "signal_delay_s: 60\nmax_retries: 5\npause_s: 11\nstages: {evaluate: {gpus: 0}}\n"
    )
    noted = submitted(text, plan, tmp_path, monkeypatch)
    made, parameters = next(
        (a, b) for a, b in itertools.pairwise(noted) if isinstance(b, dict) and b.get("tasks_per_node") == 2
    )
    assert made == {"cluster": "slurm", "slurm_python": "mypython"}
    assert (parameters["timeout_min"], parameters["nodes"]) == (90, 1)
    assert (parameters["slurm_array_parallelism"], parameters["slurm_signal_delay_s"]) == (7, 60)
    assert parameters["slurm_setup"][0] == "module load cuda"
    assert parameters["slurm_setup"][-1] == "export SRUN_CPUS_PER_TASK=8"
    assert parameters["slurm_additional_parameters"] == {
        "cpus-per-task": 8, "time": 90, "gpus-per-node": 2, "mem": "1536M", "partition": "gpu", "account": "project",
        "qos": "long", "constraint": "a100", "kill-on-invalid-dep": "yes", "requeue": True,
    }  # fmt: skip
    job = noted[noted.index(parameters) + 1]
    assert (job.machine.tasks, job.processes) == (2, 8)
    assert (job.requeue.most, job.requeue.pause_s) == (5, 11.0)


def test_tests_of_effects_are_there_and_fields_are() -> None:
    assert all(is_there(test) for test in EFFECTS.values())
    assert set(Resources.model_fields) < set(Cluster.model_fields)
    assert {*OTHER, *EFFECTS} <= set(Cluster.model_fields)
