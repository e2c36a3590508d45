"""Detections as COCO results, for other evaluators and viewers (lvis, pycocotools, TIDE, FiftyOne): a JSON list per row
and seed, and the annotations of the val that it goes with. Separate from the export, which is for readers of ours.

Boxes are xywh in pixels of the original image, ids those of the annotation file, detections in the stored order, which
breaks ties; every number is written with all its digits, so that AP of the file is AP of the record.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.data.split import Split, open_split
from bench.errors import UserError, cell_text
from bench.evaluation.ap import DetectedBoxes
from bench.evaluation.stored import DETECTIONS, read_detections
from bench.lineage import fresh
from bench.plan.planning import RowPlan
from bench.store.disk import make_folder, put
from bench.store.store import Store
from reports.load import RowResult
from reports.write import writing

INDEX = "index.csv"
FIELDS = ("file", "val", "row", "seed", "detections", "AP", "max_detections", "evaluate_key")


def write_coco(
    store: Store, planned: Sequence[RowPlan], rows: Sequence[RowResult], out: Path, told: Callable[[str], None]
) -> list[str]:
    """Write `ROW-seedN.json` per row and seed, `val-DIGEST.json` per val, and `index.csv`, which says what goes with
    what.

    Args:
        store: where the predictions are.
        planned: rows and seeds; those that are done are written.
        rows: their results.
        out: folder; made if missing. Files of these names are replaced.
        told: is told of each file that is written, what it is and the val that it goes with.

    Returns:
        Rows and seeds whose detections are not in the store.

    Raises:
        UserError: detections that were changed; `out` cannot be written.
    """
    results = {(one.record.row, one.record.seed): one for one in rows}
    lines: list[tuple[object, ...]] = []
    lacking: list[str] = []
    vals: dict[str, Split] = {}
    with writing(out):
        make_folder(out)
        for row in planned:
            result = results.get((row.label, row.seed))
            if row.evaluate is None or result is None or not fresh(row.evaluate, store.done):
                continue
            predict, val_key = row.evaluate.inputs["predict"], row.evaluate.inputs["val"].key
            done = store.done(predict.key)
            if done is None or DETECTIONS not in done.digests or store.done(val_key) is None:
                lacking.append(f"{row.label}, seed {row.seed}")
                continue
            record = result.record
            val = f"val-{record.protocol.val_digest[:8]}.json"
            if val not in vals:
                vals[val] = open_split(store.output(val_key), None)
                put(out / val, json.dumps(vals[val].lvis_json()).encode())
                told(f"{val}: {len(vals[val])} images, {vals[val].num_classes} classes")
            content = store.read(predict.key, DETECTIONS)
            found = read_detections(vals[val], content, str(store.output(predict.key) / DETECTIONS))
            name = _name(row, [str(line[0]) for line in lines])
            put(out / name, to_json(found).encode())
            told(f"{name}: {len(found):,} detections of {row.label}, seed {row.seed}; goes with {val}")
            ap, most = record.metrics.get("AP"), record.protocol.max_detections
            lines.append((name, val, row.label, row.seed, len(found), ap, most, record.evaluate_key))
        if lines:
            put(out / INDEX, _index(lines).encode())
    return lacking


def to_json(found: DetectedBoxes) -> str:
    """A COCO results file: [{image_id, category_id, bbox: [x, y, width, height], score}], a line each."""
    columns = (found.image_id, found.category_id, found.xywh, found.score)
    lines = (
        json.dumps({"image_id": image, "category_id": category, "bbox": box, "score": score})
        for image, category, box, score in zip(*(column.tolist() for column in columns), strict=True)
    )
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _name(row: RowPlan, taken: Sequence[str]) -> str:
    """A file name for a row's label, which may hold anything; labels that become alike are numbered."""
    plain = re.sub(r"[^\w.+=-]+", "_", row.label).strip("._") or "row"
    if plain.startswith("val-"):
        plain = f"row_{plain}"
    names = (f"{plain[:80]}{f'_{n}' if n > 1 else ''}-seed{row.seed}.json" for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _index(lines: Sequence[tuple[object, ...]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([cell_text(cell) if isinstance(cell, str) else cell for cell in line] for line in lines)
    return out.getvalue()


def check_folder(out: Path) -> None:
    """Refuse a folder that holds something else than such files.

    Raises:
        UserError: it does, or is no folder.
    """
    if out.exists() and not out.is_dir():
        raise UserError("a file stands there, and COCO results are several files", where=str(out), hint="name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / INDEX).is_file():
        what = f"the folder holds other files (no {INDEX} of COCO results)"
        raise UserError(what, where=str(out), hint="name a new folder, or --force to write into this one")
