"""Which places there are where jobs run, and what is known of each without importing it. Separate because cluster files
are checked against it, jobs read their rank by it, and commands take their words from it: all of them lie on lower
floors than the launchers, or need neither torch nor submitit.

A new place is one entry here and one file, which has `launcher` and, where jobs outlive their driver, `queue` (see
bench/launch/launcher.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProcessNames:
    """The environment variables by which a process of a job knows its place among the others.

    Attributes:
        ranks: (rank, processes of the job, rank on this host); the first triple that is set counts.
        job: what together differs from job to job, from step to step and from restart to restart.
        nodes: the job's hosts, as `hosts` takes them. None: all its processes are on one host.
        node_counts: how many hosts.
        hosts: the command that spells out a compressed list of hosts, which is added to it.
    """

    ranks: tuple[tuple[str, str, str], ...] = ()
    job: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    node_counts: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class LauncherFacts:
    """One place where jobs run.

    Attributes:
        kind: as in `kind:` of a cluster's file, and in the note of a job.
        module: has `launcher(plan, store, cluster, where, limit)`, and `queue()` where jobs outlive their driver.
        title: its name in messages.
        outlives_driver: whether jobs go on without the driver, in a queue that can be asked for them.
        asks_resources: whether a job asks for time, memory and processors of its own, elsewhere than on this machine.
        makes_arrays: whether jobs that ask for the same are submitted as one.
        cancel_command: what a user types to end jobs by their ids.
        processes: how the processes of one job know one another.
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
    """What is known of a kind; of one that this version does not have (a note by a later one), its name alone."""
    return LAUNCHERS.get(kind) or LauncherFacts(kind, module="", title=f"queue '{kind}'", outlives_driver=True)


def options_that_outlive() -> str:
    """`--cluster slurm`: the clusters that are shipped whose jobs need no driver, as a hint names them."""
    return " or ".join(f"--cluster {kind}" for kind, facts in LAUNCHERS.items() if facts.outlives_driver)
