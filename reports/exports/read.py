"""The rows of an export, as `reports.load` reads those of a store. Separate because there is no plan: what the rows are
stands in the export.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.store.excerpt import Excerpt
from bench.store.pack import MANIFEST, read_manifest
from reports.exports.shown import Shown, read_shown
from reports.load import RowResult, load_rows
from reports.predictions import with_kept


@dataclass(frozen=True)
class Export:
    """An export that was opened.

    Attributes:
        store: its stages.
        shown: what its report shows.
        rows: its results, with what is kept of them.
        predictions: whether it has detections.
        made_by: version, commit and dirty of the code that wrote it.
        report: name -> sha256 of the files of its report; {} of one by an older version.
    """

    store: Excerpt
    shown: Shown
    rows: Sequence[RowResult]
    predictions: bool
    made_by: Mapping[str, Any]
    report: Mapping[str, str]


def open_export(folder: Path) -> Export:
    """An unpacked export.

    Raises:
        UserError: it is none, of a newer version, or damaged.
    """
    manifest, store = read_manifest(folder), Excerpt(folder)
    shown = read_shown(manifest.get("table"), store, str(folder / MANIFEST))
    rows = load_rows(store, shown.planned, shown.suite, shown.figures)
    made_by, report = manifest.get("made_by"), manifest.get("report")
    return Export(
        store, shown, with_kept(store, shown.evaluations, rows), manifest.get("predictions") is True,
        made_by if isinstance(made_by, dict) else {}, report if isinstance(report, dict) else {},
    )  # fmt: skip
