"""The runs of one MLflow experiment, found by `bench.key`. Separate from track.py, which decides what becomes a run:
only this file calls MLflow, through MlflowClient (no global state), imported inside the functions (0.9 s).
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import logging
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.environment import masked
from bench.errors import UserError
from bench.store.disk import create_exclusive, make_folder, write_atomic
from bench.tracking.place import (
    DATABASE,
    artifacts_uri,
    check_no_link,
    default_uri,
    file_of,
    follow_store,
    is_of_store,
    lock,
    parent_of_sqlite,
)

LAYOUT = "2"  # of runs, tags and experiments; runs of another are made again (docs/tracking.md)
BATCH = 1000  # entries that a log_batch call takes at most (mlflow.utils.validation.MAX_ENTITIES_PER_BATCH)
PARAMS_TAGS = 100  # of them parameters, or tags, at most (MAX_PARAMS_TAGS_PER_BATCH)
KEY = "bench.key"
# What only we read. MLflow's pages hide tags that begin with `mlflow.` (Utils.getVisibleTagKeyList of 3.17).
OWN = "mlflow.bench."
FILED, LAYOUT_OF = f"{OWN}filed", f"{OWN}layout"  # FILED: digest of what a seed's run has
FILED_BEFORE = "bench.filed"  # in layout 1
USER, SOURCE, SOURCE_TYPE, COMMIT = (
    "mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit",
)  # fmt: skip
FEW = 20  # keys that are searched for one by one
# A server that is down or slow. MLflow's own are 120 s, and 7 retries after pauses that double: a run would start
# many minutes late.
HTTP = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}


class Mirror:
    """The runs of one experiment by `bench.key`, read once, and what was added to them.

    Args:
        client: see `connect`.
        experiment: its id.
        source: file that its runs come from, shown as such.
        keys: read only the runs of these keys.
        shared: others may write at the same time, without the lock (a server, jobs on several hosts).
        store_root: of the store whose own database it is; None: of another, which decides where files go.
    """

    def __init__(
        self, client: Any, experiment: str, source: str, keys: Collection[str] | None = None, *,
        shared: bool = False, store_root: Path | None = None,
    ) -> None:  # fmt: skip
        self.client, self.experiment, self.shared, self._store_root = client, experiment, shared, store_root
        self.created = self.logged = 0
        self._source = source
        self._runs: dict[str, Any] = {}
        self.old: dict[str, list[Any]] = {}  # of another layout, by key (migrate.py)
        for key in keys if keys is not None and len(keys) <= FEW else (None,):
            self._read(key)

    def _read(self, key: str | None) -> None:
        """Of two runs with one key, made at the same moment, the one with the lower id counts; the other is deleted.

        It may have been written to: its own tags record what it holds, so the first gets all of it.
        """
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], f"tags.`{KEY}` = '{key}'" if key else "", max_results=1000, page_token=token
            )
            for run in page:
                name = run.data.tags.get(KEY)
                if name is None:
                    continue
                if run.data.tags.get(LAYOUT_OF) != LAYOUT and not name.startswith("search/"):  # those are as they were
                    self.old.setdefault(name, []).append(run)
                    continue
                first, *more = sorted({r.info.run_id: r for r in (run, self._runs.get(name)) if r}.items())
                self._runs[name] = first[1]
                for double, _ in more:
                    self.client.delete_run(double)
            token = page.token
            if not token:
                break

    def find(self, key: str) -> Any | None:
        """The run with this `bench.key`, as it was when the mirror was opened or made it."""
        return self._runs.get(key)

    def runs(self) -> dict[str, list[Any]]:
        """All of them by key, those of another layout too."""
        found = {key: list(runs) for key, runs in self.old.items()}
        for key, run in self._runs.items():
            found.setdefault(key, []).append(run)
        return found

    def create(self, key: str, name: str, start: float, tags: Mapping[str, str]) -> Any:
        ours = {KEY: key, LAYOUT_OF: LAYOUT, USER: _user(), SOURCE: self._source, SOURCE_TYPE: "LOCAL"}
        run = self.client.create_run(self.experiment, int(start * 1000), ours | dict(tags), name[:250])
        self.created += 1
        self._runs[key] = run
        if self.shared:
            self._read(key)
        return self._runs[key]

    def forget(self, run: Any) -> None:
        """Delete a run that cannot be brought up to date: MLflow changes no parameter and takes no metric away."""
        self.delete(run)

    def delete(self, run: Any) -> None:
        """Move a run to MLflow's trash."""
        self.client.delete_run(run.info.run_id)
        key = run.data.tags[KEY]
        if self._runs.get(key) is run:
            del self._runs[key]
        elif key in self.old:
            self.old[key].remove(run)

    def write(
        self,
        run: Any,
        *,
        params: Mapping[str, Any] | None = None,
        values: Sequence[tuple[str, float, float, int]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add what the run lacks, in as few calls as MLflow allows: a call costs ten milliseconds and more.

        MLflow writes parameters before values before tags, and so do several calls: tags that count what was logged are
        there only after it.

        Args:
            run: from `find` or `create`.
            params: settings; those that the run had when it was read are left out.
            values: (name, value, Unix seconds, step); a value None is left out.
            tags: those that differ from what the run had are set.
        """
        from mlflow.entities import Metric, Param, RunTag

        named = {legal(name): str(value)[:6000] for name, value in (params or {}).items()}
        parameters = [Param(name, value) for name, value in named.items() if name not in run.data.params]
        metrics = [Metric(legal(n), float(v), int(t * 1000), int(step)) for n, v, t, step in values if v is not None]
        changed = [RunTag(name, value) for name, value in (tags or {}).items() if run.data.tags.get(name) != value]
        self.logged += len(metrics)
        while len(parameters) > PARAMS_TAGS:
            self.client.log_batch(run.info.run_id, params=parameters[:PARAMS_TAGS])
            parameters = parameters[PARAMS_TAGS:]
        while len(metrics) + len(parameters) + len(changed) > BATCH:
            self.client.log_batch(run.info.run_id, params=parameters, metrics=metrics[: BATCH - len(parameters)])
            metrics = metrics[BATCH - len(parameters) :]
            parameters = []
        if parameters or metrics or changed:
            self.client.log_batch(run.info.run_id, params=parameters, metrics=metrics, tags=changed)

    def file(self, run: Any, name: str, content: bytes) -> None:
        """Attach a file, e.g. `report/table.md`. In the store's own folder we write it: where the database says that it
        lies counts for readers alone."""
        if self._store_root is not None:
            path = file_of(self._store_root, run.info.run_id, name)
            make_folder(path.parent)
            write_atomic(path, content)
            return
        folder, _, last = name.rpartition("/")
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / last).write_bytes(content)
            self.client.log_artifact(run.info.run_id, str(Path(place) / last), folder or None)

    @cached_property
    def tags(self) -> dict[str, str]:
        """Of the experiment, as they were when first asked for."""
        return dict(self.client.get_experiment(self.experiment).tags)

    def describe(self, tags: Mapping[str, str]) -> None:
        """Set tags of the experiment that differ."""
        for name, value in tags.items():
            if self.tags.get(name) != value:
                self.client.set_experiment_tag(self.experiment, name, value)

    def finish(self, run: Any, status: str, when: float, *, later: bool = False) -> None:
        """Set the run's status unless it has it; RUNNING again after an end is legal (a new attempt). `later`: set its
        end too where that has become later."""
        if run.info.status == status and not (later and (run.info.end_time or 0) < int(when * 1000)):
            return
        if status == "RUNNING":
            self.client.update_run(run.info.run_id, status=status)
        else:
            self.client.set_terminated(run.info.run_id, status, int(when * 1000))


def _user() -> str:
    """Who brings something into MLflow; a container may know no name."""
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return "unknown"


def connect(store_root: Path, uri: str | None) -> Any:
    """A client of the tracking uri, or of the store's own database; makes and migrates that where it is new.

    Raises:
        ImportError: no mlflow.
        OSError: the folder of the database is not there; MLflow would try for 100 s.
    """
    folder: Path | None = store_root
    if is_of_store(store_root, uri):
        check_no_link(store_root)
        follow_store(store_root)
        uri = default_uri(store_root)
    else:
        assert uri is not None
        folder = parent_of_sqlite(uri)
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    client = _client_class()
    database = store_root / DATABASE
    if is_of_store(store_root, uri) and store_root.is_dir() and not database.exists():
        _make_database(database)
    return client(tracking_uri=uri)


def reader(uri: str) -> Any:
    """A client of a tracking uri, for those who only read. (MLflow would make a database that is not there.)

    Raises:
        ImportError: no mlflow.
    """
    return _client_class()(tracking_uri=uri)


def _client_class() -> Any:
    """MlflowClient, told to be quiet before it is imported."""
    # No usage data from a cluster (MLflow sends it unless disabled before its import), no links for every run that
    # ends, no bar for every file.
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }  # fmt: skip
    for name, value in (HTTP | quiet).items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient  # 0.9 s, so only where it is used

    for name in ("alembic", "mlflow.store.db.utils"):  # otherwise they log many lines "Running upgrade .."
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors reach the user as a notice
    return MlflowClient


def _make_database(path: Path) -> None:
    """Make the store's database elsewhere and put it there whole: two migrations of one new file break it, and two
    hosts may share no lock. SQLite would also make a file that the group cannot write to, whatever the umask.

    Raises:
        OSError: it cannot be written.
    """
    from mlflow.tracking import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        MlflowClient(tracking_uri=f"sqlite:///{made}")
        try:
            create_exclusive(path, made.read_bytes())
        except UserError as error:
            raise error.__cause__ if isinstance(error.__cause__, OSError) else error from None


def is_served(uri: str | None) -> bool:
    """Whether a tracking uri is a server's, which many may write to at once; to a database only one at a time."""
    return (uri or "").startswith(("http://", "https://", "databricks"))


def opened(
    store_root: Path, uri: str | None, experiment: str, source: str, keys: Collection[str] | None = None
) -> Mirror:
    """The mirror of an experiment at a tracking uri, connected; makes what is not there.

    Raises:
        ImportError, OSError: see `connect`. Others: see `tracker_errors`.
    """
    client = connect(store_root, uri)
    number, own = experiment_id(client, store_root, uri, experiment), is_of_store(store_root, uri)
    shared = is_served(uri)
    return Mirror(client, number, source, keys, shared=shared, store_root=store_root if own else None)


def experiment_id(client: Any, store_root: Path, uri: str | None, name: str) -> str:
    """Id of the experiment of that name; makes it, with an absolute place for artifacts, where it is new."""
    found = client.get_experiment_by_name(name)
    if found is None:
        # A server chooses the place; for a database it would otherwise be the working folder.
        location = None if is_served(uri) else artifacts_uri(store_root)
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except tracker_errors():  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def tracker_errors() -> tuple[type[Exception], ...]:
    """What a tracker that fails may raise; MLflow lets its database libraries' errors through while it opens one."""
    try:
        from alembic.util.exc import CommandError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return (OSError,)
    return (MlflowException, SQLAlchemyError, CommandError, OSError)


def half_migrated() -> tuple[type[Exception], ...]:
    """What a database raises that another host migrates at this moment: a table or column is there twice or not yet, it
    is locked, or MLflow and alembic fail over what they find."""
    try:
        from sqlalchemy.exc import OperationalError
    except ImportError:
        return (AttributeError, ValueError)
    return (OperationalError, AttributeError, ValueError)


def notice(error: Exception) -> str:
    """One line for the user; the first of the error's, since SQLAlchemy appends statements and links."""
    first = (str(error).splitlines() or [""])[0]
    what = masked(f"{type(error).__name__}: {first[:300]}")
    return f"MLflow was not updated ({what}); the store has everything, the next run imports it"


@contextlib.contextmanager
def turn(store_root: Path) -> Iterator[None]:
    """One driver of a store at a time; without a lock where the file system has none."""
    with os.fdopen(lock(store_root), "a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield


def legal(name: str) -> str:
    """MLflow takes letters, digits, _ - . space : / in names; anything else becomes _."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in "_-. :/" else "_" for c in name)[:250]
