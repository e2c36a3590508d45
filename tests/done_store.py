"""A store that holds stages as finished, made without running them. Shared by the tests of status, gc and scale.

The files are those that `Store.add` and `Store.finish` write, in their formats; `quick` leaves out what only a power
cut asks for (fsync, leases), since ten thousand stages would take minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bench.stage import Stage
from bench.store.disk import json_bytes
from bench.store.done import Done, digests_of, format_done, names_of, now
from bench.store.lease import Lease
from bench.store.store import Attempt, Store


def hold(store: Store, key: str) -> Lease:
    """The lease of a stage, which must be free."""
    lease = store.acquire(key)
    assert lease is not None
    return lease


def begin(store: Store, stage: Stage) -> Attempt:
    """A new attempt at a stage, under a lease that lives on in `attempt.lease`."""
    store.add(stage)
    return store.begin(stage.key, hold(store, stage.key))


def end(attempt: Attempt) -> None:
    """Let go of an attempt's lease."""
    assert attempt.lease is not None
    attempt.lease.release()


def finish(store: Store, stages: Iterable[Stage], size: int = 64, **extra: Any) -> None:
    """Make stages done through the store's own steps; inputs first."""
    for stage in stages:
        attempt = begin(store, stage)
        (attempt.outputs / "result.bin").write_bytes(stage.key.encode()[:1] * size)
        assert store.finish(attempt, inputs=_inputs(store, stage), seconds=1.5, environment={"host": "h"}, extra=extra)
        end(attempt)


def quick(
    store: Store,
    stages: Iterable[Stage],
    environment: Mapping[str, Any],
    contents: Callable[[Stage], Mapping[str, str]] = lambda stage: {"result.bin": stage.key},
) -> None:
    """The same files, plainly written; `contents`: the outputs of a stage, by name."""
    for stage in stages:
        outputs = store.folder(stage.key) / "attempts" / "1" / "outputs"
        outputs.mkdir(parents=True)
        for name, text in contents(stage).items():
            (outputs / name).write_text(text)
        (outputs.parent / "events.jsonl").write_text('{"event": "end", "time": 1.0, "status": "FINISHED"}\n')
        (store.folder(stage.key) / "stage.json").write_bytes(json_bytes(stage.to_json()))
        sizes = {name: (outputs / name).stat().st_size for name in names_of(outputs)}
        done = Done(1, digests_of(outputs), _inputs(store, stage), 1.5, now(), environment, {}, sizes)
        (store.folder(stage.key) / "done").write_bytes(format_done(done))


def _inputs(store: Store, stage: Stage) -> dict[str, str]:
    found = {name: store.done(source.key) for name, source in stage.inputs.items()}
    return {name: done.digest for name, done in found.items() if done is not None}
