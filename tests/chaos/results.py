"""What came of many runs, as JSON and as Markdown. Separate: written anew from the lines of finished runs."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.chaos.kinds import KINDS
from tests.chaos.scene import played

PACKAGES = ("torch", "torchvision", "submitit", "mlflow")
Runs = Sequence[Mapping[str, Any]]


def read(path: Path) -> dict[int, dict[str, Any]]:
    """Finished runs, by number."""
    if not path.exists():
        return {}
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return {report["number"]: report for report in found}


def write(out: Path, runs: Runs, seed: int, words: Sequence[str], skipped: Mapping[str, str]) -> None:
    """`out` (Markdown), and beside it the JSON."""
    content = summary(runs, seed, words, skipped)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps({**content, "of each run": list(runs)}, indent=1) + "\n")
    out.write_text(markdown(content, runs))


def summary(runs: Runs, seed: int, words: Sequence[str], skipped: Mapping[str, str]) -> dict[str, Any]:
    """The numbers."""
    drawn = Counter(kind for run in runs for kind in run["drawn"])
    hit = Counter(one["kind"] for run in runs for one in run["injected"])
    attempts: Counter[str] = Counter()
    for run in runs:
        attempts.update(run["attempts"])
    return {
        "command": f"python -m tests.chaos {shlex.join(words)}",
        "commit": _said("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
            "slurm": _said("slurmctld", "-V"),
        },
        "suite": f"{played().path.name}, rows {played().rows}, {', '.join(played().sets)}, with tests/tiny_suite.py",
        "seed": seed,
        "runs": len(runs),
        "runs here": sum(run["place"] == "local" for run in runs),
        "runs in Slurm": sum(run["place"] == "slurm" for run in runs),
        "failed runs": [run["number"] for run in runs if run["failures"]],
        "faults": {kind: {"drawn": drawn[kind], "injected": hit[kind]} for kind in KINDS},
        "left out": dict(skipped),
        "attempts": dict(attempts),
        "attempts more than stages": sum(run["again"] for run in runs),
        "retries by drivers": sum(run["retries"] for run in runs),
        "calls of run": dict(sorted(Counter(len(run["codes"]) for run in runs).items())),
        "jobs submitted to Slurm": sum(run["jobs"] for run in runs),
        "wall seconds of all runs, one after another": round(sum(run["wall"] for run in runs)),
        "CPU seconds of all runs": round(sum(run["cpu"] for run in runs)),
    }


def markdown(content: Mapping[str, Any], runs: Runs) -> str:
    """For people."""
    failed = [run for run in runs if run["failures"]]
    lines = [
        f"# {content['runs']} runs with faults, {len(failed)} failed",
        "",
        *(f"- {name}: {_text(value)}" for name, value in content.items() if name != "faults"),
        "",
        "| fault | drawn | injected |",
        "|---|---:|---:|",
        *(f"| {kind} | {n['drawn']} | {n['injected']} |" for kind, n in content["faults"].items()),
        "",
        "| run | where | injected (share of the training done) | calls ended with | attempts more | wall s | CPU s |",
        "|---:|---|---|---|---:|---:|---:|",
        *(_row(run) for run in runs),
        "",
        *(f"Run {run['number']} failed ({' | '.join(run['failures'])}): `--only {run['number']}`" for run in failed),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _row(run: Mapping[str, Any]) -> str:
    hit = ", ".join(f"{one['kind']} ({one['fraction']:.2f})" for one in run["injected"]) or "-"
    codes = ", ".join(str(code) for code in run["codes"])
    cells = [run["number"], run["place"], hit, codes, run["again"], round(run["wall"]), round(run["cpu"])]
    return f"| {' | '.join(map(str, cells))} |"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"`{value}`" if str(value).startswith("python -m") else str(value)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


def _said(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return "-"
