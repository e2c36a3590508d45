"""What the suites that were run on a store need of it, a file per suite. Separate from the stages: `gc` reads it."""

from __future__ import annotations

import contextlib
import getpass
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from bench.errors import UserError
from bench.key import digest
from bench.store.disk import make_folder, read_json, write_json
from bench.store.done import now
from bench.store.form import is_key
from bench.store.lease import host

FOLDER = "roots"


@dataclass(frozen=True)
class Root:
    """A suite that needs stages of this store.

    Attributes:
        name: the suite's, and six digits where options changed its table.
        suite: its file.
        keys: all stages that it needs.
        rows: key -> the row it is made for; also of stages that it needed once and that still exist.
        user: who ran it last; host: where; time: when (ISO, UTC).
        file: name of the file below roots/, without .json.
    """

    name: str
    suite: str
    keys: tuple[str, ...]
    rows: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    host: str = ""
    time: str = ""
    file: str = ""


def register(store: Path, name: str, suite: str, keys: tuple[str, ...], rows: Mapping[str, str]) -> None:
    """See Store.register_root."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"'{name}' cannot name a suite", allowed="letters, digits, '_', '-' and '.'")
    path = store / FOLDER / f"{name}.json"
    known = read_json(path)
    if isinstance(known, dict) and known.get("suite") != suite:
        path = path.with_name(f"{name}-{digest(suite)[:8]}.json")
        known = read_json(path)
    before = known.get("rows", {}) if isinstance(known, dict) else {}
    kept = {key: row for key, row in before.items() if (store / key).is_dir()}
    make_folder(path.parent)
    root = Root(name, suite, keys, kept | dict(rows), _user(), host(), now())
    write_json(path, {name: value for name, value in asdict(root).items() if name != "file"})


def read(path: Path) -> Root:
    """The root of a file below roots/.

    Raises:
        UserError: it cannot be read as one.
    """
    found = read_json(path)
    try:
        values = {f.name: found[f.name] for f in fields(Root) if f.name in found}
        root = Root(**values | {"keys": tuple(found["keys"]), "file": path.stem})
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
