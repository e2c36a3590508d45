"""The keys of every row of every suite file, written down. Separate from the test because it is a command too.

A result in a store is found again by its key. A change of the code that moves a key empties every store there is, and
no comparison of the code with itself shows it: so the keys stand in keys.json, made once. Beside the suite files as
they are (on the embedded data) each is planned on photographs with ImageNet weights, in a folder that is written here.

    python -m tests.golden.keys [--update]
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast
from unittest import mock

from bench.cli.open import open_suite
from bench.engines.facts import ENGINES, EngineFacts
from bench.key import digest
from bench.plan import planning
from bench.plan.planning import Plan
from bench.search import plans

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_suffix(".json")
SUITES = tuple(sorted((ROOT / "suites").glob("[a-z]*.yaml")))
# The fields that the sections had when keys.json was made, each away from its default: what a suite may write is in
# the key under its own name. One row of each stage kind; table1 has them all.
CHANGED = (
    "schedule={steps: 40, batch: 8, lr: 0.01, momentum: 0.8, nesterov: false, weight_decay: 0.001, warmup: 3,"
    " warmup_from: 0.1, decay: steps, drops: [0.5], clip: 1.5}",
    "input.scale_jitter=[0.8, 1.2]",
    "input.flip=0.25",
    "test.score_threshold=0.05",
    "test.bins=[5, 50]",
    "detector.norm=group",
    "machine.precision=bfloat16",
    "machine.tasks=2",
    "machine.scope=device",
)

Keys = dict[str, dict[str, dict[str, str]]]  # suite -> row -> model or evaluate -> key; of the first seed


def current() -> Keys:
    """As the code makes them now."""
    with every_engine():
        found: Keys = {path.name: of(planning.make(open_suite(path))) for path in SUITES}
    table = ROOT / "suites" / "table1.yaml"
    found["table1.yaml, other settings"] = of(planning.make(open_suite(table, sets=CHANGED)))
    beta = open_suite(ROOT / "suites" / "search_bags_beta.yaml")
    for level in (plans.Level(0, None, None, (0,)), plans.Level(0, 100, 100, (0,))):  # whole, and stopped at a rung
        name = "search_bags_beta.yaml, trials" + (" at step 100" if level.until else "")
        found[name] = of(plans.plan_of(beta, {f"beta {beta:g}": {"beta": beta} for beta in (2.0, 8.0)}, level))
    with photographs() as sets:
        for name in ("lvis", "coco"):
            more = [*sets, f"data.name={name}"]
            plan = planning.make(open_suite(table, preset="photo-cpu", sets=more))
            found[f"table1.yaml, photo-cpu on {name}"] = of(plan)
    return found


def of(plan: Plan) -> dict[str, dict[str, str]]:
    """The keys of a plan: of each row its model's and its evaluation's, and the digest of all keys there are."""
    rows: dict[str, dict[str, str]] = {"all stages": {"digest": digest(sorted(plan.stages))}}
    for row in plan.rows:
        if row.evaluate is not None and row.label not in rows:
            model = row.evaluate.inputs["predict"].inputs["model"]
            rows[row.label] = {"model": model.key, "evaluate": row.evaluate.key}
    return rows


@contextlib.contextmanager
def every_engine() -> Iterator[None]:
    """As if all libraries were installed: keys do not depend on what is there."""
    there = {name: replace(engine, absent=lambda: None) for name, engine in ENGINES.items()}
    with mock.patch.dict(cast(dict[str, EngineFacts], ENGINES), there):
        yield


@contextlib.contextmanager
def photographs() -> Iterator[list[str]]:
    """`--set` options that name a folder of two photographs and a file of weights; neither is ever decoded."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in ("train", "val"):
            file_name = f"{split}.jpg"
            boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 1200}]
            image = {"id": 1, "width": 64, "height": 48, "file_name": file_name}
            image |= {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
            classes = [{"id": 1, "name": "one", "frequency": "r"}, {"id": 2, "name": "two", "frequency": "f"}]
            value = {"images": [image], "annotations": boxes, "categories": classes}
            (folder / f"{split}.json").write_text(json.dumps(value))
            (folder / "images").mkdir(exist_ok=True)
            (folder / "images" / file_name).write_bytes(b"not decoded")
        (folder / "weights.pth").write_bytes(b"not loaded")
        data = f"data={{name: lvis, path: {folder}, train: train.json, val: val.json}}"
        yield [data, f"detector.weights={folder / 'weights.pth'}"]


def recorded() -> Keys:
    """What keys.json says."""
    found: Keys = json.loads(RECORD.read_text())
    return found


def complaints(was: Mapping[str, object], now: Mapping[str, object], at: str = "") -> Iterator[str]:
    """One line for each key that moved."""
    for name in sorted({*was, *now}):
        before, after, where = was.get(name), now.get(name), f"{at}{name}"
        if isinstance(before, dict) and isinstance(after, dict):
            yield from complaints(before, after, f"{where}: ")
        elif before is None or after is None:
            yield f"{where}: {'new' if before is None else 'gone'}"
        elif before != after:
            yield f"{where}: {str(before)[:12]} became {str(after)[:12]}"


def main(arguments: list[str]) -> int:
    """Compare, or with --update rewrite the record. Exit status 1 when they differ."""
    now = current()
    if arguments == ["--update"]:
        RECORD.write_text(json.dumps(now, indent=1) + "\n")
        print(f"{RECORD.name}: {len(now)} plans")
        return 0
    lines = list(complaints(recorded(), now))
    print("\n".join(lines) or f"the keys of {len(now)} plans as recorded")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
