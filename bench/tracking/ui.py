"""`bench ui`: MLflow's own pages on the store's database. Separate from track.py, which writes and starts no server.

It listens on this machine only; from another one, tunnel: `ssh -L 5000:127.0.0.1:5000 host`. Without a password every
user of this machine can read and change what is shown, and through it the files below places that the database names;
with `--auth` MLflow's own authentication asks for one, which lies in a folder of the user's own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

from bench.errors import UserError
from bench.store.disk import create_exclusive
from bench.store.own import private
from bench.tracking.place import DATABASE, artifacts_uri, check_no_link, default_uri, follow_store
from bench.tracking.views import links

ADMIN = "admin"
OPEN = (
    "anybody with an account on this machine can open these pages and change what they show (the store's stages stay as"
    " they are); with --auth a password is asked for"
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PORTS_TRIED = 100  # above the wanted one, before any free port is suggested
STOP_SECONDS = 5.0  # time for the server's workers to end (measured: they outlive a SIGTERM to their parent)


def ui(store_root: Path, port: int, host: str = "127.0.0.1", *, auth: bool = False) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the server's exit code (0 after those).

    Raises:
        UserError: see `ui_command` and `authentication`.
    """
    command = ui_command(store_root, port, host, auth=auth)
    more, said = authentication(store_root) if auth else ({}, OPEN)
    address = f"http://{host}:{port}"
    lines = [f"{name:<24} {link}" for name, link in links(store_root, address)]
    print(said, *(lines or [address]), sep="\n", flush=True)
    # Its job runner serves unused features and is seven more processes.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = {**os.environ, **quiet, **more}
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    # A server that outlives a killed `bench ui` would keep the port: SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        stop(server)


def authentication(store_root: Path) -> tuple[dict[str, str], str]:
    """The environment of a server that asks for a password, and what to tell the user. Users and keys of it lie in a
    folder of this user's own, one for each store, and stay the same.

    Raises:
        UserError: what MLflow needs for it is not installed, or the folder cannot be made.
    """
    if importlib.util.find_spec("flask_wtf") is None:
        raise UserError("MLflow's authentication needs Flask-WTF, which is not installed", where="--auth",
                        hint="python -m pip install 'Flask-WTF<2'")  # fmt: skip
    name = hashlib.sha256(os.path.realpath(store_root).encode()).hexdigest()[:16]
    folder = private("ui", name)
    keys = {}
    for file in ("password", "secret"):
        if create_exclusive(folder / file, secrets.token_urlsafe(24).encode()):
            (folder / file).chmod(0o600)
        keys[file] = (folder / file).read_text()
    lines = ["[mlflow]", "default_permission = NO_PERMISSIONS", f"database_uri = sqlite:///{folder / 'users.db'}",
             "authorization_function = mlflow.server.auth:authenticate_request_basic_auth"]  # fmt: skip
    (folder / "auth.ini").write_text("\n".join(lines).replace("%", "%%") + "\n")
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": keys["password"], "MLFLOW_FLASK_SERVER_SECRET_KEY": keys["secret"],
    }  # fmt: skip
    return environment, f"user: {ADMIN}  password: in {folder / 'password'}, which only you can read"


def ui_command(store_root: Path, port: int, host: str = "127.0.0.1", *, auth: bool = False) -> list[str]:
    """The command that serves the store's database, after all checks.

    Raises:
        UserError: no mlflow, no database yet, a host that others could reach, a port that is taken (names a free one).
    """
    database = store_root / DATABASE
    if host not in LOOPBACK:
        hint = f"on your own machine: ssh -L {port}:127.0.0.1:{port} THIS-HOST"
        raise UserError("the pages have no password and are served to this machine only", where=f"--host {host}",
                        allowed=", ".join(LOOPBACK), hint=hint)  # fmt: skip
    if importlib.util.find_spec("mlflow") is None:
        raise UserError("mlflow is not installed", hint="pip install 'mlflow>=3.7,<4', then run the suite once more")
    if not database.is_file():
        raise UserError("nothing has been tracked in this store yet", where=str(database),
                        hint="run a suite first: python -m bench run suites/NAME.yaml")  # fmt: skip
    if not 1 <= port <= 65535:
        raise UserError(f"{port} is no port", where="--port", allowed="1 to 65535 (below 1024 for root only)")
    if not _is_free(host, port):
        free = _free_port(host, port)
        what = f"port {port} is in use, or not yours to use"
        raise UserError(what, where="--port", hint=f"a free one: --port {free}")
    try:
        check_no_link(store_root)
    except OSError as error:
        raise UserError(str(error.strerror), where=str(error.filename)) from None
    follow_store(store_root)
    artifacts = artifacts_uri(store_root)
    return [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", default_uri(store_root),
        "--registry-store-uri", default_uri(store_root),  # the same, which it otherwise says
        "--default-artifact-root", artifacts, "--host", host, "--port", str(port), "--workers", "1",
        "--uvicorn-opts", "--log-level warning",  # its lines would push the links out of sight
        *(("--app-name", "basic-auth") if auth else ()),
    ]  # fmt: skip


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and its workers: they are a process group of their own."""
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        try:
            os.killpg(server.pid, number)
        except (ProcessLookupError, PermissionError):
            return
        try:
            server.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _free_port(host: str, port: int) -> int:
    near = range(port + 1, min(port + PORTS_TRIED, 65536))
    found = next((candidate for candidate in near if _is_free(host, candidate)), None)
    if found is not None:
        return found
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])
