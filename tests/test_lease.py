"""Leases: one owner at a time, takeover of the dead, nothing for the woken. Real processes race and are killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.store import lease as leases
from bench.store.lease import Lease, Observer, acquire

ROOT = Path(__file__).resolve().parents[1]
HOLD = """
import sys, time
from pathlib import Path
from bench.store.lease import Observer, acquire
held = acquire(Path(sys.argv[1]), Observer(), 0.1)
print("held" if held else "refused", flush=True)
time.sleep(60)
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def take(folder: Path, every: float = 5.0) -> Lease:
    lease = acquire(folder, Observer(), every)
    assert lease is not None
    return lease


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_held_lease_is_refused_and_free_after_release(tmp_path: Path) -> None:
    with take(tmp_path) as first:
        assert first.held
        assert acquire(tmp_path, Observer()) is None
        owner = Observer().live(tmp_path)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert not first.held
    assert Observer().live(tmp_path) is None
    with take(tmp_path) as second:
        assert second.info.number == first.info.number + 1
        assert [p.name for p in tmp_path.iterdir()] == ["lease.2"]


def test_release_twice_does_not_touch_the_next_owner(tmp_path: Path) -> None:
    first = take(tmp_path)
    first.release()
    with take(tmp_path) as second:
        first.release()
        first.beat()
        assert second.held
        assert acquire(tmp_path, Observer()) is None


def _race(folder: Path, start: object, queue: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    lease = acquire(folder, Observer(), 5.0)
    queue.put(lease is not None)  # type: ignore[attr-defined]
    start.wait()  # type: ignore[attr-defined]  # hold it until all have tried
    os._exit(0)  # no release: the next round finds a dead owner


@pytest.mark.parametrize("corpse", [False, True])
def test_of_racing_processes_exactly_one_wins(tmp_path: Path, corpse: bool) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(8):
        folder = tmp_path / ("shared" if corpse else str(number))  # one folder: each round takes over from a corpse
        start, queue = context.Barrier(5, timeout=20), context.SimpleQueue()
        racers = [context.Process(daemon=True, target=_race, args=(folder, start, queue)) for _ in range(5)]
        for racer in racers:
            racer.start()
        won = [queue.get() for _ in racers]
        for racer in racers:
            racer.join()
        assert sum(won) == 1, f"round {number}: {won}"


def _work(folder: Path, counter: Path, rounds: int) -> None:
    observer, done = Observer(), 0
    while done < rounds:
        lease = acquire(folder, observer, 5.0)
        if lease is None:
            time.sleep(0.001)
            continue
        with lease:
            # Lost updates would show that two were inside at once.
            value = int(counter.read_text())
            time.sleep(0.002)
            counter.write_text(str(value + 1))
            done += 1
    os._exit(0)


def test_never_two_inside_over_many_releases(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(daemon=True, target=_work, args=(tmp_path / "key", counter, 25)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert counter.read_text() == "100"


def test_slow_taker_cannot_revive_a_swept_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(tmp_path).release()  # lease.1: what the slow taker sees as the highest
    real = leases._highest
    looks = iter([lambda: real(tmp_path)])

    def slow(folder: Path) -> tuple[int, Path | None]:
        first = next(looks, None)
        if first is None:
            return real(folder)
        seen = first()
        monkeypatch.setattr(leases, "_highest", real)
        take(tmp_path).release()  # lease.2 comes and goes while it sleeps ...
        owners.append(take(tmp_path))  # ... and lease.3 is held; 1 and 2 are swept
        return seen

    owners: list[Lease] = []
    monkeypatch.setattr(leases, "_highest", slow)
    monkeypatch.setattr(Observer, "live", lambda self, folder: None)  # it had judged lease.1 free
    assert acquire(tmp_path, Observer()) is None
    assert owners[0].held
    assert [p.name for p in tmp_path.iterdir()] == ["lease.3"]
    owners[0].release()


def test_killed_owner_is_replaced_at_once(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert acquire(tmp_path, Observer()) is None
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, but not reaped: still in the process table
    take(tmp_path).release()


def test_stopped_owner_on_this_host_keeps_its_lease(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGSTOP)
    clock = Clock()
    observer = Observer(clock)
    assert acquire(tmp_path, observer) is None
    clock.now += 10_000
    assert acquire(tmp_path, observer) is None
    holder.send_signal(signal.SIGCONT)


def test_reused_pid_is_not_the_owner(tmp_path: Path) -> None:
    first = take(tmp_path)
    path = tmp_path / "lease.1"
    content = json.loads(path.read_text())
    assert content["start"] == leases.process_start(os.getpid())
    path.write_text(path.read_text().replace(f'"start": "{content["start"]}"', '"start": "1"'))
    assert Observer().live(tmp_path) is None
    take(tmp_path).release()
    assert first.lost


def test_foreign_lease_dies_by_the_observers_clock_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_HOST", "node-a")
    zombie = take(tmp_path, every=1000.0)  # it will not beat by itself
    monkeypatch.setenv("BENCH_HOST", "node-b")
    clock = Clock()
    observer = Observer(clock)
    assert acquire(tmp_path, observer) is None
    clock.now += 2900
    assert acquire(tmp_path, observer) is None, "three beats of its owner have not passed"
    zombie.beat()
    clock.now += 200
    assert acquire(tmp_path, observer) is None, "the counter moved"
    clock.now += 3001
    assert acquire(tmp_path, Observer(clock)) is None, "a new observer has not watched long enough"
    taken = acquire(tmp_path, observer)
    assert taken is not None
    zombie.beat()  # it wakes: its beat must not reach the successor
    assert zombie.lost
    assert not zombie.held
    zombie.release()
    assert taken.held
    live = observer.live(tmp_path)
    assert live is not None
    assert (live.host, live.beat) == ("node-b", 0)
    taken.release()


def test_a_watcher_waits_for_a_beat_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job has no time to have watched before it begins: it waits until it knows."""
    monkeypatch.setenv("BENCH_HOST", "node-a")
    with take(tmp_path, every=0.3):
        monkeypatch.setenv("BENCH_HOST", "node-b")
        begun = time.monotonic()
        owner = Observer().watch(tmp_path)
        assert owner is not None
        assert (owner.host, owner.beat > 0) == ("node-a", True)
        assert time.monotonic() - begun < 30, "a beat is enough"
    assert Observer().watch(tmp_path) is None


def test_a_watcher_sees_the_dead_in_bounded_time(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "PATIENCE_SECONDS", 1.0)
    holder.kill()
    monkeypatch.setenv("BENCH_HOST", "node-b")  # the pid says nothing here
    begun = time.monotonic()
    assert Observer().watch(tmp_path, stop=lambda: True) is not None, "asked to stop, it knows of nobody's death"
    observer = Observer()
    assert observer.watch(tmp_path) is None
    assert 1.0 <= time.monotonic() - begun < 30
    taken = acquire(tmp_path, observer)
    assert taken is not None, "it has watched, so it may take over"
    taken.release()


def test_a_dead_lease_is_released_and_a_live_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has watched lets the lease go: a newcomer finds it free, and the woken owner has lost it."""
    monkeypatch.setenv("BENCH_HOST", "node-a")
    zombie = take(tmp_path, every=1000.0)
    monkeypatch.setenv("BENCH_HOST", "node-b")
    clock = Clock()
    observer = Observer(clock)
    observer.release_dead(tmp_path)
    assert not zombie.lost, "never looked at"
    assert observer.live(tmp_path) is not None
    clock.now += 2999
    observer.release_dead(tmp_path)
    assert not zombie.lost, "not watched long enough"
    clock.now += 2
    observer.release_dead(tmp_path)
    assert zombie.lost
    assert Observer().live(tmp_path) is None
    observer.release_dead(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("lease.*")) == ["lease.2"], "what is free is left alone"


def test_an_owner_here_is_known_at_once(tmp_path: Path) -> None:
    with take(tmp_path, every=1000.0):
        begun = time.monotonic()
        assert Observer().watch(tmp_path) is not None
        assert time.monotonic() - begun < 5


def test_fast_foreign_beats_still_get_ninety_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    observer = Observer(clock)
    monkeypatch.setenv("BENCH_HOST", "node-a")
    lease = take(tmp_path, every=5.0)
    lease._stop.set()  # frozen
    monkeypatch.setenv("BENCH_HOST", "node-b")
    assert observer.live(tmp_path) is not None
    clock.now += 89
    assert observer.live(tmp_path) is not None
    clock.now += 2
    assert observer.live(tmp_path) is None
    lease.release()


def test_the_thread_raises_the_counter(tmp_path: Path) -> None:
    with take(tmp_path, every=0.02):
        seen: set[int] = set()
        deadline = time.monotonic() + 2
        while len(seen) < 3 and time.monotonic() < deadline:
            seen.add(json.loads((tmp_path / "lease.1").read_text())["beat"])
        assert len(seen) >= 3


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 40, b'{"pid": 1}'])
def test_unreadable_lease_has_patience_then_is_taken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lease.4").write_bytes(content)
    clock = Clock()
    observer = Observer(clock)
    assert acquire(tmp_path, observer) is None
    clock.now += 91
    lease = acquire(tmp_path, observer)
    assert lease is not None
    assert lease.info.number == 5
    lease.release()


def test_forked_child_neither_holds_nor_releases(tmp_path: Path) -> None:
    with take(tmp_path) as lease:
        pid = os.fork()
        if pid == 0:
            lease.beat()
            lease.release()
            os._exit(3 if lease.held else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert lease.held
        assert Observer().live(tmp_path) is not None


def test_no_torch_is_imported() -> None:
    code = "import sys, bench.store.store, bench.store.lease, bench.store.events; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
