"""Records read back from MLflow. Separate from track.py, which only writes: nothing that a run does depends on what
stands here, but those who see the tracking server alone can have all results from it.

Every seed of a row is an MLflow run with its whole record attached (`record.json`); MLflow's own metrics would lack
what has no value, and say nothing of keys and protocol.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.environment import masked
from bench.errors import UserError
from bench.record import Record, loads
from bench.store.disk import read_bytes
from bench.tracking import credentials
from bench.tracking.mirror import reader, tracker_errors
from bench.tracking.place import ARTIFACTS, DATABASE, file_of, file_of_sqlite
from bench.tracking.rows import RECORD, was_filed
from bench.tracking.stages import WHAT

SEEDS = "tags.`bench.what` = 'seed'"
SCHEMES = ("http://", "https://", "sqlite:", "sqlite+", "file:", "databricks", "postgresql", "mysql", "mssql")


def is_uri(source: str) -> bool:
    """Whether a text is a tracking uri and no path."""
    return source.startswith(SCHEMES)


def read(uri: str, suites: Sequence[str] | None = None) -> tuple[list[Record], list[str]]:
    """Records of suites, and the names of all suites (experiments) that there are. Reads only.

    Args:
        uri: of a tracking server, a database, or MLflow's folder of files.
        suites: their names; None: all.

    Raises:
        UserError: MLflow is not installed, nothing is there, or it cannot be read.
    """
    where = masked(uri)
    place = _place(uri)
    if place is not None and not place.exists():
        raise UserError("no such MLflow database", where=where, hint="`bench run` and `bench sync` make it")
    try:
        client = reader(credentials.taken(uri) or uri)
        found = [e for e in _pages(client.search_experiments) if _is_of_suite(e)]
        names = {e.experiment_id: str(e.name) for e in found}
        chosen = [number for number, name in names.items() if suites is None or name in suites]
        files = place.parent if place is not None and _is_of_store(place) else None
        with tempfile.TemporaryDirectory() as folder:
            runs = _pages(client.search_runs, chosen, SEEDS) if chosen else iter(())
            records = [_record(client, run, files, Path(folder), where) for run in runs if was_filed(run.data.tags)]
            return records, list(names.values())
    except ImportError as error:
        raise UserError(f"mlflow is not installed ({error})", where=where, hint="read the store instead") from None
    except tracker_errors() as error:
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"MLflow cannot be read: {type(error).__name__}: {masked(first)}", where=where) from None


def _is_of_suite(experiment: Any) -> bool:
    """One that does not say so is of an older mirror; but the first, `Default`, is made by MLflow itself."""
    what = experiment.tags.get(WHAT)
    return what != "stages" and not (what is None and experiment.experiment_id == "0")


def _pages(search: Any, *arguments: Any) -> Iterator[Any]:
    """All results of a search of MLflow, page by page."""
    token = None
    while True:
        page = search(*arguments, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _record(client: Any, run: Any, store: Path | None, folder: Path, where: str) -> Record:
    """The record attached to a run. In a store its place is known, whatever the database says of it."""
    number = run.info.run_id
    inside = file_of(store, number, RECORD) if store is not None else None
    if inside is not None and inside.is_file():
        content = read_bytes(inside)
    else:
        target = folder / number
        target.mkdir()
        content = Path(client.download_artifacts(number, RECORD, str(target))).read_bytes()
    return loads(Record, content, f"{where}: run {number}: {RECORD}")


def _place(uri: str) -> Path | None:
    """The file or folder of a uri; None for a server's."""
    if uri.startswith("file:"):
        from urllib.request import url2pathname

        return Path(url2pathname(uri.removeprefix("file://").removeprefix("file:")))
    return file_of_sqlite(uri)


def _is_of_store(database: Path) -> bool:
    return database.name == DATABASE and os.path.isdir(database.parent / ARTIFACTS)
