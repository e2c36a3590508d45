"""What a Slurm cluster would refuse, found before anything is submitted. Separate because every check runs another
command, and each ends in one message that names the setting.

A check without an answer (no accounting database, no right to list accounts) refuses nothing: sbatch decides.
"""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Iterable, Mapping

from bench.errors import UserError, unknown
from bench.launch.slurm.watch import command
from bench.suite.clusters import Cluster, Resources

# Words of sbatch for what may run later: nodes that are down or taken now (Slurm queues such a job), and a user who has
# as many jobs in the queue as he may (AssocMaxSubmitJobLimit and others of the kind).
_LATER = ("down, drained or reserved", "nodes are busy", "not available now", "SubmitJob")
ELSEWHERE = "log in to a node of the cluster, or run on this machine: --cluster local"


def check(cluster: Cluster, where: str, wanted: Iterable[Resources]) -> None:
    """Check that Slurm would accept such jobs.

    Args:
        cluster: the settings.
        where: the file of these settings, for messages.
        wanted: the resources of the jobs.

    Raises:
        UserError: no Slurm on this machine or none that answers; a partition, account or size that does not exist.
    """
    missing = [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]
    if missing:
        raise UserError(f"no {missing[0]} on this machine", where=f"--cluster {where}", hint=ELSEWHERE)
    partitions = _partitions(where)
    accounts = _accounts()
    for asked in wanted:
        if asked.partition is not None and partitions:
            for name in asked.partition.split(","):  # sbatch takes a list and uses the first free one
                if name not in partitions:
                    raise unknown("partition", name, partitions, where=f"{where} partition")
        if asked.account is not None and accounts and asked.account not in accounts:
            raise unknown("account of yours", asked.account, accounts, where=f"{where} account")
        _would_take(asked, where)


def options(asked: Resources) -> dict[str, str | int | float | bool]:
    """The options of sbatch for some resources, without dashes."""
    found: dict[str, str | int | float | bool] = {
        "nodes": asked.nodes,
        "ntasks-per-node": asked.tasks,
        "cpus-per-task": asked.cpus,
        "time": asked.time_min,
    }
    if asked.gpus:
        found["gpus-per-node"] = asked.gpus
    if asked.mem_gb is not None:
        found["mem"] = f"{round(asked.mem_gb * 1024)}M"
    for name in ("partition", "account", "qos"):
        if getattr(asked, name) is not None:
            found[name] = getattr(asked, name)
    return found | dict(asked.sbatch)


def _partitions(where: str) -> list[str]:
    done = command("sinfo", "--noheader", "--format=%R")
    if done is None or done.returncode:
        lines = done.stderr.strip().splitlines() if done is not None else []
        about = f": {lines[-1]}" if lines else ""
        raise UserError(f"Slurm does not answer{about}", where=f"--cluster {where}", hint=ELSEWHERE)
    return list(dict.fromkeys(done.stdout.split()))


def _accounts() -> list[str]:
    """Accounts that this user may charge; empty without accounting."""
    words = ("--noheader", "--parsable2", "show", "associations", f"user={getpass.getuser()}", "format=account")
    done = command("sacctmgr", *words)
    return [] if done is None or done.returncode else list(dict.fromkeys(done.stdout.split()))


def _would_take(asked: Resources, where: str) -> None:
    """`sbatch --test-only` queues nothing."""
    lines = [_line(name, value) for name, value in options(asked).items() if value is not False]
    done = command("sbatch", "--test-only", text="\n".join(["#!/bin/sh", *lines, "true", ""]))
    if done is None or done.returncode == 0:
        return
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in done.stderr.strip().splitlines()]
    if any(word in line for line in lines for word in _LATER):
        return
    size = ", ".join(f"{name} {value}" for name, value in _size_of(asked).items())
    raise UserError(
        f"Slurm refuses such a job: {'; '.join(lines) or f'exit code {done.returncode}'}", where=where,
        hint=f"it asks for {size}; see: sinfo, scontrol show node",
    )  # fmt: skip


def _line(name: str, value: object) -> str:
    return f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={value}"


def _size_of(asked: Resources) -> Mapping[str, object]:
    values = asked.model_dump(exclude={"nodes", "sbatch"}, exclude_none=True) | dict(asked.sbatch)
    return {name: value for name, value in values.items() if value != 0}
