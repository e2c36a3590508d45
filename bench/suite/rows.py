"""The rows of a suite: a label, a method with its settings, and the row's own sections. Separate from suite.py
(sections and layers) because a row is checked against its method, and one entry may stand for many rows.
"""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.data.formats import FORMATS, Data
from bench.engines.facts import ENGINES, Detector
from bench.engines.sections import DetectorSection
from bench.errors import UserError, did_you_mean, unknown
from bench.method import Method
from bench.spec import Schedule
from bench.suite.catalogue import method_named
from bench.suite.clusters import check_row
from bench.suite.layers import LENGTHS, merge, merged_data
from bench.suite.validation import blame, message
from bench.suite.yamlfile import Document

# What a row may have beside its method's settings.
ROW_SECTIONS = ("schedule", "data", "detector", "cluster", "against")
MOST_ROWS = 10_000  # of a suite, each seed counted; `plan` takes half a minute for so many
MOST_LABEL = 200  # characters
DATA: TypeAdapter[Data] = TypeAdapter(Data)
DETECTOR: TypeAdapter[Detector] = TypeAdapter(Detector)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        label: its name.
        method: the recipe with its settings.
        settings: the method's settings with defaults filled in; `schedule`, `data` and `detector` where the row has
            them.
            (Without `cluster` and `against`: where a row runs and what it is compared with is no part of its identity.)
        schedule: the row's own schedule, if any.
        data: the row's own data section, if any.
        detector: the row's own detector section, if any: another engine's, say.
        cluster: changes of its jobs' resources, see bench.suite.clusters; in no key.
        against: label of the row that it has to beat: its own, or the suite's; None: no other than the baseline.
        until: where its last training stops, as a trial does at a rung; None: at its end.
        rungs: where that may continue from, in the unit of its schedule.
    """

    label: str
    method: Method
    settings: Mapping[str, Any]
    schedule: Mapping[str, Any] | None = None
    data: Data | None = None
    detector: DetectorSection | None = None
    cluster: Mapping[str, Any] | None = None
    against: str | None = None
    until: int | None = None
    rungs: tuple[int, ...] = ()


def with_settings(row: Row, changes: Mapping[str, Any], label: str, base: Schedule, where: str) -> Row:
    """A row with other values of some settings, named as in a suite: beta, t.images, schedule.lr.

    Args:
        row: the row. changes: setting -> value. label: of the new row.
        base: the suite's schedule, on which the row's own must be legal.
        where: for errors.

    Raises:
        UserError: a setting that it does not have, or an illegal value.
    """
    tree: dict[str, Any] = {**row.method.model_dump(mode="json"), "schedule": dict(row.schedule or {})}
    for name, value in changes.items():
        _set(tree, name.split("."), value, where)
        for other in [LENGTHS[last] for last in name.split(".")[-1:] if last in LENGTHS and "schedule." in name]:
            tree["schedule"].pop(other, None)
    schedule = tree.pop("schedule") or None
    try:
        method = type(row.method).model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise UserError(f"{at}: {message(first)}", where=where, hint=_hint(error, type(row.method))) from None
    if schedule is not None:
        merged_schedule(base, schedule, where)
    settings = {name: value for name, value in row.settings.items() if name not in type(row.method).model_fields}
    settings = {**method.model_dump(), **settings} | ({"schedule": schedule} if schedule is not None else {})
    return replace(row, label=label, method=method, settings=settings, schedule=schedule)


def check_rows(
    rows: Any,
    known: Mapping[str, type[Method]],
    base: Schedule,
    data: Data,
    detector: DetectorSection,
    document: Document,
    against: str | None = None,
) -> tuple[Row, ...]:
    """All typed rows; an entry with `each` makes one per combination of its values. `against`: of rows without one.

    Raises:
        UserError: no rows, two with one label, or an error in one, with its line.
    """
    if not isinstance(rows, Mapping) or not rows:
        raise UserError(
            "a suite needs rows", where=document.where("rows"), allowed="rows: {label: {method: NAME, ...}}"
        )
    found: dict[str, Row] = {}
    own: dict[str, str] = {}  # label -> where it names what it has to beat
    for entry, value in rows.items():
        where = f"{document.where('rows', entry)} rows.{entry}"
        _check_each(value, known, where)
        for label, settings in _each(str(entry), value, where):
            _check_label(label, where)
            if len(found) >= MOST_ROWS:
                raise UserError(f"more than {MOST_ROWS:,} rows", where=where, hint="divide them among several suites")
            if label in found:
                raise UserError(f"two rows are called '{label}'", where=where, hint="labels are made by `each`")
            found[label] = _row(label, settings, known, base, data, detector, document, entry)
            if not (isinstance(settings, Mapping) and "against" in settings):
                found[label] = replace(found[label], against=against)
            elif found[label].against is not None:
                own[label] = f"{document.where('rows', entry, 'against')} rows.{label}.against"
    for label, where in own.items():
        if found[label].against not in found:
            raise unknown("row", str(found[label].against), found, where=where)
    return tuple(found.values())


def check_control(
    label: str | None, rows: Sequence[Row], left: Sequence[Row], document: Document, *, option: bool
) -> list[str]:
    """Refuse a control of the whole suite that is no row; a note on each control that --only leaves out.

    Args:
        label: of the suite's `against`. rows: all of the file. left: those that --only keeps.
        option: whether the command line gave it.

    Raises:
        UserError: no such row; or one that the same command line leaves out.
    """
    labels = [row.label for row in rows]
    where = "--against" if option else f"{document.where('against')} against"
    if label is not None and label not in labels:
        raise unknown("row", label, labels, where=where)
    there = {row.label for row in left}
    if option and label not in there:
        raise UserError(f"row '{label}' is left out", where=where, hint=f"keep it: --only '{label}'")
    lost = dict.fromkeys(row.against for row in left if row.against is not None and row.against not in there)
    return [f"--only leaves {name} out: no row is compared with it" for name in lost]


def rows_of_only(rows: tuple[Row, ...], only: Sequence[str], document: Document) -> tuple[Row, ...]:
    """The rows that --only keeps: each text is a label, or labels and patterns ('NCM*') between commas.

    Raises:
        UserError: one that names no row.
    """
    labels = [r.label for r in rows]
    chosen: set[str] = set()
    for text in only:
        for word in [text] if text in labels else [one.strip() for one in text.split(",") if one.strip()]:
            found = [word] if word in labels else fnmatch.filter(labels, word)
            if not found:
                raise unknown("row", word, labels, where=f"--only ({document.path})", hint="a pattern: --only 'NCM*'")
            chosen.update(found)
    return tuple(r for r in rows if not only or r.label in chosen)


def merged_schedule(base: Schedule, changes: Mapping[str, Any], where: str) -> Schedule:
    """A schedule with changes: of a later stage, or of a row.

    Raises:
        UserError: a setting that no schedule has, or an illegal value.
    """
    merged = {k: v for k, v in base.model_dump().items() if LENGTHS.get(k) not in changes} | dict(changes)
    try:
        return Schedule.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "schedule"
        if first["type"] == "extra_forbidden":
            raise unknown("schedule setting", name, Schedule.model_fields, where=where) from None
        raise UserError(f"{name}: {message(first)}", where=where) from None


def _check_each(value: Any, known: Mapping[str, type[Method]], where: str) -> None:
    """The settings that `each` names are there; checked before the label."""
    each = value.get("each") if isinstance(value, Mapping) else None
    kind = known.get(str(value.get("method"))) if isinstance(each, Mapping) else None
    for name in each or () if kind is not None else ():
        first = str(name).split(".")[0]
        if kind is not None and first not in kind.model_fields and first not in ROW_SECTIONS:
            raise _no_setting(first, kind, where)


def _no_setting(name: str, kind: type[Method], where: str) -> UserError:
    legal = [*kind.model_fields, *ROW_SECTIONS, "each"]
    return UserError(
        f"no setting '{name}'{did_you_mean(name, legal)}", where=where, allowed=", ".join(legal),
        hint=f"see: python -m bench methods {kind.name}",
    )  # fmt: skip


def _each(entry: str, value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """(label, settings) of every combination of `each`: {setting: [values]}, the label being a template."""
    if not isinstance(value, Mapping) or "each" not in value:
        yield entry, value
        return
    each = value["each"]
    if not isinstance(each, Mapping) or not each or not all(isinstance(v, list) and v for v in each.values()):
        raise UserError("each must map settings to lists of values", where=where, allowed="each: {beta: [1, 2, 4]}")
    words = [str(name).rsplit(".", 1)[-1] for name in each]
    for word in words:
        if f"{{{word}}}" not in entry:
            raise UserError(
                f"the label does not name '{word}'", where=where, allowed=f"a label with {{{word}}} in it",
                hint=f'e.g. "{entry} {{{word}}}"',
            )  # fmt: skip
    number = math.prod(len(values) for values in each.values())
    if number > MOST_ROWS:  # before any is made: four short lists can stand for a million rows
        shape = " x ".join(str(len(values)) for values in each.values())
        what = f"each makes {shape} = {number:,} rows; {MOST_ROWS:,} are the most"
        raise UserError(what, where=where, hint="name fewer values, or divide them among several suites")
    for values in itertools.product(*each.values()):
        label, settings = entry, {k: v for k, v in value.items() if k != "each"}
        for name, word, one in zip(each, words, values, strict=True):
            label = label.replace(f"{{{word}}}", _shown(one))
            _set(settings, str(name).split("."), one, where)
        yield label, settings


def _check_label(label: str, where: str) -> None:
    """A label is a line of a table, a name in MLflow and a word of a command."""
    if not label.strip() or len(label) > MOST_LABEL or "\n" in label or "\t" in label:
        raise UserError("this is no label of a row", where=where, allowed=f"one line of 1 to {MOST_LABEL} characters")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(_shown(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _set(settings: dict[str, Any], path: Sequence[str], value: Any, where: str) -> None:
    for name in path[:-1]:
        inner = settings.get(name, {})
        if not isinstance(inner, Mapping):
            raise UserError(f"'{name}' is a value, not a section", where=where)
        settings[name] = dict(inner)
        settings = settings[name]
    settings[path[-1]] = value


def _row(
    label: str,
    value: Any,
    known: Mapping[str, type[Method]],
    base: Schedule,
    data: Data,
    detector: DetectorSection,
    document: Document,
    entry: str,
) -> Row:
    where = f"{document.where('rows', entry)} rows.{label}"
    if not isinstance(value, Mapping) or "method" not in value:
        raise UserError(
            "a row needs a method",
            where=where,
            allowed="{method: NAME, setting: value, ...}",
            hint="see: python -m bench methods",
        )
    kind = method_named(str(value["method"]), known, where)
    settings = {k: v for k, v in value.items() if k not in ("method", *ROW_SECTIONS)}
    for name in settings:
        if name not in kind.model_fields:
            raise _no_setting(name, kind, f"{document.where('rows', entry, name)} rows.{label}")
    try:
        method = kind.model_validate(settings)
    except ValidationError as error:
        raise blame(error, document, ("rows", entry), kind, hint=_hint(error, kind)) from None
    own = {name: value[name] for name in ROW_SECTIONS if value.get(name) is not None}
    cluster = check_row(own.pop("cluster"), f"{where}.cluster") if "cluster" in own else None
    against = own.pop("against", None)
    if against is not None and not isinstance(against, str):
        raise UserError(f"against must be the label of a row, got {against!r}", where=where, allowed="a label, or null")
    for name, section in own.items():
        if not isinstance(section, Mapping):
            fields = {"schedule": Schedule, "data": type(data), "detector": type(detector)}[name].model_fields
            raise UserError(f"{name} must be a mapping", where=where, allowed=", ".join(fields))
    if "schedule" in own:
        merged_schedule(base, own["schedule"], where)
    return Row(
        label, method, {**method.model_dump(), **own}, own.get("schedule"), _own_data(own, data, document, entry),
        _own_detector(own, detector, document, entry), cluster, against,
    )  # fmt: skip


def _hint(error: ValidationError, kind: type[Method]) -> str:
    first = error.errors()[0]
    if isinstance(first["input"], str) and "," in first["input"] and len(first["loc"]):  # Hydra's way of a sweep
        return f"for several values: each: {{{first['loc'][0]}: [{first['input'][:100]}]}}, and {{...}} in the label"
    return f"see: python -m bench methods {kind.name}"


def merged_detector(below: DetectorSection, above: Mapping[str, Any]) -> dict[str, Any]:
    """A detector section on another; that of an engine with other settings replaces it."""
    engine = ENGINES.get(str(above.get("engine", below.engine)))
    if engine is not None and engine.section is not type(below):
        return dict(above)
    merged: dict[str, Any] = merge(below.model_dump(), above)
    return merged


def _own_detector(
    own: Mapping[str, Any], detector: DetectorSection, document: Document, entry: str
) -> DetectorSection | None:
    if "detector" not in own:
        return None
    try:
        found: DetectorSection = DETECTOR.validate_python(merged_detector(detector, own["detector"]))
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{document.where('rows', entry)} rows.{entry}.detector"
        if first["type"] == "union_tag_invalid":
            raise unknown("engine", str(first["ctx"]["tag"]), ENGINES, where=f"{where}.engine") from None
        at = [str(name) for name in first["loc"][1:]]  # without the name of the section's kind
        if first["type"] == "extra_forbidden":
            section = ENGINES[str(own["detector"].get("engine", detector.engine))].section
            raise unknown("setting", at[-1], section.model_fields, where=".".join([where, *at[:-1]])) from None
        raise UserError(message(first), where=".".join([where, *at])) from None
    return found


def _own_data(own: Mapping[str, Any], data: Data, document: Document, entry: str) -> Data | None:
    if "data" not in own:
        return None
    try:
        return DATA.validate_python(merged_data(data.model_dump(), own["data"]))
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{document.where('rows', entry)} rows.{entry}.data"
        if first["type"] == "union_tag_invalid":
            raise unknown("data set", str(first["ctx"]["tag"]), FORMATS, where=f"{where}.name") from None
        if first["type"] == "extra_forbidden":
            raise unknown("setting", str(first["loc"][-1]), type(data).model_fields, where=where) from None
        raise UserError(f"{first['loc'][-1]}: {message(first)}", where=where) from None
