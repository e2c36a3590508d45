"""`why`: what one stage is, where it stands, and why it was not reused. Separate from overview.py, which is about all
stages of a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from bench.cli.open import open_suite
from bench.cli.options import DEFAULT_STORE, DataPath, Only, Preset, RowOrStage, Seeds, Sets, StoreOption, SuitePath
from bench.cli.readings import whole
from bench.cli.say import clock, listed, say, size
from bench.cli.selection import find
from bench.cli.wanted import wanted
from bench.environment import job_of
from bench.errors import UserError
from bench.key import Part, canonical
from bench.plan import planning
from bench.plan.jobs import make_jobs
from bench.plan.planning import Plan
from bench.stage import Stage
from bench.store.existing import not_another
from bench.store.store import Store

SHOWN = 6  # rows of a list that are spelt out


def command(
    suite: SuitePath, stage: RowOrStage,
    store: StoreOption = DEFAULT_STORE, preset: Preset = None, data: DataPath = None, sets: Sets = None,
    only: Only = None, seeds: Seeds = None,
) -> None:  # fmt: skip
    """Explain a stage: its spec, its inputs, who needs it, and what differs from the nearest stage that is done."""
    loaded = open_suite(suite, preset=preset, data=data, sets=sets, only=only, seeds=seeds)
    opened = not_another(store)
    plan = wanted(loaded, store)
    explain(plan, opened, find(plan, stage), Console())


def explain(plan: Plan, store: Store, stage: Stage, console: Console) -> None:
    """`why`: spec, inputs, who needs it, and what differs from the nearest stage of its kind that is done."""
    state = planning.states(plan, store)[stage.key]
    say(console, f"{stage.kind} {stage.key}\n  state: {state}\n  needed by: {planning.describe(plan, [stage.key])}")
    for name, source in stage.inputs.items():
        say(console, f"  input {name}: {source.kind} {source.key[:6]}")
    failure = store.failure(stage.key)
    if failure:
        say(console, f"  last failure ({failure.time}): {failure.error}")
    for name, value in flat(canonical(_in_full(stage.spec))).items():
        say(console, f"  {name} = {value}")
    done = store.done(stage.key)
    if state == "done":
        assert done is not None
        say(
            console,
            f"  done {done.finished} in {clock(done.seconds)} (attempt {done.attempt})"
            f" on {done.environment.get('host', '-')}"
            + (f", in one pass with {others} more" if (others := (whole(done.extra.get("fused")) or 1) - 1) else ""),
        )
        for line in (*_made_with(done.environment), *_needed(done.extra)):
            say(console, f"  {line}")
        say(console, f"  outputs: {store.output(stage.key)}")
        return
    for line in _on_its_way(plan, store, stage):
        say(console, f"  {line}")
    if done is not None:
        for name, source in stage.inputs.items():
            other = store.done(source.key)
            if other is not None and done.inputs.get(name) != other.digest:
                say(
                    console,
                    f"not reused: done {done.finished} (attempt {done.attempt}); its input {name} was made anew since",
                )
        return
    near = nearest(store, stage)
    if near is None:
        say(console, f"not reused: no {stage.kind} stage in this store is done")
        return
    key, differences = near
    say(console, f"not reused: the nearest {stage.kind} stage that is done is {key[:6]}; it differs in")
    for name, (here, there) in differences.items():
        say(console, f"  {name}: {here} here, {there} there")
        which = name.removeprefix("inputs.")
        if which in stage.inputs and which != name:
            for text in _below(store, stage.inputs[which], str(store.load(key)["inputs"].get(which, "")), which):
                say(console, f"    {text}")


def _below(store: Store, here: Stage, there: str, path: str) -> list[str]:
    """Why an input is another one: the first settings of its own that differ, followed down its inputs."""
    try:
        other = store.load(there)
    except UserError:  # it has gone, or cannot be read
        return []
    own, theirs = flat(canonical(here.spec)), flat(other["spec"])
    full = flat(canonical(_in_full(here.spec)))
    names = [name for name in sorted(set(own) | set(theirs)) if own.get(name) != theirs.get(name)]
    if names:
        return [f"{path}.{n}: {own.get(n, full.get(n, '-'))} here, {theirs.get(n, '-')} there" for n in names]
    for name, source in here.inputs.items():
        below = other["inputs"].get(name, "")
        if below and below != source.key:
            return _below(store, source, below, f"{path}.{name}")
    return []


def _on_its_way(plan: Plan, store: Store, stage: Stage) -> list[str]:
    """Of a stage that is not done: its newest attempt, who works on it, and what is made in the same pass."""
    lines = []
    attempts, owner = store.attempts(stage.key), store.running(stage.key)
    if owner is not None:
        lines.append(f"attempt {attempts[-1].name if attempts else 1} runs on {owner.host}, process {owner.pid}")
    elif attempts:
        lines.append(f"attempt {attempts[-1].name} ended before it was done; the next one continues where it can")
    every = make_jobs(plan, plan.stages, planning.learned(plan, store))
    beside = [key for job in every for unit in job.units if stage.key in unit for key in unit if key != stage.key]
    if beside:
        rows = [plan.needed_by[key][0] for key in beside]
        lines.append(f"made in one pass with that of {listed(rows, SHOWN)}")
    return lines


def _made_with(made: Mapping[str, Any]) -> list[str]:
    """What an attempt ran on (bench/environment.py), in the words of a reader who wants to repeat it."""
    uncommitted = f" and uncommitted changes {made['dirty'][:12]}" if made.get("dirty") else ""
    packages = made.get("packages") or {}
    parts = [f"commit {made['commit'][:12]}{uncommitted}"] if made.get("commit") else []
    parts += [f"python {made['python']}"] if made.get("python") else []
    parts += [f"{name} {packages[name]}" for name in ("torch", "torchvision") if name in packages]
    parts += [", ".join(made["gpus"])] if made.get("gpus") else [str(made["cpu"])] if made.get("cpu") else []
    parts += [f"driver {made['gpu_driver']}"] if made.get("gpu_driver") else []
    parts += [f"{made['threads']} thread{'s' * (made['threads'] != 1)}"] if made.get("threads") else []
    parts += [f"{made['workers']} loader thread{'s' * (made['workers'] != 1)}"] if made.get("workers") else []
    parts += [f"{made['processes']} processes"] if made.get("processes", 1) > 1 else []
    parts += [f"seed {made['seed']}"] if "seed" in made else []
    lines = [f"made with: {', '.join(parts)}"] if parts else []
    queue, job = job_of(made)
    facts = [f"{name.replace('_', ' ')} {value}" for name, value in job.items()]
    return lines + ([f"{queue}: {', '.join(facts)}"] if facts else [])


def _needed(extra: Mapping[str, Any]) -> list[str]:
    """Peak memory, where it was measured."""
    found = [f"{size(extra[f'{name}_mb'])} of {name} memory" for name in ("host", "gpu") if f"{name}_mb" in extra]
    return [f"needed at most: {', '.join(found)}"] if found else []


def nearest(store: Store, stage: Stage) -> tuple[str, dict[str, tuple[Any, Any]]] | None:
    """The done stage of the same kind with the fewest differing settings, and those settings."""
    own = flat({"spec": canonical(stage.spec), "inputs": {n: s.key[:12] for n, s in stage.inputs.items()}})
    full = flat({"spec": canonical(_in_full(stage.spec))})
    best: tuple[str, dict[str, tuple[Any, Any]]] | None = None
    for key in store.keys():  # noqa: SIM118 (a method, not a mapping)
        if key == stage.key or store.done(key) is None:
            continue
        try:
            other = store.load(key)
        except UserError:  # a corrupt stage is somebody's to redo, not a reason to explain nothing
            continue
        if other["kind"] != stage.kind:
            continue
        theirs = flat({"spec": other["spec"], "inputs": {n: k[:12] for n, k in other["inputs"].items()}})
        names = sorted(set(own) | set(theirs))
        differing = {
            n: (own.get(n, full.get(n, "-")), theirs.get(n, "-")) for n in names if own.get(n) != theirs.get(n)
        }
        if best is None or len(differing) < len(best[1]):
            best = (key, differing)
    return best


def _in_full(value: Any) -> Any:
    """A spec with all settings of its parts, also those that a key leaves out (bench.key.Part.later)."""
    if isinstance(value, Part):
        return {"part": value.ref, "version": value.version, "settings": _in_full(value.settings)}
    return {name: _in_full(inner) for name, inner in value.items()} if isinstance(value, Mapping) else value


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names."""
    if isinstance(value, dict) and value:
        return {k: v for name, inner in value.items() for k, v in flat(inner, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): value}
