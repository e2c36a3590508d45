"""What must be true of a store, whatever happened to it. Separate so that the checks can be checked: each one has a
test that makes it fail.

A check returns what is wrong, one line each; nothing is right.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.plan.planning import Plan
from bench.store.events import read_events
from bench.store.store import Store
from bench.tracking import mirror, place
from tests.chaos.scene import Scene
from tests.tiny_suite import attempts, digests


def whole(plan: Plan, root: Path, expected: Mapping[str, str | None]) -> list[str]:
    """Every stage is done, and holds the bits of the undisturbed run."""
    found = digests(plan, root)
    return [
        f"{stage.kind} {key[:6]} is not done" if found[key] is None else f"{stage.kind} {key[:6]} has other bits"
        for key, stage in plan.stages.items()
        if found[key] != expected[key]
    ]


def once(plan: Plan, root: Path) -> list[str]:
    """No stage was finished twice: one attempt says so, it is the one that counts, and none was begun after it."""
    store, wrong = Store(root), []
    for key, stage in plan.stages.items():
        name, folders, done = f"{stage.kind} {key[:6]}", store.attempts(key), store.done(key)
        ended = [[e.get("status") for e in read_events(f / "events.jsonl")[0] if e["event"] == "end"] for f in folders]
        finished = [folder.name for folder, said in zip(folders, ended, strict=True) if "FINISHED" in said]
        if len(finished) > 1:
            wrong.append(f"{name} was finished by attempts {', '.join(finished)}")
        if done is not None and folders and int(folders[-1].name) != done.attempt:
            wrong.append(f"{name} is done by attempt {done.attempt}, but attempt {folders[-1].name} was begun")
        wrong += [f"{name}: attempt {f.name} was discarded" for f in folders if (f / "discarded").exists()]
    return wrong


def untouched(plan: Plan, root: Path, held: Mapping[str, tuple[str, ...]]) -> list[str]:
    """What was done when somebody looked last has the same attempts now, by number and inode."""
    now = attempts(plan, root)
    kinds = {key: stage.kind for key, stage in plan.stages.items()}
    return [f"{kinds[key]} {key[:6]} was done and was begun again" for key in held if now[key] != held[key]]


def held(plan: Plan, root: Path) -> dict[str, tuple[str, ...]]:
    """For `untouched`: the attempts of what is done."""
    store = Store(root)
    done = [key for key in plan.stages if store.done(key) is not None]
    now = attempts(plan, root)
    return {key: now[key] for key in done}


def mirrored(plan: Plan, root: Path, *, ended: bool) -> list[str]:
    """What MLflow's database says of each stage is what the store says; after the end, also of rows and the suite.

    Read without MLflow, whose import costs a second. Nobody may work on the store meanwhile.
    """
    found, wrong = runs(root), []
    store = Store(root)
    for key, stage in plan.stages.items():
        done = store.done(key) is not None
        legal = {"FINISHED"} if done else {"KILLED", "FAILED"}
        status = found.pop(key, None)
        if status is None and (done or store.attempts(key)):
            wrong.append(f"MLflow has no run of {stage.kind} {key[:6]}")
        elif status is not None and status not in legal:
            wrong.append(f"MLflow says {status} of {stage.kind} {key[:6]}, the store {'done' if done else 'not done'}")
    wrong += [f"MLflow says {status} of {key}" for key, status in found.items() if ended and status != "FINISHED"]
    if ended and sum(key.startswith("suite/") for key in found) != 1 + 2 * len(plan.rows):  # one a row, one a seed
        wrong.append(f"MLflow has these runs beside those of stages: {sorted(found)}")
    return wrong


def runs(root: Path) -> dict[str, str]:
    """`bench.key` -> status, of all runs in the store's own database that are not deleted."""
    question = """select tags.value, runs.status from runs join tags using (run_uuid)
                  where tags.key = ? and runs.lifecycle_stage = 'active'"""
    with sqlite3.connect(f"file:{root / place.DATABASE}?mode=ro", uri=True) as database:
        rows = database.execute(question, (mirror.KEY,)).fetchall()
    database.close()
    double = [key for key, number in Counter(key for key, _ in rows).items() if number > 1]
    assert not double, f"MLflow has several runs of {double}"
    return dict(rows)


def told(plan: Plan, status: Any) -> list[str]:
    """What `status --json` says of a finished suite."""
    stages = {stage["key"]: stage for stage in status["stages"]}
    return [
        f"status says {stages.get(key, {}).get('state', 'nothing')} of {stage.kind} {key[:6]}"
        for key, stage in plan.stages.items()
        if stages.get(key, {}).get("state") != "done"
    ]


def all_of(scene: Scene, expected: Mapping[str, str | None]) -> list[str]:
    """Of a run that has ended well."""
    plan, root = scene.plan, scene.root
    wrong = [*whole(plan, root, expected), *once(plan, root), *mirrored(plan, root, ended=True)]
    said = scene.bench("status", "--json")
    if said.returncode:
        return [*wrong, f"status ends with {said.returncode}: {said.stderr.strip()[-300:]}"]
    wrong += told(plan, json.loads(said.stdout))
    wrong += [f"driver {n} printed a traceback" for n in range(len(scene.drivers)) if _traceback(scene.output(n))]
    wrong += [f"{path.relative_to(root)} was left behind" for path in sorted(root.rglob("*.tmp-*"))]
    return wrong


def _traceback(text: str) -> bool:
    return "Traceback (most recent call last)" in text
