"""The rendered tables of a few made-up results, written down: terminal, Markdown, LaTeX, CSV, JSON, intervals.

Every value is set here, so that a file changes only where rendering does. It has what a table can have: seeds, a
missing number, a row that failed, names with markup, a control, published figures, intervals.

    python -m tests.golden.tables [--update]
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.spec import Figure
from reports.load import Draws, RowResult
from reports.write import write
from tests.reports.made_records import made, made_draws

FOLDER = Path(__file__).with_suffix("")
FORMS = (
    "table.txt", "table.md", "table.tex", "table_protocol.tex", "table.csv", "table.json", "intervals.csv",
    "results.csv", "per_class.csv",
)  # fmt: skip
HOSTILE = "=1+1 <b>50%_of</b> [red]& \N{RIGHT-TO-LEFT OVERRIDE}x"
MACHINE = {"python": "3.11.7", "torch": "2.15.0", "cpu": "a CPU", "threads": 1, "commit": "abc"}
NO_FIGURE = (Figure(kind="counts"),)  # none of these rows was trained on chosen annotations


def rows() -> list[RowResult]:
    """Three seeds of a baseline, a control and a method; one seed of a row of an odd name without AP1."""
    found = []
    for r, label in enumerate(("baseline", "cls-retrain", "BAGS")):
        for seed in (1, 2, 3):
            metrics = {"AP": 25.0 + 2.5 * r + 0.25 * seed, "AP1": 4.0 * r * r + seed / 8, "AP4": 50.0 - r - seed / 4}
            more: dict[str, float | None] = {"AP50": 40.0 + r, "APr": None, "ACC": 60.0 + r / 3}
            settings = {"beta": 8.0} if label == "BAGS" else None
            row = made(label, seed, settings=settings, environment=MACHINE, key=f"{r}{seed}" * 32, **metrics, **more)
            found.append(replace(row, draws=draws(metrics, r)))
    found.append(made(HOSTILE, 1, method="mine", environment=MACHINE, mark="a reconstruction", AP=26.0, AP1=None))
    return found


def draws(metrics: dict[str, float], r: int) -> Draws:
    """A thousand values around each metric; those of AP4 are of too few images for an interval."""
    spread = np.sin(np.arange(1000) * (1 + r / 7))
    return made_draws({m: v + spread for m, v in metrics.items()}, {"AP": 114, "AP1": 80, "AP4": 12}, "b" * 64)


def current() -> dict[str, str]:
    """File -> what is rendered now."""
    with tempfile.TemporaryDirectory() as folder:
        write(
            rows(), Path(folder), "table1: golden <tables> & $all$", "bags_table1",
            order=["baseline", "cls-retrain", "BAGS", "gone"], skipped={"gone": "failed: OSError: no space left"},
            against={"BAGS": "cls-retrain"}, wanted=NO_FIGURE,
        )  # fmt: skip
        return {name: shortened((Path(folder) / name).read_text(encoding="utf-8")) for name in FORMS}


def shortened(text: str) -> str:
    """Numbers to twelve digits: the last ones of a probability are those of a version of SciPy."""
    return re.sub(r"-?\d+\.\d{8,}(e[-+]?\d+)?", lambda found: f"{float(found[0]):.12g}", text)


def complaints() -> Iterator[str]:
    for name, text in current().items():
        path = FOLDER / name
        written = path.read_text(encoding="utf-8") if path.exists() else ""
        if written != text:
            pairs = zip(written.splitlines(), text.splitlines(), strict=False)
            line = next((i for i, (a, b) in enumerate(pairs, 1) if a != b), 0)
            yield f"{name}: another text than {path.relative_to(FOLDER.parents[2])}, from line {line}"


if __name__ == "__main__":
    if "--update" in sys.argv[1:]:
        FOLDER.mkdir(exist_ok=True)
        for name, text in current().items():
            (FOLDER / name).write_text(text, encoding="utf-8")
    lines = list(complaints())
    print("\n".join(lines) or f"{len(FORMS)} files as written down")
    sys.exit(bool(lines))
