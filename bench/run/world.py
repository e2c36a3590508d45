"""Which of a job's processes this is, and what they exchange. Separate from distributed.py (the tensors of a step)
because a job needs its rank before it imports torch.

All processes of a job take part in the same sequence of exchanges. A process with an error sends it in the next
exchange, whatever that is for; all raise there, so that none waits for a process that has left.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import StageError, UserError, place_of
from bench.launchers import LAUNCHERS, ProcessNames
from bench.run import memory

# (rank, processes, rank on this host) of torchrun and of mpirun wrappers, which take precedence over any launcher's.
_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
# Below the ports that Linux hands out by itself (ip_local_port_range starts at 32768), above the registered services.
_PORTS = range(20000, 32000)
# All processes must have joined by then; the slowest node imports torch from a cold network disk.
_GATHER = datetime.timedelta(minutes=10)
# The others wait while the first predicts or evaluates, for hours. One that dies closes its sockets: the wait ends.
_PATIENCE = datetime.timedelta(days=365)


class Gone(StageError):
    """Another process of the job died or never joined; not an error of the stage, so that another try may succeed."""


@dataclass(frozen=True)
class Rank:
    """A process's rank of how many, its rank on its host, and where rank 0 listens."""

    rank: int
    size: int
    local_rank: int
    address: str
    port: int


class World:
    """The processes of one job. Without arguments: the only one.

    Attributes:
        rank: 0 takes leases, writes and reports; the others follow.
        size: how many.
    """

    def __init__(self, rank: int = 0, size: int = 1, talk: Any = None) -> None:
        self.rank, self.size = rank, size
        self._talk = talk  # a process group of CPU tensors, beside that of the gradients
        self._left = False

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, batch: int) -> tuple[int, int]:
        """Which positions of the global batch are this process's: from the first up to the second.

        Raises:
            UserError: fewer images than processes.
        """
        refuse_shares(batch, self.size)
        return batch * self.rank // self.size, batch * (self.rank + 1) // self.size

    def exchange(self, value: Any = None, error: Exception | None = None) -> list[Any]:
        """The values of all processes, by rank; all must call this. If any has an `error`, all raise: each its own, or
        else the first one by rank.

        Raises:
            Exception: of this process or of another (a UserError as it is, anything else as a StageError).
        """
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        answers: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(answers, (value, portable(error, self)), group=self._talk)
        except RuntimeError as lost:  # gloo: the connection was closed by the other side
            self._left = True
            raise _gone(self) from lost
        errors = [other for _, other in answers if other is not None]
        if errors:
            self._left = True
            raise error or errors[0]
        return [value for value, _ in answers]

    def leave(self) -> None:
        """The work in common ends for all: errors after this are not exchanged."""
        self._left = True

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Work that all processes do: what one raises, all raise."""
        self._left = False
        try:
            yield
        except Exception as error:
            if self.size > 1 and not self._left:
                self._send_error(error)
            raise

    def _send_error(self, error: Exception) -> None:
        """Send an error of this process to the others.

        Raises:
            Gone: another process has died, and the error is only that of a connection broken within a sum of tensors.
        """
        try:
            self.exchange(error=error)
        except Gone as gone:
            if isinstance(error, RuntimeError) and memory.explained(error) is error:
                raise gone from error
        except Exception:  # the others have received it; here the caller raises the first error
            return

    def broadcast(self, value: Any) -> None:
        """Of the first process: send a value to the others' `receive`.

        Raises:
            Gone: another process has died.
        """
        if self.size > 1:
            self._broadcast([value])

    def receive(self) -> Any:
        """Of the others: the first process's next `broadcast`; waits for it.

        Raises:
            Gone: the first process has died.
        """
        box: list[Any] = [None]
        self._broadcast(box)
        return box[0]

    def _broadcast(self, box: list[Any]) -> None:
        import torch.distributed as dist

        try:
            dist.broadcast_object_list(box, src=0, group=self._talk)
        except RuntimeError as lost:
            raise _gone(self) from lost


SINGLE = World()


@contextlib.contextmanager
def joined(tasks: int, device_of: Callable[[], str]) -> Iterator[World]:
    """The processes of this job, once all have joined.

    Args:
        tasks: how many there must be; with one nothing is set up.
        device_of: returns "cpu" or "cuda"; of several visible GPUs a process takes that of its rank on the host.

    Raises:
        UserError: the environment does not name this process's rank.
        Gone: the others did not join.
    """
    if tasks == 1:
        yield SINGLE
        return
    place = rank_of(os.environ, tasks)
    import torch
    import torch.distributed as dist

    device, where = device_of(), f"process {place.rank} of {place.size}"
    if device == "cuda":
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    try:
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo", init_method=f"tcp://{place.address}:{place.port}",
            rank=place.rank, world_size=place.size, timeout=_GATHER,
        )  # fmt: skip
        talk = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        what = f"the processes of this job did not find one another at {place.address}:{place.port}"
        hint = "set MASTER_ADDR and MASTER_PORT to where rank 0 can listen; GLOO_SOCKET_IFNAME names the network"
        raise Gone(f"{what} ({str(error).splitlines()[0]})", where=where, hint=hint) from error
    try:
        yield World(place.rank, place.size, talk)
    finally:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def refuse_shares(batch: int, tasks: int, *, alone: bool = False) -> None:
    """Refuse a batch that so many processes cannot share. They need no equal shares, since losses are divided by the
    counts of all; with `alone` (machine.scope: device) they do: the mean of each process has the same weight.

    Raises:
        UserError: fewer images than processes, or unequal shares where they must be equal.
    """
    if batch < tasks:
        raise UserError(
            f"a batch of {batch} images has no work for {tasks} processes", where="schedule.batch",
            allowed=f"at least {tasks}, or fewer processes",
        )  # fmt: skip
    if alone and batch % tasks:
        raise UserError(
            f"a batch of {batch} images has no equal shares for {tasks} processes, and with machine.scope=device the "
            "mean of each counts as much", where="schedule.batch", allowed=f"a multiple of {tasks}",
        )  # fmt: skip


def refusal_of_live_norm(tasks: int) -> UserError:
    """A batch norm that learns would have the statistics of one process's share.

    torch's SyncBatchNorm would have those of the whole batch, but on a GPU alone: a laptop could then not repeat what a
    cluster has trained.
    """
    return UserError(
        f"batch norm over {tasks} processes would normalise by the statistics of a share of the batch",
        where="detector.norm: batch", allowed="group or frozen with several processes",
        hint="--set detector.norm=group, or --set machine.tasks=1",
    )  # fmt: skip


def rank_of(environment: Mapping[str, str], tasks: int) -> Rank:
    """A process's rank, from the variables that torchrun or a launcher has set (bench/launchers.py).

    Raises:
        UserError: it was not started as one of `tasks`.
    """
    for names in (_NAMES, *(ranks for launcher in _processes() for ranks in launcher.ranks)):
        values = [environment.get(name, "") for name in names]
        if values[0].isdigit() and values[1] == str(tasks):
            local = int(values[2]) if values[2].isdigit() else int(values[0])
            return Rank(int(values[0]), tasks, local, _address(environment), _port(environment))
    raise UserError(
        f"{tasks} processes are to train together, but this one was not started as one of {tasks}",
        where="machine.tasks", allowed="started by `run` with a cluster of so many tasks, or by torchrun",
        hint="or --set machine.tasks=1",
    )  # fmt: skip


def is_first(environment: Mapping[str, str]) -> bool:
    """Whether this process is the one of its job that reports: no launcher has given it a rank other than 0."""
    return all(environment.get(ranks[0], "0") == "0" for launcher in _processes() for ranks in launcher.ranks)


def _address(environment: Mapping[str, str]) -> str:
    if "MASTER_ADDR" in environment:
        return environment["MASTER_ADDR"]
    for launcher in _processes():
        if not launcher.nodes and any(rank in environment for rank, _, _ in launcher.ranks):
            return "127.0.0.1"  # also within an allocation of several hosts
    for launcher in _processes():
        nodes, count = _first_of(environment, launcher.nodes), _first_of(environment, launcher.node_counts)
        if nodes and count not in ("", "1"):
            return _first_host(nodes, launcher.hosts)
    return "127.0.0.1"


def _first_host(nodes: str, command: tuple[str, ...]) -> str:
    """The first host of a list, which may be compressed: node[1-3]."""
    if "[" not in nodes:
        return nodes.partition(",")[0]
    try:
        listed = subprocess.run([*command, nodes], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        what = f"{command[0]} cannot read the node list {nodes}"
        raise UserError(what, where="MASTER_ADDR", hint="set it") from error
    return listed.stdout.split()[0]


def _first_of(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


def _processes() -> list[ProcessNames]:
    return [facts.processes for facts in LAUNCHERS.values()]


def _port(environment: Mapping[str, str]) -> int:
    """The same for all processes of a job; another one for another job, step or restart."""
    if "MASTER_PORT" in environment:
        return int(environment["MASTER_PORT"])
    address = "/".join(environment.get(name, "") for launcher in _processes() for name in launcher.job)
    return _PORTS[int.from_bytes(hashlib.blake2b(address.encode(), digest_size=8).digest(), "big") % len(_PORTS)]


def portable(error: Exception | None, world: World) -> UserError | None:
    """An error that another process can raise: a UserError as it is, others with file and line."""
    if error is None:
        return None
    error = memory.explained(error)
    if isinstance(error, UserError):
        kind = next(kind for kind in (Gone, StageError, UserError) if isinstance(error, kind))
        return kind(error.what, where=error.where, allowed=error.allowed, hint=error.hint)
    place = f" ({place_of(error)})" if error.__traceback__ else ""
    return StageError(f"{type(error).__name__}: {error}{place}", where=f"process {world.rank} of {world.size}")


def _gone(world: World) -> Gone:
    return Gone(
        "another process of this job has gone: killed, out of memory, or its node is lost",
        where=f"process {world.rank} of {world.size}", hint="run the same command again: it continues",
    )  # fmt: skip
