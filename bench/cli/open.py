"""A suite as a command opens it: with the options of the command line, checked as far as nothing has to be started.

Separate because every command on a suite begins so, and tests and benchmarks do too.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from bench.data.formats import FORMATS, Inspected, SplitName
from bench.data.negatives import check_negatives
from bench.engines.facts import check, facts
from bench.errors import UserError, did_you_mean
from bench.key import canonical, plain
from bench.plan import planning
from bench.plan.anchors import anchors_note
from bench.plan.planning import Plan
from bench.spec import FolderData
from bench.store.existing import NEAR, folders
from bench.store.store import Store
from bench.suite import suite as suites
from bench.suite.rows import Row
from bench.suite.seeds import numbers
from bench.suite.suite import Suite


def open_suite(
    path: Path,
    *,
    preset: str | None = None,
    data: str | None = None,
    sets: Sequence[str] | None = None,
    only: str | Sequence[str] | None = None,
    seeds: str | Sequence[str] | None = None,
    against: str | None = None,
) -> Suite:
    """Load a suite with the options of the command line. `only` and `seeds` may be given several times; they add up.

    Raises:
        UserError: anything wrong with file or options, or what can be seen to be missing without starting anything.
    """
    from reports import paper

    looks = _Looks()
    source = suites.Source(looks.fingerprint, lambda name: facts(name).version)
    suite = suites.load(
        path,
        source=source,
        preset=preset,
        data=data,
        sets=sets or [],
        only=_several(only),
        seeds=numbers(_several(seeds)),
        against=against,
    )
    for row in suite.rows:
        _check_folder(suite, row, data)
    for row in suite.rows:
        if row.detector is not None:
            _check_detector(suite, row)
    with blamed_on(suite):
        check(suite.sections.detector)
        if suite.sections.compare_with is not None:
            paper.published(suite.sections.compare_with)
    return replace(suite, notes=suite.notes + looks.notes(suite))


def _check_detector(suite: Suite, row: Row) -> None:
    """Its engine can build the detector of a row that has one of its own."""
    try:
        check(suite.of(row).sections.detector)
    except UserError as error:
        where = f"{suite.document.where('rows', row.label)} rows.{row.label}.{error.where}"
        raise UserError(error.what, where=where, allowed=error.allowed, hint=error.hint) from None


def _check_folder(suite: Suite, row: Row, option: str | None) -> None:
    """The folder of photographs that a row is to be made from is there."""
    data = suite.of(row).sections.data
    if not isinstance(data, FolderData) or os.path.isdir(data.path):
        return
    place = suite.document.where("data", "path") if row.data is None else suite.document.where("rows", row.label)
    where = "--data" if option == data.path else f"{place} data.path"
    path = Path(data.path)
    guess = did_you_mean(path.name, folders(path.parent), NEAR) if path.name else ""
    raise UserError(f"no such folder {data.path}{guess}", where=where, hint="a folder of images and annotations")


def config_text(suite: Suite) -> str:
    """The whole configuration, defaults filled in, as YAML that can be run again."""
    sections, controls = suite.sections.model_dump(mode="json"), suite.controls
    if sections["against"] not in {row.label for row in suite.rows}:  # --only leaves it out
        sections["against"] = None
    rows = {row.label: {"method": row.method.name, **plain(canonical(row.settings))} for row in suite.rows}
    for row in suite.rows:
        if row.schedule is not None:
            rows[row.label]["schedule"] = dict(row.schedule)
        if row.cluster is not None:
            rows[row.label]["cluster"] = plain(canonical(row.cluster))
        if sections["against"] not in (controls.get(row.label), row.label):
            rows[row.label]["against"] = controls.get(row.label)
    brought = {"methods_path": suite.methods_path, "figures_path": suite.figures_path}
    more = {name: [str(path.resolve()) for path in paths] for name, paths in brought.items() if paths}
    return yaml_text({**sections, **more, "rows": rows})


def yaml_text(config: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
    return text


def check_weights_early(suite: Suite, plan: Plan, store: Store) -> None:
    """A weights file that cannot be read is refused before anything starts, or is written."""
    path = suite.weights_file
    if path is None:
        return
    done = planning.all_fresh(plan, store)
    if any(stage.spec.get("weights") for key, stage in plan.stages.items() if key not in done):
        with blamed_on(suite):
            importlib.import_module(facts(suite.sections.detector.engine).module).read_weights(str(path))


def check_negatives_early(suite: Suite) -> None:
    """A val set whose negatives nobody knows is refused before anything starts; that of a row with its own data too."""
    sections = [suite.sections.data, *(row.data for row in suite.rows if row.data is not None)]
    for data in sections:
        if isinstance(data, FolderData):
            check_negatives(data)


@contextlib.contextmanager
def blamed_on(suite: Suite) -> Iterator[None]:
    """Give an error whose `where` is a setting, `detector.trunk`, the suite's file and line as well."""
    try:
        yield
    except UserError as error:
        where = f"{suite.document.where(*error.where.split('.'))} {error.where}"
        raise UserError(error.what, where=where, allowed=error.allowed, hint=error.hint) from None


class _Looks:
    """Splits of folders as planning needs them, each looked at once: fingerprints, and notes on how files are read."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], Inspected] = {}

    def fingerprint(self, data: FolderData, split: SplitName) -> str:
        return self._look(data, split).fingerprint

    def notes(self, suite: Suite) -> tuple[str, ...]:
        """What is read otherwise than it is written, a line per kind, and anchors that do not fit; nothing of data that
        planning will refuse."""
        of_all = suite.sections
        found: dict[str | None, None] = {}
        for data in [of_all.data, *(row.data for row in suite.rows if row.data is not None)]:
            if isinstance(data, FolderData):
                with contextlib.suppress(UserError):
                    train, val = self._look(data, "train"), self._look(data, "val")
                    found |= dict.fromkeys([*train.notes, *val.notes])
                    found[anchors_note(train.sides, of_all.input, of_all.detector)] = None
        return tuple(note for note in found if note is not None)

    def _look(self, data: FolderData, split: SplitName) -> Inspected:
        key = (data.model_dump_json(), split)
        if key not in self._seen:
            self._seen[key] = importlib.import_module(FORMATS[data.name].module).inspect(data, split)
        return self._seen[key]


def _several(given: str | Sequence[str] | None) -> list[str]:
    return [text for text in ([given] if isinstance(given, str) else given or []) if text.strip()]
