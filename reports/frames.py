"""Results as data: one line per row, seed and metric, as a pandas frame and as CSV; and one per row, seed and class.

Separate because notebooks, other programs and `results.csv` of a report take the same lines, from a store or from
MLflow. The documented name of `frame` is `reports.load.frame`. pandas is imported where a frame is made, not before.
"""

from __future__ import annotations

import csv
import io
import json
import shlex
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UserError, cell_text, unknown
from bench.frequency import instance_bin
from bench.lineage import fresh, read_stage
from bench.record import Record
from bench.stage import Stage
from bench.store.excerpt import Excerpt
from bench.store.existing import existing
from bench.store.pack import is_export, unpacked
from bench.store.roots import Root
from bench.store.store import Store
from bench.tracking import records as tracked
from reports.records import record_of

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = (
    "suite", "row", "method", "seed", "metric", "value", "data", "split", "engine", "engine_version", "trunk", "bins",
    "evaluator", "train_digest", "val_digest", "settings", "row_settings", "evaluate_key", "model_key", "commit",
)  # fmt: skip
PER_CLASS = ("row", "seed", "class_id", "class", "instances", "bin", "AP", "AP50")
SUITE_FILE = (".yaml", ".yml")

Word = str | Path
Line = tuple[object, ...]


def frame(*sources: Word, suites: Word | Sequence[Word] | None = None) -> DataFrame:
    """Results as a tidy frame: one line per suite, row, seed and metric, sorted by these; identical lines once.

    A row that was run with options that change its result (`--set`) has a line for each: `evaluate_key` tells them
    apart, and `settings` or `row_settings` say in what they differ. Columns (docs/results.md has more):

        suite, row, method, seed: of the table. metric: AP, AP1, ACC, ..., see bench.record.metric_names.
        value: points (x 100); NaN where there is nothing to measure.
        data, split, engine, engine_version, trunk, bins, evaluator, train_digest, val_digest, settings: of the
            protocol, see bench.record.Protocol; `bins` as edges with spaces, `evaluator` with its version.
        row_settings: the row's own settings, as JSON.
        evaluate_key, model_key: the stage that measured it, and the one whose model it measured.
        commit: of the code that made it; "a + b" where stages of a row were made by several.

    Args:
        sources: folders of stores, exports (`bench export`), or MLflow tracking uris (http://..., sqlite:///...,
            file:///...).
        suites: names of suites, or their files; None: all that have been run. A file means the suite that was run from
            it or, where none was, those of its name: MLflow knows names alone.

    Returns:
        A frame with these columns; without lines where nothing is done.

    Raises:
        UserError: no source, or none with a suite of that name; a source that is not there or cannot be read; a suite
            that was named and was last run before stores noted their rows. (One that was not named is left out, with a
            warning.)
    """
    if not sources:
        raise UserError("no source of results", where="frame", allowed="a store's folder, an export, an MLflow uri")
    wanted = None if suites is None else [suites] if isinstance(suites, str | Path) else list(suites)
    records: list[Record] = []
    names: dict[str, None] = {}
    found: set[Word] = set()
    for source in sources:
        ours, known, there = _read(source, wanted)
        records += ours
        names |= dict.fromkeys(known)
        found |= there
    for word in wanted or ():
        if word not in found:
            raise unknown("suite", str(word), names, where=", ".join(map(str, sources)), hint="`bench run` makes it")
    return framed(sorted(dict.fromkeys(lines(records)), key=_place))


def not_noted(root: Root, store: Path) -> UserError:
    """What is said of a table whose rows its store has not noted, and how they are."""
    options = " with the options that it was run with" if root.name != Path(root.suite).stem else ""
    hint = f"its file {root.suite} is not here: bring it back and run it{options}"
    if Path(root.suite).is_file():
        command = f"python -m bench run {shlex.quote(root.suite)} --store {shlex.quote(str(store))}"
        hint = f"{command}{f',{options}' if options else ''}  (starts nothing where all is done)"
    what = f"which rows suite {root.name} has was not noted when it was last run"
    return UserError(what, where=str(store), hint=hint)


def results(suite: Word, store: Word = "store") -> DataFrame:
    """`bench.results`: the frame of one suite, by its file or name.

    Raises:
        UserError: no such store or MLflow, or no such suite in it.
    """
    return frame(store, suites=suite)


def lines(records: Iterable[Record]) -> Iterator[Line]:
    """The lines of COLUMNS, metrics in the order of a table; a missing value is None."""
    for record in records:
        p = record.protocol
        commit = record.environment.get("commit")
        row = (record.suite, record.row, record.method, record.seed)
        rest = (
            p.data, p.split, p.engine, p.engine_version, p.trunk, " ".join(map(str, p.bins)),
            f"{p.evaluator} {p.evaluator_version}", p.train_digest, p.val_digest, p.settings,
            json.dumps(record.settings, sort_keys=True), record.evaluate_key, record.model_key,
            None if commit is None else str(commit),
        )  # fmt: skip
        for metric, value in record.metrics.items():
            yield (*row, metric, value, *rest)


def to_csv(records: Iterable[Record]) -> str:
    """`results.csv`: the lines of a frame, with all digits, in the order of the records."""
    return _written(COLUMNS, lines(records))


def per_class_to_csv(records: Iterable[Record]) -> str:
    """`per_class.csv`: a line per row, seed and class, classes by ascending id.

    `instances` are training instances; `bin` is the number i of the metric APi that the class is in; AP and AP50 are
    points, empty where val has no instance of the class.
    """
    return _written(PER_CLASS, _of_classes(records))


def _of_classes(records: Iterable[Record]) -> Iterator[Line]:
    for record in records:
        classes = record.per_class
        if classes is not None:
            bins = instance_bin(classes.instance_counts, record.protocol.bins) + 1
            columns = (classes.category_ids, classes.names, classes.instance_counts, bins, classes.ap, classes.ap50)
            yield from ((record.row, record.seed, *line) for line in zip(*columns, strict=True))


def _written(columns: Sequence[str], found: Iterable[Line]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell_text(cell) if isinstance(cell, str) else cell for cell in line] for line in found)
    return out.getvalue()


def _place(line: Line) -> tuple[str, str, int, str]:
    """Where a line belongs; the metrics of one evaluation stay together, in their order."""
    suite, row, seed, key = (line[COLUMNS.index(name)] for name in ("suite", "row", "seed", "evaluate_key"))
    return str(suite), str(row), int(str(seed)), str(key)


def framed(found: Sequence[Line]) -> DataFrame:
    """Lines as a frame with the types of its columns."""
    import pandas as pd

    columns = {name: [line[i] for line in found] for i, name in enumerate(COLUMNS)}
    types = {name: {"seed": "int64", "value": "float64"}.get(name, "str") for name in COLUMNS}
    return pd.DataFrame({name: pd.Series(values, dtype=types[name]) for name, values in columns.items()})


def _read(source: Word, wanted: Sequence[Word] | None) -> tuple[list[Record], list[str], set[Word]]:
    """Of a source: the records of these suites, the names of all there are, and which of `wanted` it has."""
    if not (isinstance(source, str) and tracked.is_uri(source)):
        return _of_folder(Path(source), wanted)
    names = {word: Path(word).stem if _is_file(word) else str(word) for word in wanted or ()}
    records, known = tracked.read(source, None if wanted is None else list(names.values()))
    return records, known, {word for word, name in names.items() if name in known}


def _of_folder(path: Path, wanted: Sequence[Word] | None) -> tuple[list[Record], list[str], set[Word]]:
    """Of a store, or of an export, packed or not."""
    if path.suffix != ".zip" and not is_export(path):
        return _of_store(existing(path), path, wanted)
    with unpacked(path) as folder:
        return _of_store(Excerpt(folder), path, wanted)


def _of_store(store: Store, folder: Path, wanted: Sequence[Word] | None) -> tuple[list[Record], list[str], set[Word]]:
    roots = store.roots()
    of_word = {word: _meant(word, roots) for word in wanted or ()}
    chosen = _noted(roots, None if wanted is None else list(of_word.values()), folder)
    records: list[Record] = []
    seen: set[tuple[str, str, int, str]] = set()
    stages: dict[str, Stage] = {}
    for root in chosen:
        suite = Path(root.suite).stem
        for row in root.table or ():
            identity = (suite, row.row, row.seed, row.evaluate)
            if identity in seen or store.done(row.evaluate) is None:
                continue
            seen.add(identity)
            evaluate = read_stage(store.load, row.evaluate, stages)
            if fresh(evaluate, store.done):
                records.append(record_of(store, evaluate, row, suite))
    names = dict.fromkeys(name for root in roots for name in (root.name, Path(root.suite).stem))
    return records, list(names), {word for word, some in of_word.items() if some}


def _noted(roots: Sequence[Root], wanted: Sequence[Sequence[Root]] | None, folder: Path) -> list[Root]:
    """Those of the wanted tables whose rows the store has noted; a warning of the others.

    Raises:
        UserError: nothing but others is meant by a name.
    """
    for meant in wanted or ():
        if meant and all(root.table is None for root in meant):
            raise not_noted(meant[0], folder)
    chosen = [root for root in roots if wanted is None or any(root in meant for meant in wanted)]
    old = [root for root in chosen if root.table is None]
    if old:
        names = ", ".join(root.name for root in old)
        left_out = f"{folder}: left out, since which rows they have was not noted when they were last run: {names}"
        warnings.warn(f"{left_out}\n  {not_noted(old[0], folder).hint}", stacklevel=6)
    return [root for root in chosen if root.table is not None]


def _meant(word: Word, roots: Sequence[Root]) -> list[Root]:
    """The suites of a store that a name or file means."""
    if not _is_file(word):
        return [root for root in roots if str(word) in (root.name, Path(root.suite).stem)]
    path = Path(word)
    of_file = [root for root in roots if root.suite == str(path.resolve())]
    return of_file or [root for root in roots if path.stem == Path(root.suite).stem]


def _is_file(word: Word) -> bool:
    return isinstance(word, Path) or word.endswith(SUITE_FILE)
