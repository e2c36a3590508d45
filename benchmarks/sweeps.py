"""What a sweep costs against one of its values: eight betas of BAGS in one pass, 21 taus over one network pass.

    python -m benchmarks.sweeps --out benchmarks/results/sweeps.json
    python -m benchmarks.sweeps --quick                    # the smoke suite: does it work?

Both start from a store that has the data and the baseline already. The same code brings copies of it to one value and
to all of them, as planned (`planning.jobs`), in one process and one thread; seconds of each stage kind are
those of its jobs with their children, without imports. Three functions are watched where all callers find them: the
network's forward pass over the val split, post-processing, AP.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measured import ROOT, measure, write

BETAS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, math.inf)
TAUS = tuple(i / 20 for i in range(21))
TARGETS = {
    "beta": "CPU seconds of the sweep / (one BAGS training + 8 evaluations) <= 1.5",
    "tau": "the network runs once; CPU seconds <= one network pass + 21 x (the rest of predict + evaluate)",
}


@dataclass
class Spent:
    """Calls, CPU and wall seconds; `pictures`: what went through a network."""

    calls: int = 0
    cpu: float = 0.0
    wall: float = 0.0
    pictures: int = 0

    def add(self, cpu: float, wall: float, calls: int = 1) -> None:
        self.calls, self.cpu, self.wall = self.calls + calls, self.cpu + cpu, self.wall + wall


@dataclass
class Bill:
    """What bringing a store to a suite took: by stage kind (calls: stages), and by watched function."""

    stages: dict[str, Spent] = field(default_factory=dict)
    inside: dict[str, Spent] = field(default_factory=dict)
    units: list[list[Any]] = field(default_factory=list)  # [kind, stages in this one pass]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Bill:
        spent = {part: {name: Spent(**v) for name, v in content[part].items()} for part in ("stages", "inside")}
        return cls(**spent, units=content["units"])

    def total(self, clock: str) -> float:
        return math.fsum(getattr(spent, clock) for spent in self.stages.values())

    def of_kind(self, clock: str, *kinds: str) -> float:
        return math.fsum(getattr(self.stages[kind], clock) for kind in kinds if kind in self.stages)


# -- the child: one process that works


def bring(store_path: Path, suite_path: Path, *, baseline_only: bool) -> Bill:
    """Make what is missing, as planned; what it took."""
    bill = Bill()
    _watch(bill)  # first: whoever imports these functions by name gets the watched ones
    from bench.cli.open import open_suite
    from bench.engines.torchvision import build as _build  # noqa: F401
    from bench.launch.submission import Dependencies, asides
    from bench.plan import planning
    from bench.plan.jobs import make_jobs
    from bench.run import evaluate as _evaluate  # noqa: F401
    from bench.run import predict as _predict  # noqa: F401
    from bench.run import train as _train  # noqa: F401
    from bench.run.job import Job
    from bench.store.store import Store

    suite = open_suite(suite_path)
    plan, store = planning.make(suite), Store(store_path)
    for stage in plan.stages.values():
        store.add(stage)
    work = Job.unit

    def unit(job: Job, store: Store, keys: Sequence[str], *rest: Any) -> Any:
        cpu, wall = _cpu(), time.monotonic()
        outcomes = work(job, store, keys, *rest)
        kind = plan.stages[keys[0]].kind
        bill.stages.setdefault(kind, Spent()).add(_cpu() - cpu, time.monotonic() - wall, len(keys))
        bill.units.append([kind, len(keys)])
        return outcomes

    setattr(Job, "unit", unit)  # noqa: B010 - the only place where a job's stages can be told apart
    wanted = {key for key, s in plan.stages.items() if not baseline_only or _is_baseline(s.kind, s.inputs)}
    dependencies = Dependencies(plan)
    while missing := {key for key in wanted if not planning.fresh(plan.stages[key], store)}:
        done = set(plan.stages) - {key for key, s in plan.stages.items() if not planning.fresh(s, store)}
        jobs = make_jobs(plan, missing, planning.learned(plan, store), fuse=True)
        job = next(job for job in jobs if dependencies.below(job) <= done)
        outcomes = Job(str(store_path), job.units, suite.sections.machine, asides=asides(plan, job))()
        assert all(outcome.state == "done" for outcome in outcomes.values()), outcomes
    return bill


def _is_baseline(kind: str, inputs: Mapping[str, Any]) -> bool:
    return kind == "data" or (kind == "train" and "init" not in inputs)


def _cpu() -> float:
    """Seconds of this process and of the children that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return math.fsum(u.ru_utime + u.ru_stime for u in used)


def _watch(bill: Bill) -> None:
    from bench.detection import postprocess
    from bench.engines.torchvision.detector import TwoStageDetector
    from bench.evaluation import ap

    for name, owner, function in (
        ("network", TwoStageDetector, "predict_forward"),
        ("postprocess", postprocess, "postprocess"),
        ("ap", ap, "evaluate_boxes"),
    ):
        bill.inside[name] = Spent()
        setattr(owner, function, _watched(getattr(owner, function), bill.inside[name]))


def _watched(function: Callable[..., Any], spent: Spent) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **settings: Any) -> Any:
        cpu, wall = _cpu(), time.monotonic()
        result = function(*arguments, **settings)
        spent.add(_cpu() - cpu, time.monotonic() - wall)
        batch = arguments[1] if len(arguments) > 1 else None
        spent.pictures += len(getattr(batch, "sizes", ()))
        return result

    return call


# -- the parent: stores, copies, ratios


def rows(method: str, setting: str, values: Sequence[float]) -> dict[str, Any]:
    return {f"{method} {setting}={value:g}": {"method": method, setting: value} for value in values}


def suite_with(source: Path, content: Mapping[str, Any], target: Path) -> Path:
    """The suite of a file with other rows."""
    from bench.suite import yamlfile

    of_rows = ("rows", "compare_with", "against", "figures")
    tree = {k: v for k, v in yamlfile.read(source).value.items() if k not in of_rows}
    target.write_text(yaml.safe_dump({**tree, "rows": dict(content)}, sort_keys=False))
    return target


def bill_of(store: Path, suite: Path, log: Path, *, baseline_only: bool = False) -> Bill:
    out = log.with_suffix(".json")
    command = [sys.executable, "-m", "benchmarks.sweeps", "--child", str(store), str(suite), str(out)]
    measure([*command, *(["--baseline-only"] if baseline_only else [])], log=log)
    return Bill.of(json.loads(out.read_text()))


def sweep(
    source: Path, folder: Path, base: Path, method: str, setting: str, values: Sequence[float], one: float
) -> dict[str, Any]:
    """One value, all values, one value again (a machine's speed drifts), each on its own copy of the baseline's store.

    Raises:
        AssertionError: the value that was done alone has other numbers in the sweep.
    """
    single = suite_with(source, rows(method, setting, [one]), folder / f"{setting}-one.yaml")
    every = suite_with(source, rows(method, setting, values), folder / f"{setting}-all.yaml")
    bills, results = {}, {}
    for name, suite in (("before", single), ("sweep", every), ("after", single)):
        store = folder / f"{setting}-{name}"
        shutil.copytree(base, store)
        bills[name] = bill_of(store, suite, folder / f"{setting}-{name}.log")
        results[name] = metrics(store, suite)
        cpu = {kind: round(spent.cpu, 1) for kind, spent in bills[name].stages.items()}
        print(f"{setting} {name}: {bills[name].total('cpu'):.1f} CPU s {cpu}", flush=True)
    label = next(iter(rows(method, setting, [one])))
    assert results["before"][label] == results["sweep"][label] == results["after"][label], results
    return {
        "values": [repr(v) for v in values], "alone": repr(one), "metrics": results["sweep"],
        "one": [asdict(bills["before"]), asdict(bills["after"])], "sweep": asdict(bills["sweep"]),
        **{clock: compared(bills, clock, setting, len(values)) for clock in ("cpu", "wall")},
    }  # fmt: skip


def compared(bills: Mapping[str, Bill], clock: str, setting: str, n: int) -> dict[str, float]:
    """The sweep's seconds against what its target allows, in seconds of the value done alone."""
    ones = [bills["before"], bills["after"]]

    def mean(seconds: Callable[[Bill], float]) -> float:
        return math.fsum(seconds(bill) for bill in ones) / len(ones)

    total = bills["sweep"].total(clock)
    train = mean(lambda b: b.of_kind(clock, "train"))
    predict, evaluate = mean(lambda b: b.of_kind(clock, "predict")), mean(lambda b: b.of_kind(clock, "evaluate"))
    network = mean(lambda b: getattr(b.inside["network"], clock))
    functions = mean(lambda b: getattr(b.inside["postprocess"], clock) + getattr(b.inside["ap"], clock))
    allowed = train + n * (predict + evaluate) if setting == "beta" else network + n * (predict - network + evaluate)
    # Nothing but the watched functions n times, beside what runs once: no store, no patch, no files.
    strict = train + network + n * functions
    return {
        "sweep": total, "allowed": allowed, "sweep_over_allowed": total / allowed,
        "strictly": strict, "sweep_over_strictly": total / strict,
        "one_by_one": n * mean(lambda b: b.total(clock)),
    }  # fmt: skip


def metrics(store_path: Path, suite_path: Path) -> dict[str, dict[str, float | None]]:
    """AP and AP of the bins, in points, of every row."""
    from bench.cli.open import open_suite
    from bench.plan import planning
    from bench.record import Result, loads
    from bench.store.store import Store

    store, found = Store(store_path), {}
    for row in planning.make(open_suite(suite_path)).rows:
        assert row.evaluate is not None, row
        numbers = loads(Result, (store.output(row.evaluate.key) / "result.json").read_bytes()).metrics
        found[row.label] = {name: numbers[name] for name in ("AP", "AP1", "AP2", "AP3", "AP4")}
    return found


def passes(result: Mapping[str, Any]) -> dict[str, int]:
    """Images that went through the network to be predicted on: one value alone, the whole sweep."""
    return {
        "one": result["one"][0]["inside"]["network"]["pictures"],
        "sweep": result["sweep"]["inside"]["network"]["pictures"],
    }


def run(source: Path, folder: Path, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Both sweeps."""
    base, found = folder / "baseline", {}
    suite = suite_with(source, {"baseline": {"method": "baseline"}}, folder / "baseline.yaml")
    bill_of(base, suite, folder / "baseline.log", baseline_only=True)
    for name, method, values, one in (("beta", "bags", BETAS, 8.0), ("tau", "tau_norm", TAUS, 1.0)):
        result = sweep(source, folder, base, method, name, values, one)
        result |= {"target": TARGETS[name], "pictures_through_the_network": passes(result)}
        print(f"{name}: {result['cpu']}, images {result['pictures_through_the_network']}", flush=True)
        found[name] = result
        keep(found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--suite", type=Path, default=ROOT / "suites" / "table1.yaml", help="whose settings to use")
    parser.add_argument("--quick", action="store_true", help="the smoke suite's settings")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    parser.add_argument("--child", type=Path, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--baseline-only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        store, suite, out = arguments.child
        out.write_text(json.dumps(asdict(bring(store, suite, baseline_only=arguments.baseline_only))))
        return

    def keep(found: dict[str, Any]) -> None:
        if arguments.out:
            write(arguments.out, "sweeps", sys.argv[1:], {"suite": source.name, **found})

    source = ROOT / "suites" / "smoke.yaml" if arguments.quick else arguments.suite
    with tempfile.TemporaryDirectory() as name:
        run(source, Path(name), keep)


if __name__ == "__main__":
    main()
