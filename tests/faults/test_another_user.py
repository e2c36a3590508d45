"""Another user of the machine, who may write to the store, against a user's own commands. Both have uids of their own.

Each attack is one that worked once. What is checked is what the attacker wants: code that runs, files that are gone or
changed, a process that is ended, a password; and that a store still serves two users.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.cli.open import open_suite
from bench.plan import planning
from bench.plan.planning import Plan
from bench.store.store import Store
from tests.conftest import TINY
from tests.faults.another_user import GROUP, User, ended, users
from tests.planned import model

pytestmark = pytest.mark.slow

PASSWORD = "S3CRETPASS"
REWRITE = """
import glob, hashlib, json, os, sys, time
store, evil, mark, seconds = sys.argv[1:]
version = hashlib.sha256(open(evil).read().encode()).hexdigest()[:16]
end = time.time() + float(seconds)
while time.time() < end and not os.path.exists(mark):
    for path in glob.glob(store + "/*/stage.json"):
        try:
            found = json.load(open(path))
            if found["kind"] == "train" and "evil" not in json.dumps(found):
                found["spec"]["classifier"] = {"part": evil + ":Evil", "version": version, "settings": {}}
                with open(path + ".x", "w") as file: json.dump(found, file)
                os.replace(path + ".x", path)
                print("rewritten", path, flush=True)
        except Exception as error:
            print(error, flush=True)
    time.sleep(0.02)
"""
EVIL = """
import os
with open({mark!r}, "a") as file: file.write(str(os.getuid()))
class Evil:
    def __init__(self, *rest): raise SystemExit
"""
GC_AT_ONCE = """
import sys
from bench.cli import app, waste
waste.STALE_SECONDS = -1.0  # what lies in trash counts as left behind at once, not after ten minutes
sys.argv = ["bench", *sys.argv[1:]]
app.main()
"""


@dataclass(frozen=True)
class Place:
    """A folder that all may enter, two users in it, and what one of them has run on a store of the group."""

    folder: Path
    alice: User
    bob: User
    suite: Path
    finished: Path

    @property
    def plan(self) -> Plan:
        return planning.make(open_suite(self.suite))

    def copy(self, name: str) -> Path:
        """A store like Alice's finished one, hers and the group's."""
        target = self.folder / name
        subprocess.run(["cp", "-a", str(self.finished), str(target)], check=True)
        return target

    def store(self, name: str) -> Path:
        """An empty store of the group."""
        (self.folder / name).mkdir()
        return self.alice.own(self.folder / name, 0o2775)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        assert "BENCH_REQUIRE_SLURM" not in os.environ, "where all tests are to run, this one needs root and setpriv"
        pytest.skip("only root can become other users")
    folder = Path(tempfile.mkdtemp(prefix="bench-people-"))
    folder.chmod(0o755)
    try:
        alice, bob = users(folder)
        (folder / "tiny.yaml").write_text(TINY)
        bare = Place(folder, alice, bob, folder / "tiny.yaml", folder / "finished")
        bare.store("finished")
        code, said = ended(alice.script(folder, "import bench.cli.app"))
        if code and "BENCH_REQUIRE_SLURM" not in os.environ:
            pytest.skip(f"another user cannot read this checkout or its environment: {said[-300:]}")
        code, said = ended(alice.bench(folder, "run", "tiny.yaml", "--store", bare.finished))
        assert code == 0, said
        yield bare
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def treasure(user: User) -> Path:
    """A folder of a user with names that commands remove or write in a store."""
    folder = user.home / "treasure"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("thesis.tex", "outputs/a.tex", "checkpoint-1.safetensors", "report/table.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
        user.own(folder / name, 0o600)
        user.own((folder / name).parent, 0o700)
    return user.own(folder, 0o700)


def intact(folder: Path) -> bool:
    found = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    names = {"thesis.tex", "outputs/a.tex", "checkpoint-1.safetensors", "report/table.txt"}
    return found == dict.fromkeys(names, "precious")


def test_a_store_of_a_group_serves_two_users_at_once(place: Place) -> None:
    """Both run; what both need is made once, and what the other one has made is found."""
    store = place.store("both")
    runs = [
        place.alice.bench(place.folder, "run", "tiny.yaml", "--store", store, "--only", "baseline", "--jobs", "1"),
        place.bob.bench(place.folder, "run", "tiny.yaml", "--store", store, "--jobs", "1"),
    ]
    for code, said in [ended(run) for run in runs]:
        assert code == 0, said
    plan, opened = place.plan, Store(store)
    assert all(opened.verify(key) for key in plan.stages)
    makers = {key: (opened.folder(key) / "done").stat().st_uid for key in plan.stages}
    assert {len(opened.attempts(key)) for key in plan.stages} == {1}, makers
    for user in (place.alice, place.bob):
        code, said = ended(user.bench(place.folder, "plan", "tiny.yaml", "--store", store))
        assert code == 0, said
        assert re.search(r"(\d+) stages.*, \1 done", said), said
    code, said = ended(place.bob.bench(place.folder, "gc", "--store", store, "--yes"))
    assert code == 0, said


def test_a_stage_that_is_rewritten_while_it_waits(place: Place) -> None:
    store = place.store("rewritten")
    mark, evil = place.folder / "mark", place.folder / "evil.py"
    evil.write_text(EVIL.format(mark=str(mark)))
    place.bob.own(evil)
    place.folder.chmod(0o1777)
    try:
        attack = place.bob.script(place.folder, REWRITE, store, evil, mark, "120")
        code, said = ended(
            place.alice.bench(place.folder, "run", "tiny.yaml", "--store", store, "--only", "baseline", "--fail-fast")
        )
        attack.kill()
        rewritten = attack.communicate()[0]
    finally:
        place.folder.chmod(0o755)
    assert "rewritten" in rewritten, "the attack was made"
    assert not mark.exists(), f"code of another user ran as {mark.read_text()}"
    assert code == 2, said
    assert "its stage.json is not what was submitted" in said
    code, said = ended(place.alice.bench(place.folder, "run", "tiny.yaml", "--store", store, "--only", "baseline"))
    assert code == 0, said


def test_a_lease_that_names_any_process(place: Place) -> None:
    store, key = place.copy("leased"), model(place.plan, "BAGS").key
    (store / key / "done").unlink()
    bystander = place.alice.start(["sleep", "300"], place.folder)
    try:
        time.sleep(0.5)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        start = Path(f"/proc/{bystander.pid}/stat").read_text().rpartition(")")[2].split()[19]
        lease = {
            "beat": 5, "host": socket.gethostname(), "machine": f"{boot} {os.readlink('/proc/self/ns/pid')}",
            "pid": bystander.pid, "start": start, "token": "t", "every": 5.0, "since": "x",
        }  # fmt: skip
        write = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
        assert ended(place.bob.script(place.folder, write, store / key / "lease.99", json.dumps(lease)))[0] == 0
        code, said = ended(place.alice.bench(place.folder, "stop", "tiny.yaml", "--store", store))
        assert (code, "not ours to stop" in said) == (0, True), said
        assert f"process {bystander.pid}" in said, "the lease was believed as far as that"
        time.sleep(0.5)
        assert bystander.poll() is None
    finally:
        os.kill(bystander.pid, signal.SIGKILL)
        bystander.wait()


LINKS = {
    "trash": ("trash", "gc"),
    "an attempt": ("{key}/attempts/7", "gc"),
    "attempts": ("{key}/attempts", "gc"),
    "roots": ("roots", "gc"),
    "a table": ("reports/tiny/table.tex", "report"),
    "reports": ("reports", "report sync"),
    "files of MLflow": ("mlflow-artifacts", "sync"),
}


@pytest.mark.parametrize("link", LINKS)
def test_links_that_lead_to_what_is_anothers(place: Place, link: str) -> None:
    """Made by Bob; then Alice frees what no suite needs, writes her report, or brings it into MLflow."""
    at, commands = LINKS[link]
    store, precious = place.copy(f"linked {link}"), treasure(place.alice)
    target = precious / "thesis.tex" if link == "a table" else precious
    make = (
        "import os, sys; path, target = sys.argv[1:]; os.path.lexists(path) and os.rename(path, path + '.aside');"
        "os.symlink(target, path)"
    )
    path = store / at.format(key=model(place.plan, "BAGS").key)
    code, said = ended(place.bob.script(place.folder, make, path, target))
    assert code == 0, said
    for command in commands.split():
        words = [command, *([] if command == "gc" else ["tiny.yaml"]), "--store", str(store)]
        start = (
            place.alice.script(place.folder, GC_AT_ONCE, *words, "--yes")
            if command == "gc"
            else place.alice.bench(place.folder, *words)
        )
        code, said = ended(start)
        assert code in (0, 2), said
        assert "Traceback" not in said, said
        assert intact(precious), f"{words}: {said}"


def test_where_the_database_says_that_files_lie(place: Place) -> None:
    store, precious = place.copy("placed"), treasure(place.alice)
    write = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('update runs set artifact_uri = ?', (sys.argv[2],));"
        "c.execute('update experiments set artifact_location = ?', (sys.argv[2],));"
        "c.execute(\"delete from tags where key in ('mlflow.bench.report', 'mlflow.bench.filed')\"); c.commit()"
    )
    code, said = ended(place.bob.script(place.folder, write, store / "mlflow.db", f"file://{precious}"))
    assert code == 0, said
    code, said = ended(place.alice.bench(place.folder, "sync", "tiny.yaml", "--store", store))
    assert code == 0, said
    assert intact(precious)
    assert list((store / "mlflow-artifacts").glob("*/artifacts/report/table.txt"))


def test_a_password_of_a_server(place: Place) -> None:
    """Bob reads all that he may, while it runs and after."""
    store = place.store("served")
    uri = f"http://alice:{PASSWORD}@127.0.0.1:9/"
    words = ["run", "tiny.yaml", "--store", str(store), "--only", "baseline"]
    environment = place.alice.environment | {"MLFLOW_TRACKING_URI": uri}
    become = ["setpriv", f"--reuid={place.alice.uid}", f"--regid={GROUP}", "--clear-groups"]
    run = subprocess.Popen(
        [*become, str(place.alice.python), "-m", "bench", *words], cwd=place.folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    look = (
        "import glob, os, sys; word = sys.argv[1].encode(); seen = []\n"
        "for path in [*glob.glob('/proc/[0-9]*/cmdline'), *glob.glob('/proc/[0-9]*/environ')]:\n"
        "    try: seen += [path] if word in open(path, 'rb').read() and f'/{os.getpid()}/' not in path else []\n"
        "    except OSError: pass\n"
        "for folder, _, names in os.walk(sys.argv[2]):\n"
        "    for name in names:\n"
        "        try: seen += [name] if word in open(os.path.join(folder, name), 'rb').read() else []\n"
        "        except OSError: pass\n"
        "print(seen)"
    )
    seen = []
    while run.poll() is None:
        seen.append(ended(place.bob.script(place.folder, look, PASSWORD, place.folder))[1].strip())
        time.sleep(1.0)
    code, said = ended(run)
    seen.append(ended(place.bob.script(place.folder, look, PASSWORD, place.folder))[1].strip())
    assert code == 0, said
    assert "MLflow was not updated" in said
    assert PASSWORD not in said
    assert set(seen) == {"[]"}
    hidden = [path for path in place.alice.home.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert hidden == [], "nor in what only she may read"


def test_nobody_else_enters_the_folder_of_job_files(place: Place) -> None:
    cache = place.alice.home / ".cache" / "longtail-bench"
    place.alice.home.chmod(0o755)
    try:
        (place.alice.home / ".cache").chmod(0o755)
        said = ended(place.bob.script(place.folder, "import os, sys; os.listdir(sys.argv[1])", cache))[1]
        assert "PermissionError" in said
    finally:
        place.alice.home.chmod(0o700)
    assert {path.stat().st_mode & 0o777 for path in (cache, *cache.iterdir()) if path.is_dir()} == {0o700}
