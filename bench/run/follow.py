"""What the processes of a job do that are not its first: train when it trains. Separate from job.py, which decides what
is done, takes leases and writes; these only read.
"""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from bench.errors import StageError
from bench.run.work import StopFlag, Stopped, Work
from bench.run.world import World
from bench.spec import Machine
from bench.store.store import Attempt, Store

# What the first process sees on a network disk, another node may see a minute later (acdirmax of nfs(5) is 60 s).
_SEEN_WITHIN = 90.0


def announced(works: Sequence[Work]) -> list[tuple[str, int, Mapping[str, str]]]:
    """What the other processes need to train the same stages: key, attempt, digests of the inputs."""
    return [(work.key, work.attempt.number, work.inputs) for work in works]


def follow(
    world: World, store: Store, machine: Machine, stop: StopFlag, asides: Mapping[str, Mapping[str, Any]]
) -> None:
    """Train the stages that the first process broadcasts, until it broadcasts None. `asides`: of the job.

    Raises:
        StageError: the first process has gone.
    """
    while (units := world.receive()) is not None:
        try:
            with world.together():
                _train([_work(world, store, machine, stop, asides, *one) for one in units], machine)
        except Stopped:
            pass
        except Exception as error:  # the first process has received it and records it; here it goes to the log
            traceback.print_exception(error)


def _train(works: Sequence[Work], machine: Machine) -> None:
    import torch

    torch.set_num_threads(machine.threads)
    importlib.import_module("bench.run.train").run(works)


def _work(
    world: World, store: Store, machine: Machine, stop: StopFlag, asides: Mapping[str, Mapping[str, Any]],
    key: str, number: int, inputs: Mapping[str, str],
) -> Work:  # fmt: skip
    attempt = Attempt(key, number, store.folder(key) / "attempts" / str(number), None)
    work = Work(store, key, attempt, machine, stop, inputs=inputs, asides=asides, world=world)
    end = time.monotonic() + _SEEN_WITHIN
    while missing := [name for name, digest in inputs.items() if _digest(store, work.input_key(name)) != digest]:
        if time.monotonic() > end:
            raise StageError(
                f"'{missing[0]}', which the first process reads, is not to be seen here", where=str(store.root),
                hint="all nodes of a job need the same store",
            )  # fmt: skip
        time.sleep(1.0)
    return work


def _digest(store: Store, key: str) -> str | None:
    done = store.done(key)
    return None if done is None else done.digest
