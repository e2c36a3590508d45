"""Where MLflow's database and files of a store lie. Separate because it needs no MLflow, and because both follow the
store: the database notes absolute places of files, and a store may be copied, moved, or written to by others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote, unquote

from bench.store import below

DATABASE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"
_RUN = re.compile(r"[0-9a-f]{32}")
_ASIDE = ("", "-journal", "-wal", "-shm")  # what SQLite opens beside a database
_STRANGE = set("%?#")  # in a path: what SQLAlchemy and MLflow take for an escape, a query, a fragment


def default_uri(store_root: Path) -> str:
    """sqlite database inside the store. Absolute: MLflow's own default depends on the working folder.

    MLflow reads the path once as it stands (to make its folder) and once unquoted, so a path that quoting changes goes
    under the name of the driver, which it only unquotes.
    """
    path = str((store_root / DATABASE).resolve())
    return f"sqlite+pysqlite:///{quote(path)}" if _STRANGE.intersection(path) else f"sqlite:///{path}"


def is_of_store(store_root: Path, uri: str | None) -> bool:
    """Whether a tracking uri is the store's own database."""
    return uri is None or uri == default_uri(store_root)


def check_no_link(store_root: Path) -> None:
    """SQLite opens its files by their paths, and would follow a link that somebody put there.

    Raises:
        OSError: one of them is a link.
    """
    for path in (*(store_root / f"{DATABASE}{more}" for more in _ASIDE), store_root / ARTIFACTS):
        if path.is_symlink():
            raise OSError(errno.ELOOP, "a link, and nothing in a store is followed out of it; remove it", str(path))


def follow_store(store_root: Path) -> None:
    """Let the database say that the files of our runs lie in the store, where it is now; what it said before may be the
    place that the store was copied from, or a folder that somebody else has written into it."""
    database = store_root / DATABASE
    if not database.is_file():
        return
    here = artifacts_uri(store_root)
    ours = "select run_uuid from tags where key = 'bench.key'"
    # A database that is new, of another version or locked: MLflow says so itself.
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            f"update runs set artifact_uri = ? || '/' || run_uuid || '/artifacts' where run_uuid in ({ours})"
            " and artifact_uri != ? || '/' || run_uuid || '/artifacts'", (here, here),
        )  # fmt: skip
        connection.execute(
            "update experiments set artifact_location = ? where artifact_location != ? and (experiment_id in"
            f" (select experiment_id from runs where run_uuid in ({ours})) or experiment_id in"
            " (select experiment_id from experiment_tags where key = 'bench.what'))", (here, here),
        )  # fmt: skip
        connection.execute(
            "update experiments set artifact_location = ? where artifact_location != ?"
            " and artifact_location like 'file://%/' || ?", (here, here, ARTIFACTS),
        )  # fmt: skip


def artifacts_uri(store_root: Path) -> str:
    """Where the files of a store's runs lie."""
    return (store_root / ARTIFACTS).resolve().as_uri()


def file_of(store_root: Path, run_id: str, name: str) -> Path:
    """Where a file of a run of the store's own database lies.

    Raises:
        OSError: the database names a run as MLflow names none.
    """
    if not _RUN.fullmatch(run_id):
        raise OSError(errno.EINVAL, "not the id of a run", str(store_root / DATABASE))
    return store_root / ARTIFACTS / run_id / "artifacts" / name


def parent_of_sqlite(uri: str) -> Path | None:
    """The folder of the file of a sqlite uri that a user gave; None for another uri."""
    return Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:///") else None


def file_of_sqlite(uri: str) -> Path | None:
    """The file of a sqlite uri, with the name of its driver or without; None for another uri."""
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///"))
    driver, _, path = uri.partition(":///")
    return Path(unquote(path)) if driver.startswith("sqlite+") else None


def lock(store_root: Path) -> int:
    """A descriptor of the file that drivers of a store lock.

    Raises:
        UserError: it is a link.
    """
    store_root.mkdir(parents=True, exist_ok=True)
    return below.opened(store_root / "mlflow.lock", os.O_RDWR | os.O_CREAT | os.O_APPEND)
