"""A suite's results in MLflow: a run for the suite, with its table as a note and its report as files; below it one per
row, with mean, sd and intervals; below that one per seed. Separate from stages.py, whose runs are what was computed.

Every number comes from records and from what the caller has made of them; nothing is computed from MLflow.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import cell_text
from bench.key import digest
from bench.record import PerClass, Record, format_metric
from bench.store.disk import read_bytes
from bench.suite.seeds import seeds_text
from bench.tracking.mirror import COMMIT, FILED, FILED_BEFORE, Mirror, legal
from bench.tracking.stages import NOTE, TEXT, WHAT, flat

PARENT = "mlflow.parentRunId"
RUN_TYPE = "mlflow.runType"  # of a row: at a first visit MLflow's table is open down to runs of type "evaluation"
DIGITS = 4  # of what a column shows; record.json has all
RECORD, PER_CLASS_FILE = "record.json", "per_class.csv"
NOTED = ("AP", "dAP", "AP1")  # columns of the suite's note
TABLE = "table"  # tag of rows and seeds; those that an older version brought have none (migrate.py)


@dataclass(frozen=True)
class TrackedRow:
    """One row and seed that has a record.

    Attributes:
        record: its result.
        artifacts: files to attach beside record.json and per_class.csv.
        began, ended: Unix seconds; None: now.
        trainings: keys of the trainings of its model, the last one last.
        setup: digest of the settings that it has beside its own, as data and schedule; the same for all its seeds.
    """

    record: Record
    artifacts: tuple[Path, ...] = ()
    began: float | None = None
    ended: float | None = None
    trainings: tuple[str, ...] = ()
    setup: str = ""


@dataclass(frozen=True)
class TrackedRows:
    """The rows of a suite that have a record.

    Attributes:
        rows: one per row and seed, in the table's order.
        more: label -> name -> value, in points: what is known of a row beside mean and sd of its seeds, as AP_low,
            AP_high, dAP.
        table: what the rows have in common: a few digits of their setup, suite and options.
    """

    rows: Sequence[TrackedRow] = ()
    more: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    table: str = ""


def sync_rows(mirror: Mirror, stages: Mirror, found: TrackedRows, status: str, progress: Callable[[int], None]) -> None:
    """Bring rows and seeds up to date.

    Args:
        mirror: of the suite's experiment.
        stages: of its stages', where seeds link to.
        found: the rows.
        status: of the suite's run.
        progress: is told how many rows and seeds are done.
    """
    done = 0
    suites: dict[str, dict[str, list[TrackedRow]]] = {}
    for row in found.rows:
        record = row.record
        # Other settings under the same label, the row's own or the suite's, are another experiment: another run.
        identity = f"{record.row}/{digest([record.method, record.settings, row.setup])[:12]}"
        suites.setdefault(record.suite, {}).setdefault(identity, []).append(row)
    for suite, groups in suites.items():
        began, ended = _span(row for group in groups.values() for row in group)
        key = f"suite/{suite}"
        top = mirror.find(key) or mirror.create(key, suite, began, {WHAT: "suite"})
        lines = []
        for identity, group in groups.items():
            numbers = _rounded(_means(group) | dict(found.more.get(group[0].record.row, {})))
            common = {PARENT: top.info.run_id, TABLE: found.table[:TEXT]}
            run = _sync_row(mirror, f"{key}/{identity}", group, numbers, common)
            for row in group:
                _sync_seed(mirror, stages, row, common | {PARENT: run.info.run_id}, f"{key}/{identity}")
                done += 1
                progress(done)
            lines.append(_line(group, numbers))
        mirror.write(top, tags={NOTE: _note(found.table, lines)[:TEXT]})
        mirror.finish(top, status, ended, later=True)


def _sync_row(
    mirror: Mirror, key: str, group: Sequence[TrackedRow], numbers: Mapping[str, float], common: Mapping[str, str]
) -> Any:
    record, (began, ended) = group[0].record, _span(group)
    params = {"method": record.method, **flat(record.settings)}
    tags = _tags("row", record, common) | {
        RUN_TYPE: "evaluation",
        "seeds": ", ".join(str(row.record.seed) for row in group),
    }
    run = _current(mirror, key, params, numbers) or mirror.create(key, record.row, began, tags)
    changed = {name: value for name, value in numbers.items() if run.data.metrics.get(legal(name)) != value}
    mirror.write(
        run,
        params=params,
        values=[(name, value, time.time(), len(group)) for name, value in changed.items()],
        tags=tags,
    )
    mirror.finish(run, "FINISHED", ended, later=True)
    return run


def _sync_seed(mirror: Mirror, stages: Mirror, row: TrackedRow, common: Mapping[str, str], parent_key: str) -> None:
    record = row.record
    content = record.model_dump(mode="json")
    key = f"{parent_key}/seed{record.seed}/{record.evaluate_key[:12]}"
    protocol = {f"protocol.{name}": value for name, value in flat(content["protocol"]).items()}
    params = {"method": record.method, "seed": record.seed, **flat(record.settings), **protocol}
    numbers = _rounded({name: value for name, value in record.metrics.items() if value is not None})
    tags = _tags("seed", record, common) | {"seed": str(record.seed)}
    began, ended = _span([row])
    run = _current(mirror, key, params, numbers)
    if run is None:
        run = mirror.create(key, f"{record.row} seed {record.seed}", began, tags)
    files = _files(row, content)
    filed = digest([[name, hashlib.sha256(file).hexdigest()] for name, file in files.items()])
    values: list[tuple[str, float, float, int]] = []
    if run.data.tags.get(FILED) != filed:  # new, or remade
        for name, file in files.items():
            mirror.file(run, name, file)
        values = [(name, value, time.time(), 0) for name, value in numbers.items()]
        tags |= {FILED: filed}
    mirror.write(run, params=params, values=values, tags=tags | _trained(stages, row))
    mirror.finish(run, "FINISHED", ended, later=True)


def _current(mirror: Mirror, key: str, params: Mapping[str, Any], numbers: Mapping[str, float]) -> Any | None:
    """The run of a key, where it can be brought up to date: it has no other value of a parameter, and no metric that
    there is no longer."""
    run = mirror.find(key)
    if run is None:
        return None
    said = {legal(name): str(value)[:6000] for name, value in params.items()}
    strange = any(said.get(name, value) != value for name, value in run.data.params.items())
    if strange or run.data.metrics.keys() - {legal(name) for name in numbers}:
        mirror.forget(run)
        return None
    return run


def _tags(what: str, record: Record, common: Mapping[str, str]) -> dict[str, str]:
    """What a row and a seed have in common, and what its method wants to be said of it."""
    tags = {WHAT: what, **common, "row": record.row[:TEXT], "method": record.method}
    tags |= {COMMIT: str(record.environment["commit"])} if record.environment.get("commit") else {}
    return tags | ({"bench.mark": record.mark} if record.mark else {})


def _files(row: TrackedRow, content: Any) -> dict[str, bytes]:
    record = row.record
    files = {RECORD: json.dumps(content, indent=2).encode()}
    if record.per_class is not None:
        files[PER_CLASS_FILE] = per_class_csv(record.per_class).encode()
    return files | {path.name: read_bytes(path) for path in row.artifacts}


def _trained(stages: Mirror, row: TrackedRow) -> dict[str, str]:
    """A note that leads from a seed to the curves of its trainings."""
    runs = [run for key in row.trainings if (run := stages.find(key)) is not None]
    links = [f"[{_plain(run.info.run_name)}](#/experiments/{stages.experiment}/runs/{run.info.run_id})" for run in runs]
    return {NOTE: f"Trained in: {', then '.join(links)}"[:TEXT]} if links else {}


def _plain(text: str) -> str:
    """A text without what Markdown takes for a link, or a cell of a table."""
    return "".join(" " if c in "[]|<>\n" else c for c in text)


def _span(rows: Iterable[TrackedRow]) -> tuple[float, float]:
    """From the begin of the first to the end of the last, Unix seconds."""
    now = time.time()
    ends = [(now if row.began is None else row.began, now if row.ended is None else row.ended) for row in rows]
    return min(began for began, _ in ends), max(ended for _, ended in ends)


def per_class_csv(per_class: PerClass) -> str:
    """One line per class: category id, name, training instances, AP and AP50 in points (empty: no ground truth)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = per_class.model_dump() | {"names": tuple(map(cell_text, per_class.names))}
    writer.writerow(columns)
    writer.writerows(["" if value is None else value for value in line] for line in zip(*columns.values(), strict=True))
    return out.getvalue()


def _means(group: Sequence[TrackedRow]) -> dict[str, float]:
    """metric -> mean, metric_sd -> sample sd (two seeds or more), metric_n -> seeds that have it."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for row in group for name in row.record.metrics):
        values = [v for row in group if (v := row.record.metrics.get(name)) is not None]
        if values:
            found[name], found[f"{name}_n"] = statistics.fmean(values), float(len(values))
        if len(values) > 1:
            found[f"{name}_sd"] = statistics.stdev(values)
    return found


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in numbers.items()}


def _line(group: Sequence[TrackedRow], numbers: Mapping[str, float]) -> str:
    """A row of the suite's note: mean, and the interval where there is one."""
    record = group[0].record
    label = _plain(f"{record.row} ({record.mark})" if record.mark else record.row)
    seeds = seeds_text(sorted(row.record.seed for row in group))
    return f"| {label} | {seeds} | {' | '.join(_cell(numbers, name) for name in NOTED)} |"


def _cell(numbers: Mapping[str, float], name: str) -> str:
    ends = [numbers.get(f"{name}_{end}") for end in ("low", "high")]
    said = format_metric(numbers.get(name))
    return said if None in ends else f"{said} [{format_metric(ends[0])}, {format_metric(ends[1])}]"


def _note(table: str, lines: Sequence[str]) -> str:
    heading = [f"Table {_plain(table)}", ""] if table else []
    return "\n".join([*heading, f"| row | seeds | {' | '.join(NOTED)} |", "|---" * (2 + len(NOTED)) + "|", *lines])


def was_filed(tags: Mapping[str, str]) -> bool:
    """Whether a seed's run has its files, in this layout or the one before."""
    return FILED in tags or FILED_BEFORE in tags
