"""`report` of an export: the same table and files as where it was made. Separate from report.py: it opens no suite."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import typer
import yaml
from rich.console import Console

from bench.cli.intervals import with_lacking
from bench.cli.open import yaml_text
from bench.cli.say import say
from bench.cli.tables import MOST_PRINTED, PAGE, Forms, made_by_lines
from bench.environment import masked
from bench.errors import UserError, printable, unknown
from bench.store.disk import make_folder, put
from bench.store.pack import AGAIN, OF_REPORT, REPORT, is_export, unpacked
from reports.exports.read import Export, open_export
from reports.load import RowResult

AS_EXPORTED = "exported"  # below a report: what was written where the export was made


def is_travelled(path: Path) -> bool:
    """Whether the argument of `report` is an export, or is meant to be one."""
    return path.suffix == ".zip" or (path.is_dir() and is_export(path))


def check(path: Path, given: Sequence[str]) -> None:
    """Refuse the options that need the suite's file.

    Raises:
        UserError: one was given.
    """
    if given:
        hint = f"leave it out, or name the suite's file in place of {path}"
        if given[0] == "--html":
            hint = f"leave it out: {PAGE} is written as it was exported, in {AS_EXPORTED}/"
        raise UserError("an export has its table as it was made", where=given[0], hint=hint)


def report(path: Path, console: Console, out: Path | None, forms: Forms, *, as_json: bool) -> None:
    """`bench report OUT.zip`, or of a folder that it was unpacked into.

    Args:
        path: the export.
        console: for the table.
        out: default: a folder beside it.
        forms: its columns and control, whether figures are PDFs too, and whether intervals are made where it has
            predictions; the page is in the export.
        as_json: print JSON and write nothing.

    Raises:
        UserError: no export, or a damaged one.
    """
    with unpacked(path, report=True) as folder:
        opened = open_export(folder)
        opened = replace(opened, shown=replace(opened.shown, against=_controls(opened, forms.against)))
        rows = _with_intervals(opened, path, console, forms, wanted=False if as_json else forms.intervals)
        if as_json:
            typer.echo(json.dumps(_to_json(opened, rows), indent=1))
        else:
            target = out or path.with_name(f"{path.stem}-report")
            exported = _exported(opened, folder / REPORT)
            made = _write(opened, rows, path, target, console, forms)
            _lay({name: content for name, content in exported.items() if name not in made}, target, console)


def _controls(opened: Export, against: str | None) -> Mapping[str, str]:
    if against is None:
        return opened.shown.against
    if against not in opened.shown.order:
        raise unknown("row", against, opened.shown.order, where="--against")
    return {label: against for label in opened.shown.order if label != against}


def _with_intervals(
    opened: Export, path: Path, console: Console, forms: Forms, *, wanted: bool | None
) -> list[RowResult]:
    again = _again(path, forms)
    able = wanted if opened.predictions else False  # without predictions what is kept is all there is
    return with_lacking(opened.shown.evaluations, opened.store, list(opened.rows), console, again, wanted=able)


def _write(
    opened: Export, rows: Sequence[RowResult], path: Path, folder: Path, console: Console, forms: Forms
) -> frozenset[str]:
    """Write and say it; the names of the files."""
    from reports.render import WIDTH, to_text
    from reports.write import write

    shown, columns = opened.shown, forms.columns or opened.shown.columns
    report = write(
        rows, folder, shown.heading, shown.compare_with, order=shown.order, skipped=shown.skipped, edges=shown.edges,
        wanted=shown.figures, planned=shown.planned, against=shown.against, columns=columns,
        beside={"suite.yaml": _config(shown.config, forms), "made_by.txt": _made_by(opened, path, forms)},
        formats=forms.formats,
    )  # fmt: skip
    say(console, to_text(report.table, console.width if console.is_terminal else WIDTH, MOST_PRINTED))
    for line in (*report.lacking, f"exported by: {_source(opened.made_by)}", f"report: {folder}  ({report.spoken()})"):
        say(console, line)
    return frozenset(file.name for file in report.files)


def _exported(opened: Export, report: Path) -> dict[str, bytes]:
    """Name -> content of the files of the report that came with an export.

    Raises:
        UserError: one was changed since it was exported.
    """
    found = {}
    for name, expected in sorted(opened.report.items()):
        file = report / name
        if OF_REPORT.fullmatch(name) is not None and file.is_file() and not file.is_symlink():
            found[name] = file.read_bytes()
            if hashlib.sha256(found[name]).hexdigest() != expected:
                raise UserError("changed since it was exported", where=str(file), hint=AGAIN)
    return found


def _lay(files: Mapping[str, bytes], target: Path, console: Console) -> None:
    """Lay below a report what was written where the export was made and cannot be made again without the suite, the
    data and the trials: the page, what a search found, a user's own figures."""
    from reports.write import spoken, writing

    if not files:
        return
    folder = target / AS_EXPORTED
    with writing(folder):
        make_folder(folder)
        for name, content in files.items():
            put(folder / name, content)
    say(console, f"as they were exported, in {AS_EXPORTED}/: {spoken(map(Path, files))}")


def _to_json(opened: Export, rows: Sequence[RowResult]) -> object:
    from reports.tables import to_json

    shown = opened.shown
    return to_json(
        rows, compare_with=shown.compare_with, order=shown.order, skipped=shown.skipped, against=shown.against
    )  # fmt: skip


def _config(text: str, forms: Forms) -> str:
    """The configuration that was exported, with the columns and the control that were asked for."""
    if not forms.columns and forms.against is None:
        return text
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if not isinstance(config, dict) or not isinstance(config.get("rows"), dict):  # none came with it
        return text
    if forms.columns:
        config["columns"] = list(forms.columns)
    if forms.against is not None:
        config["against"] = forms.against
        config["rows"] = {
            label: {name: value for name, value in row.items() if name != "against"} if isinstance(row, dict) else row
            for label, row in config["rows"].items()
        }
    return yaml_text(config)


def _again(path: Path, forms: Forms) -> str:
    return shlex.join(["python", "-m", "bench", "report", str(path), *forms.options])


def _made_by(opened: Export, path: Path, forms: Forms) -> str:
    typed = shlex.join(["python", "-m", "bench", *map(masked, sys.argv[1:])])
    again = _again(path, forms)
    return made_by_lines(typed, again, f"exported by:   {_source(opened.made_by)}")


def _source(made_by: Mapping[str, object]) -> str:
    """`longtail-bench 0.1.0, commit 1234`: what wrote the export."""
    changes = ", with changes" if made_by.get("dirty") else ""
    return printable(f"longtail-bench {made_by.get('version')}, commit {made_by.get('commit') or 'unknown'}{changes}")
