"""What an export holds of a store: for each row and seed that is done what a reader elsewhere needs, in the store's own
layout, and no weights, images or checkpoints. Separate from the zip (bench/store/pack.py), which knows no stages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.data.split import ANNOTATIONS
from bench.environment import source, version
from bench.errors import UserError
from bench.evaluation.stored import DETECTIONS, PROPOSALS
from bench.lineage import fresh
from bench.plan.planning import RowPlan
from bench.stage import KINDS, Stage, walk
from bench.store import roots
from bench.store.disk import json_bytes, read_json
from bench.store.done import outputs_of
from bench.store.pack import FORMAT, MANIFEST, README, REPORT, VERSION
from bench.store.roots import Root
from bench.store.store import Store
from reports.exports.shown import Shown
from reports.load import CLASSIFIER
from reports.looks import EXAMPLES
from reports.predictions import kept_paths
from reports.records import RESULT
from reports.trainings import TRAIN_INFO

# Outputs that tables and figures read; `counts.json` is named by bench/run/data.py.
READ = (RESULT, CLASSIFIER, TRAIN_INFO, "counts.json", EXAMPLES)
PREDICTED = (DETECTIONS, PROPOSALS, ANNOTATIONS)  # and the annotations of val, which they are read with

Files = dict[str, bytes | Path]


def exported(store: Store, shown: Shown, name: str, *, predictions: bool, report: Sequence[Path]) -> Files:
    """The files of an export: name in the zip -> content, or the file that holds it.

    Args:
        store: what is done; only read.
        shown: the suite's.
        name: under which the suite's table is noted in the small store.
        predictions: whether detections, proposals and val's annotations are in it.
        report: files of its report.

    Raises:
        UserError: no row is done, or a file was changed since it was written.
    """
    rows = [row for row in shown.planned if row.evaluate is not None and fresh(row.evaluate, store.done)]
    if not rows:
        raise UserError("no row has a result yet", where=shown.suite, hint="run it first: python -m bench run SUITE")
    rows = [replace(row, looks={n: s for n, s in row.looks.items() if fresh(s, store.done)}) for row in rows]
    done = {(row.label, row.seed): row for row in rows}
    planned = tuple(done.get((row.label, row.seed), replace(row, evaluate=None, looks={})) for row in shown.planned)
    looked = {stage.key for row in rows for stage in row.looks.values()}
    stages = list(walk(*(root for row in rows for root in row.roots)))
    files: Files = {}
    for stage in stages:
        files |= _files_of(store, stage, predictions=predictions, looked=stage.key in looked)
    for row in rows:
        assert row.evaluate is not None
        kept = (path for path in kept_paths(store, row.evaluate) if path.is_file())
        files |= {f"{row.evaluate.key}/{path.name}": path for path in kept}
    files[f"{roots.FOLDER}/{name}.json"] = json_bytes(roots.to_json(_root(store, name, shown, rows, stages)))
    files |= {f"{REPORT}/{path.name}": path for path in report}
    made_by = {"version": version(), **source()}
    table = replace(shown, planned=planned).to_json()
    manifest = {
        "format": FORMAT, "version": VERSION, "made_by": made_by, "predictions": predictions, "table": table,
    }  # fmt: skip
    manifest["report"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in report}
    files[MANIFEST] = json_bytes(manifest)
    files[README] = _readme(manifest, rows, stages).encode()
    return files


def _files_of(store: Store, stage: Stage, *, predictions: bool, looked: bool) -> Iterator[tuple[str, bytes | Path]]:
    """Of a stage: its stage.json without paths of this machine, and where it is done its record and what is read."""
    folder = store.folder(stage.key)
    yield f"{stage.key}/stage.json", json_bytes({**store.load(stage.key), "aside": {}})
    done = store.done(stage.key)
    if done is None:
        return
    yield f"{stage.key}/done", folder / "done"
    wanted = {*READ, *(PREDICTED if predictions else ())} | ({KINDS[stage.kind].hands} if looked else set())
    for name in done.digests:
        if name in wanted and not (name == ANNOTATIONS and stage.spec.get("split") == "train"):
            path = outputs_of(folder, done.attempt) / name
            store.read(stage.key, name)  # it is what was written
            yield f"{stage.key}/{path.relative_to(folder).as_posix()}", path
    if TRAIN_INFO in done.digests:  # the losses of all its attempts
        for attempt in store.attempts(stage.key):
            if (attempt / "events.jsonl").is_file():
                yield (
                    f"{stage.key}/{(attempt / 'events.jsonl').relative_to(folder).as_posix()}",
                    attempt / "events.jsonl",
                )


def _root(store: Store, name: str, shown: Shown, rows: Sequence[RowPlan], stages: Sequence[Stage]) -> Root:
    """What the small store notes of the suite: its file without the folders of this machine."""
    noted = read_json(store.root / roots.FOLDER / f"{name}.json")
    about: Mapping[str, Any] = noted if isinstance(noted, dict) else {}
    of = {stage.key: row.label for row in reversed(rows) for stage in walk(*row.roots)}
    table = tuple(line for row in rows if (line := row.noted) is not None)
    who = {field: str(about.get(field, "")) for field in ("user", "host", "time")}
    return Root(name, f"{shown.suite}.yaml", tuple(stage.key for stage in stages), of, table, **who)


def _readme(manifest: Mapping[str, Any], rows: Sequence[RowPlan], stages: Sequence[Stage]) -> str:
    made = manifest["made_by"]
    changes = " with changes" if made["dirty"] else ""
    predictions = "Detections, proposals and the annotations of val are in it." if manifest["predictions"] else ""
    text = f"""\
{manifest["table"]["heading"]}

Results of {len(rows)} rows and seeds, {len(stages)} stages, exported by longtail-bench {made["version"]}, commit
{made["commit"] or "unknown"}{changes}. {predictions}

report/                        the report: table.txt, .md, .tex, .csv, .json, figures, suite.yaml, made_by.txt;
                               open report/report.html in a browser
export.json                    the rows and what a report shows beside them
roots/                         which rows and stages the suite has
<key>/stage.json               what a stage computes, and from which stages: the lineage
<key>/done                     what it ran on (commit, versions, machine), and the sha256 of each of its outputs
<key>/attempts/<n>/outputs/    result.json (the record of a row), classifier.json, train.json, counts.json
<key>/draws-*, errors-*, more-*   what intervals and error tables are made from

Weights, images and checkpoints are not in it. The same report again, anywhere:

    python -m bench report THIS.zip

and into a store of your own:

    python -m bench merge STORE THIS.zip
"""
    return text.replace(". \n", ".\n")
