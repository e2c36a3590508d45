"""A process's place among those of its job, its share of a batch, and what it sees when another one has gone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
from tiny_suite import PATIENCE, ROOT, tiny

from bench.errors import UserError
from bench.launch.sharing import refuse_together
from bench.plan import planning
from bench.run.world import World, rank_of, refuse_shares

SLURM = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "17"}


def test_places() -> None:
    """As torchrun, submitit on one machine and a step of Slurm tell them."""
    torchrun = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}
    place = rank_of({**SLURM, **torchrun}, 4)
    assert (place.rank, place.size, place.local_rank, place.address, place.port) == (2, 4, 0, "a", 29500)
    local = {"SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_JOB_ID": "99"}
    place = rank_of({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", **local}, 2)  # within somebody's salloc
    assert (place.rank, place.size, place.local_rank, place.address) == (1, 2, 1, "127.0.0.1")
    place = rank_of(SLURM, 4)
    assert (place.rank, place.local_rank, place.address) == (3, 1, "127.0.0.1")
    assert 20000 <= place.port < 32000
    assert rank_of({**SLURM, "SLURM_PROCID": "0"}, 4).port == place.port
    assert rank_of({**SLURM, "SLURM_RESTART_COUNT": "1"}, 4).port != place.port
    two = {**SLURM, "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "left,right"}
    assert rank_of(two, 4).address == "left"


@pytest.mark.parametrize("environment", [{}, SLURM, {"RANK": "0", "WORLD_SIZE": "3"}])
def test_no_place(environment: dict[str, str]) -> None:
    with pytest.raises(UserError, match="2 processes are to train together, but this one was not started as one of 2"):
        rank_of(environment, 2)


@pytest.mark.parametrize(("batch", "size"), [(16, 2), (5, 3), (7, 7), (512, 48)])
def test_shares_are_the_batch(batch: int, size: int) -> None:
    shares = [World(rank, size).share(batch) for rank in range(size)]
    assert [place for first, last in shares for place in range(first, last)] == list(range(batch))
    lengths = [last - first for first, last in shares]
    assert max(lengths) - min(lengths) <= 1


def test_more_processes_than_pictures() -> None:
    with pytest.raises(UserError, match="a batch of 2 images has no work for 3 processes"):
        World(0, 3).share(2)


def test_shares_need_not_be_equal_but_where_each_is_a_mean() -> None:
    refuse_shares(5, 2)
    with pytest.raises(UserError, match=r"a batch of 5 images has no equal shares for 2 processes, .* a multiple of 2"):
        refuse_shares(5, 2, alone=True)
    stages = planning.make(tiny("machine.tasks=2", "machine.scope=device", "schedule.batch=5")).stages
    for one in (stage for stage in stages.values() if stage.kind == "train"):
        with pytest.raises(UserError, match="no equal shares"):
            refuse_together(one, 2)
        refuse_together(one, 1)


ALONE = """
import json, os, signal, sys
import torch, torch.distributed as dist
from bench.run.world import Gone, joined
how = sys.argv[1]
with joined(2, lambda: "cpu") as world:
    try:
        with world.together():
            world.exchange()
            if world.rank and how != "raises":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "raises":
                raise ValueError("other") if world.rank else RuntimeError("shapes do not fit")
            dist.all_reduce(torch.ones(2**20))
    except Exception as error:
        print(json.dumps([isinstance(error, Gone), type(error).__name__, str(error)]))
"""


@pytest.mark.parametrize(("how", "told"), [("dies", "Gone"), ("raises", "RuntimeError")])
def test_a_sum_of_tensors_that_the_other_left(how: str, told: str) -> None:
    """A process that is killed looks like an error of gloo's to the others; one that raises does not."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", ALONE, how], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "RANK": str(rank), "WORLD_SIZE": "2",
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        )
        for rank in range(2)
    ]  # fmt: skip
    said, _ = both[0].communicate(timeout=PATIENCE)
    both[1].communicate(timeout=PATIENCE)
    assert json.loads(said)[1] == told
