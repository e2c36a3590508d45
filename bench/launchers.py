"""The kinds of launcher, and what is known of each without importing it. Separate because cluster files are checked
against it, jobs read their rank by it, and commands take titles from it: these are all on lower levels than the
launchers, or need neither torch nor submitit.

A new launcher is one entry here and one file, which has `launcher` and, where jobs outlive their driver, `queue` (see
bench/launch/launcher.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProcessNames:
    """The environment variables that hold the rank of a process of a job.

    Attributes:
        ranks: (rank, processes of the job, rank on this host); the first triple that is set counts.
        job: variables that together differ between jobs, between steps and between restarts.
        nodes: the job's hosts, as `hosts` takes them. None: all its processes are on one host.
        node_counts: how many hosts.
        hosts: the command that expands a compressed list of hosts (its last argument).
    """

    ranks: tuple[tuple[str, str, str], ...] = ()
    job: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    node_counts: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class LauncherFacts:
    """One kind of launcher.

    Attributes:
        kind: as in `kind:` of a cluster's file, and in the note of a job.
        module: has `launcher(plan, store, cluster, where, limit)`, and `queue()` where jobs outlive their driver.
        title: its name in messages.
        outlives_driver: whether jobs continue without the driver, in a queue that can be queried.
        asks_resources: whether a job requests time, memory and processors, elsewhere than on this machine.
        makes_arrays: whether jobs with the same resources are submitted as one array.
        cancel_command: the command that ends jobs by their ids.
        processes: how the processes of one job find one another.
        environment: what a record keeps of a job (as record[kind][name]): name -> environment variable.
    """

    kind: str
    module: str
    title: str
    outlives_driver: bool = False
    asks_resources: bool = False
    makes_arrays: bool = False
    cancel_command: str = ""
    processes: ProcessNames = ProcessNames()
    environment: Mapping[str, str] = field(default_factory=dict)


_ALL = (
    LauncherFacts(
        kind="local",
        module="bench.launch.local",
        title="this machine",
        processes=ProcessNames(
            ranks=(("SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_LOCALID"),),
            job=("SUBMITIT_LOCAL_JOB_ID",),
        ),
    ),
    LauncherFacts(
        kind="slurm",
        module="bench.launch.slurm.slurm",
        title="Slurm",
        outlives_driver=True,
        asks_resources=True,
        makes_arrays=True,
        cancel_command="scancel",
        processes=ProcessNames(
            ranks=(  # of a step, else of the whole job
                ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
                ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
            ),
            job=("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
            nodes=("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"),
            node_counts=("SLURM_STEP_NUM_NODES", "SLURM_NNODES"),
            hosts=("scontrol", "show", "hostnames"),
        ),
        environment={  # sbatch(1), OUTPUT ENVIRONMENT VARIABLES
            "job": "SLURM_JOB_ID", "array_job": "SLURM_ARRAY_JOB_ID", "array_task": "SLURM_ARRAY_TASK_ID",
            "restarts": "SLURM_RESTART_COUNT", "partition": "SLURM_JOB_PARTITION", "node": "SLURMD_NODENAME",
            "cluster": "SLURM_CLUSTER_NAME",
        },
    ),
    LauncherFacts(kind="debug", module="bench.launch.debug", title="the driver's process"),
)  # fmt: skip
LAUNCHERS: Mapping[str, LauncherFacts] = {facts.kind: facts for facts in _ALL}


def facts_of(kind: str) -> LauncherFacts:
    """What is known of a kind; of one that this version does not have (recorded by a later one), its name alone."""
    return LAUNCHERS.get(kind) or LauncherFacts(kind, module="", title=f"queue '{kind}'", outlives_driver=True)


def options_that_outlive() -> str:
    """`--cluster slurm`: the shipped clusters whose jobs need no driver, for hints."""
    return " or ".join(f"--cluster {kind}" for kind, facts in LAUNCHERS.items() if facts.outlives_driver)
