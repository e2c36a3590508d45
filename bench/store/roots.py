"""What the suites that were run on a store need of it, a file per suite. Separate from the stages: `gc` reads it."""

from __future__ import annotations

import contextlib
import getpass
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.key import digest
from bench.store.disk import make_folder, read_json, write_json
from bench.store.done import now
from bench.store.form import is_key
from bench.store.lease import host

FOLDER = "roots"


@dataclass(frozen=True)
class TableRow:
    """A row and seed of a suite's table, so that its result is found without the suite's file.

    Attributes:
        row: its label. seed, method, settings, mark: see bench.record.Record.
        evaluate: the key of its evaluate stage.
    """

    row: str
    seed: int
    method: str
    settings: Mapping[str, Any]
    evaluate: str
    mark: str = ""


@dataclass(frozen=True)
class Root:
    """A suite that needs stages of this store.

    Attributes:
        name: the suite's, and six digits where options changed its table.
        suite: its file.
        keys: all stages that it needs.
        rows: key -> the row it is made for; also of stages that it needed once and that still exist.
        table: the rows and seeds of its table; of a search also those of its trials. None: it was last run before this
            was noted.
        user: who ran it last; host: where; time: when (ISO, UTC).
        file: name of the file below roots/, without .json.
    """

    name: str
    suite: str
    keys: tuple[str, ...]
    rows: Mapping[str, str] = field(default_factory=dict)
    table: tuple[TableRow, ...] | None = None
    user: str = ""
    host: str = ""
    time: str = ""
    file: str = ""


def register(
    store: Path,
    name: str,
    suite: str,
    keys: tuple[str, ...],
    rows: Mapping[str, str],
    table: Iterable[TableRow] | None = None,
) -> None:
    """See Store.register_root."""
    path, known = _place(store, name, suite)
    before = known.get("rows", {}) if isinstance(known, dict) else {}
    kept = {key: row for key, row in before.items() if (store / key).is_dir()}
    make_folder(path.parent)
    noted = None if table is None else _with_earlier(tuple(table), known, keys)
    write_json(path, to_json(Root(name, suite, keys, kept | dict(rows), noted, _user(), host(), now())))


def join(store: Path, root: Root) -> bool:
    """Note in a store what a suite needs by another store: who ran it there and when stay with it. Where the suite was
    run on this one too, its own note stays, with the keys, rows and lines of its table that it lacks; its own are last.

    Returns:
        Whether anything was new.

    Raises:
        UserError: a name that is none; the store cannot be written.
    """
    path, known = _place(store, root.name, root.suite)
    if known is None:
        make_folder(path.parent)
        write_json(path, to_json(root))
        return True
    own = read(path)
    keys = tuple(dict.fromkeys((*own.keys, *root.keys)))
    table = own.table if root.table is None else _with_further(own.table or (), root.table)
    joined = replace(own, keys=keys, rows={**root.rows, **own.rows}, table=table)
    if joined == own:
        return False
    write_json(path, to_json(joined))
    return True


def to_json(root: Root) -> dict[str, Any]:
    """What its file below roots/ holds."""
    return {name: value for name, value in asdict(root).items() if name != "file"}


def _place(store: Path, name: str, suite: str) -> tuple[Path, Any]:
    """The file of a suite below roots/, and what it holds; None where there is none. Two suites of one name are kept
    apart."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"'{name}' cannot name a suite", allowed="letters, digits, '_', '-' and '.'")
    path = store / FOLDER / f"{name}.json"
    known = read_json(path)
    if isinstance(known, dict) and known.get("suite") != suite:
        path = path.with_name(f"{name}-{digest(suite)[:8]}.json")
        known = read_json(path)
    return path, known


def _with_further(own: tuple[TableRow, ...], others: tuple[TableRow, ...]) -> tuple[TableRow, ...]:
    """A table, and before it the lines of another that it lacks: of one row and seed the last line is the newest."""
    here = {(row.row, row.seed, row.evaluate) for row in own}
    return (*(row for row in others if (row.row, row.seed, row.evaluate) not in here), *own)


def _with_earlier(table: tuple[TableRow, ...], known: Any, keys: tuple[str, ...]) -> tuple[TableRow, ...]:
    """A table behind what was noted of other stages that are still needed: a search has a table for every round."""
    try:
        earlier = _table(known["table"]) or ()
    except (TypeError, KeyError):  # none, or of an older form
        return table
    new, needed = {row.evaluate for row in table}, set(keys)
    return (*(row for row in earlier if row.evaluate in needed and row.evaluate not in new), *table)


def _table(value: Any) -> tuple[TableRow, ...] | None:
    """The table of a root's file.

    Raises:
        TypeError: it is of another form.
    """
    if value is None:
        return None
    names = {f.name for f in fields(TableRow)}
    found = tuple(TableRow(**{name: one[name] for name in one if name in names}) for one in value)
    for one in found:
        texts = (one.row, one.method, one.evaluate, one.mark)
        whole = type(one.seed) is int and isinstance(one.settings, Mapping)
        if not whole or not all(isinstance(text, str) for text in texts) or not is_key(one.evaluate):
            raise TypeError
    return found


def read(path: Path) -> Root:
    """The root of a file below roots/.

    Raises:
        UserError: it cannot be read as one.
    """
    found = read_json(path)
    try:
        values = {f.name: found[f.name] for f in fields(Root) if f.name in found}
        more = {"keys": tuple(found["keys"]), "table": _table(found.get("table")), "file": path.stem}
        root = Root(**values | more)
        texts = (root.name, root.suite, root.user, root.host, root.time, *root.rows, *root.rows.values())
        if not all(isinstance(text, str) for text in texts) or not all(map(is_key, root.keys)):
            raise TypeError
        return root
    except (TypeError, KeyError, AttributeError):
        hint = "run its suite again, or delete the file if nobody needs that suite"
        raise UserError("what this suite needs cannot be read", where=str(path), hint=hint) from None


def _user() -> str:
    with contextlib.suppress(OSError, KeyError):  # no entry in the password file, e.g. in a container
        return getpass.getuser()
    return ""
