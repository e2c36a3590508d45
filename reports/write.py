"""Write a suite's whole report into a folder. Separate because it is the one function the command line calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import UserError
from reports import plots
from reports.footnotes import figure_caption
from reports.load import RowResult
from reports.render import to_csv, to_latex, to_markdown, to_text
from reports.tables import table, to_json


def write(
    rows: Sequence[RowResult],
    out: Path,
    suite: str,
    compare_with: str | None = None,
    *,
    order: Sequence[str] = (),
    skipped: Mapping[str, str] | None = None,
    edges: Sequence[int] = plots.DEFAULT_EDGES,
    norm_rows: Sequence[str] = (),
) -> list[Path]:
    """table.txt, .md, .tex, .csv, .json and the figures with their CSV; returns what was written.

    Args:
        rows: one result a row and seed; with none, the tables are written and no figure.
        out: folder, made if missing.
        suite: name for titles and captions.
        compare_with: a published table, or None.
        order: labels in suite order.
        skipped: label -> reason.
        edges: edges of the instance bins.
        norm_rows: rows in the weight-norm figure; () takes those of the paper's Figure 3.

    Raises:
        UserError: no such published table, or `out` cannot be written.
    """
    content = table(rows, suite=suite, compare_with=compare_with, order=order, skipped=skipped)
    texts = {
        "table.txt": to_text(content),
        "table.md": to_markdown(content),
        "table.tex": to_latex(content),
        "table.csv": to_csv(content),
        "table.json": json.dumps(to_json(rows, order=order, skipped=skipped), indent=1, allow_nan=False) + "\n",
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
        figures = _figures(rows, out, suite, order, edges, norm_rows)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", where=str(out), hint="--out FOLDER") from error
    return [out / name for name in texts] + figures


def _figures(
    rows: Sequence[RowResult],
    out: Path,
    suite: str,
    order: Sequence[str],
    edges: Sequence[int],
    norm_rows: Sequence[str],
) -> list[Path]:
    if not rows:
        return []
    several = len({result.record.seed for result in rows}) > 1
    shows = "Bars: mean over seeds, with one sample standard deviation." if several else "One run a row."
    caption = figure_caption(rows, suite, shows)
    written = plots.save(plots.ap_by_bin(rows, order=order, edges=edges, caption=caption), out / "ap_by_bin")
    labels = list(norm_rows) or plots.norm_rows(rows)
    caption = figure_caption(rows, suite, f"Seed {min(result.record.seed for result in rows)} of each row.")
    norms = plots.weight_norms(rows, labels=labels, edges=edges, caption=caption)
    if norms is not None:
        written += plots.save(norms, out / "weight_norms")
        written.append(plots.write_norms(rows, labels, out / "weight_norms.csv"))
    return written
