"""A real Slurm with one node on this machine, for tests: munged, slurmctld and slurmd of our own, on loopback ports.

Separate from the fixture so that a person can start one by hand:

    python tests/cluster/slurm_up.py FOLDER        prints the export line that clients need
    python tests/cluster/slurm_up.py FOLDER --down

No systemd, no cgroups, no accounting database. Every setting that is not a default says which failure asked for it.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")  # Debian's and Ubuntu's names
DAEMONS = ("munged", "slurmctld", "slurmd")
PATIENCE_SECONDS = 60.0

# Partitions: debug requeues what `high` preempts; spot cancels it; short kills after a minute.
CONF = """\
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
SlurmdPort={node_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# cred_expire is also how long a requeued job waits (120 s by default)
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
# /dev/null is refused as world-writable
PlugStackConfig={folder}/etc/plugstack.conf
# no cgroups here
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
# not 1: a job of an earlier test cluster had that number, and its files may lie about
FirstJobId={first_job}
KillWait=5
MinJobAge=300
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=1,sched_min_interval=0
# without it a preempted job hears SIGTERM only
SlurmctldParameters=preempt_send_user_signal
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# otherwise a job without --mem takes the whole node
DefMemPerCPU=256
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# more CPUs than there are, so that jobs run beside each other on a small machine
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 \
RealMemory={memory} State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=2 GraceTime=10
PartitionName=spot Nodes={host} MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=1 PreemptMode=CANCEL
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10
"""


class Unavailable(Exception):
    """No Slurm can be had on this machine, and why."""


@dataclass(frozen=True)
class Slurm:
    """A running cluster."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What clients, drivers and jobs need."""
        return {"SLURM_CONF": str(self.folder / "etc" / "slurm.conf")}

    def command(self, *words: str, check: bool = True) -> str:
        """The output of a Slurm command."""
        ended = subprocess.run(
            words, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or ended.returncode == 0, f"{' '.join(words)}: {ended.stderr}"
        return ended.stdout

    def quiet(self) -> None:
        """End every job of this cluster and wait until none is left."""
        self.command("scancel", "--me", check=False)
        self.command("scancel", "--me", "--state=SUSPENDED", check=False)
        end = time.monotonic() + PATIENCE_SECONDS
        while self.command("squeue", "-h", "--me", "-o", "%i", check=False).strip() and time.monotonic() < end:
            time.sleep(0.1)


def install() -> None:
    """Get the packages where they are missing and we may.

    Raises:
        Unavailable: they cannot be had.
    """
    if all(_program(name) for name in DAEMONS):
        return
    with (Path(tempfile.gettempdir()) / f"bench-apt-{os.getuid()}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # several test processes begin at once, and apt takes one
        _install()


def _install() -> None:
    if all(_program(name) for name in DAEMONS):
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Unavailable("Slurm is not installed, and without root and apt-get it cannot be")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        ended = subprocess.run(["apt-get", *words], env=quiet, capture_output=True, text=True, timeout=600, check=False)
        if ended.returncode:
            raise Unavailable(f"apt-get {words[0]} failed: {ended.stderr.strip()[-300:]}")
    if not all(_program(name) for name in DAEMONS):
        raise Unavailable(f"{', '.join(PACKAGES)} did not bring {', '.join(DAEMONS)}")


def start(folder: Path, cpus: int = 6) -> Slurm:
    """Start the daemons and wait until the node takes jobs.

    Args:
        folder: of this cluster's files; should be new.
        cpus: how many the node claims to have.

    Raises:
        Unavailable: Slurm is not there, or the node does not come up.
    """
    install()
    for name in ("etc", "munge", "state", "spool", "log", "run"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name).chmod(0o755)  # munged refuses a socket below a folder that others may write to
    _write_configuration(folder, cpus)
    munge = folder / "munge"
    (munge / "key").write_bytes(secrets.token_bytes(1024))
    (munge / "key").chmod(0o600)
    own = [f"--{name}={munge}/{file}" for name, file in MUNGE_FILES.items()]
    slurm = Slurm(folder)
    _daemon("munged", [*own, "--num-threads=2"], slurm)
    start_daemon(slurm, "slurmctld")
    start_daemon(slurm, "slurmd")
    end = time.monotonic() + PATIENCE_SECONDS
    while (state := slurm.command("sinfo", "-h", "-p", "debug", "-o", "%T", check=False).strip()) != "idle":
        if time.monotonic() > end:
            stop(slurm)
            raise Unavailable(f"the node did not come up ({state or 'no answer'}), see {folder / 'log'}")
        time.sleep(0.1)
    return slurm


MUNGE_FILES = {
    "socket": "socket",
    "key-file": "key",
    "pid-file": "munged.pid",
    "log-file": "munged.log",
    "seed-file": "seed",
}


def stop(slurm: Slurm) -> None:
    """End jobs and daemons, by the pid files of this cluster alone."""
    if daemon_pid(slurm, "slurmctld"):
        slurm.quiet()
    for name in reversed(DAEMONS):
        pid = daemon_pid(slurm, name)
        if pid is None:
            continue
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if name == "munged" else signal.SIGTERM)  # munged takes 4 s to end by itself
        end = time.monotonic() + 10
        while daemon_pid(slurm, name) is not None and time.monotonic() < end:
            time.sleep(0.05)
        if daemon_pid(slurm, name) is not None:
            os.kill(pid, signal.SIGKILL)


def start_daemon(slurm: Slurm, name: str) -> None:
    """Start slurmctld or slurmd of a cluster that has been set up.

    Raises:
        Unavailable: it does not start.
    """
    _daemon(name, ["-f", slurm.environment["SLURM_CONF"]], slurm)


def daemon_pid(slurm: Slurm, name: str) -> int | None:
    """The process of a daemon of this cluster, None where it does not run."""
    path = slurm.folder / ("munge" if name == "munged" else "run") / f"{name}.pid"
    with suppress(OSError, ValueError):
        pid = int(path.read_text())
        status = Path(f"/proc/{pid}/stat").read_text()
        if f"({name})" in status and ") Z " not in status:
            return pid
    return None


def _write_configuration(folder: Path, cpus: int) -> None:
    control, node = _free_ports()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    text = CONF.format(
        folder=folder, host=socket.gethostname().split(".")[0], user=getpass.getuser(), control_port=control,
        node_port=node, cpus=cpus, memory=memory, first_job=int(time.time()) % 1_000_000 * 10 + 1,
    )  # fmt: skip
    (folder / "etc" / "slurm.conf").write_text(text)
    (folder / "etc" / "plugstack.conf").write_text("")
    (folder / "etc" / "cgroup.conf").write_text("CgroupAutomount=no\n")


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def _daemon(name: str, words: list[str], slurm: Slurm) -> None:
    program = _program(name)
    assert program is not None
    with (slurm.folder / "log" / f"{name}.out").open("w") as out:  # not a pipe: a daemon would keep it open
        ended = subprocess.run(
            [program, *words], env={**os.environ, **slurm.environment}, stdout=out, stderr=out, timeout=60, check=False
        )
    if ended.returncode:
        raise Unavailable(f"{name} does not start: {(slurm.folder / 'log' / f'{name}.out').read_text()[-300:]}")


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")


if __name__ == "__main__":
    here = Path(sys.argv[1]).resolve()
    if "--down" in sys.argv:
        stop(Slurm(here))
    else:
        print(f"export SLURM_CONF={start(here).environment['SLURM_CONF']}")
