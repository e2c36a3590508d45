"""Copies of the code for queued jobs: whole, private, first in line, and gone when nobody needs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import environment
from bench.run import snapshot

ROOT = Path(__file__).resolve().parents[1]
OLD = time.time() - (snapshot.UNUSED_DAYS + 1) * 86400


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one's own to edit, and a cache of one's own."""
    tree = tmp_path / "checkout"
    for package in snapshot.PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    subprocess.run(["git", "add", "."], cwd=tree, check=True)
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *who, "commit", "-q", "-m", "one"], cwd=tree, check=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(snapshot, "TREE", tree)
    return tree


def ran(code: Path, script: str, cwd: Path) -> str:
    """What a job that imports this copy prints."""
    variables = {**os.environ, **snapshot.variables(code, {"PYTHONPATH": str(ROOT)})}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=cwd, env=variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_job_imports_the_copy_and_not_what_was_edited_since(checkout: Path, tmp_path: Path) -> None:
    code = snapshot.take(tmp_path / "store")
    (checkout / "bench" / "errors.py").write_text("raise SystemExit('edited')\n")
    script = "import bench.errors, methods.baseline as m; print(bench.errors.__file__, m.__file__)"
    assert ran(code, script, cwd=checkout) == f"{code}/bench/errors.py {code}/methods/baseline.py"
    # `python -m` puts the working folder first, were it not for PYTHONSAFEPATH.
    with_m = subprocess.run(
        [sys.executable, "-m", "bench", "--help"], cwd=checkout, env={**os.environ, **snapshot.variables(code, {})},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert with_m.returncode == 0, with_m.stderr
    assert snapshot.take(tmp_path / "store") != code, "other code is another copy"


def test_the_copy_is_whole_and_the_users_own(checkout: Path, tmp_path: Path) -> None:
    code = snapshot.take(tmp_path / "store")
    for package in snapshot.PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert (code / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    assert code.is_relative_to(tmp_path / "cache" / "longtail-bench" / "code")
    for folder in (code, code / "bench", code.parent, code.parent.parent):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    assert (code / "bench" / "key.py").stat().st_mode & 0o222 == 0
    assert not list(code.rglob(".*"))


def test_the_commit_is_that_of_the_checkout(checkout: Path, tmp_path: Path) -> None:
    clean = snapshot.take(tmp_path / "store")
    found = environment.capture(checkout)
    assert found["commit"] is not None
    assert found["dirty"] is None
    assert {name: environment.capture(clean)[name] for name in ("commit", "dirty")} == environment.source(checkout)
    (checkout / "methods" / "rfs.py").write_text("x = 1\n")
    changed = environment.capture(snapshot.take(tmp_path / "store"))
    assert changed["commit"] == found["commit"]
    assert changed["dirty"] == environment.capture(checkout)["dirty"] is not None


def test_a_hundred_jobs_share_one_copy_and_a_damaged_one_is_mended(checkout: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(snapshot.take, [tmp_path / "store"] * 8))
    assert len(set(taken)) == 1
    code = taken[0]
    file, gone = code / "bench" / "record.py", code / "bench" / "key.py"
    file.chmod(0o600)
    file.write_text("cut")
    gone.unlink()  # caches are swept by age
    for litter in (checkout / "bench" / ".plan.py.swp", checkout / "bench" / "plan.py~"):
        litter.write_text("an editor's")
    (checkout / "bench" / "__pycache__").mkdir()
    (checkout / "bench" / "__pycache__" / "plan.pyc").write_bytes(b"x")
    (checkout / ".git" / "info" / "exclude").write_text("*.swp\n*~\n__pycache__\n")
    assert snapshot.take(tmp_path / "store") == code
    assert file.read_bytes() == (checkout / "bench" / "record.py").read_bytes()
    assert gone.exists()
    assert [p.name for p in code.parent.iterdir()] == [code.name]


def test_old_copies_go_when_no_job_waits_for_them(checkout: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = snapshot.take(store)
    note = store / "submitted" / "4711.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"id": "4711", "snapshot": str(first), "ended": ""}))
    os.utime(first / "snapshot.json", (OLD, OLD))
    assert snapshot.tidy() == [], "a job in the queue still needs it"
    note.write_text(json.dumps({"id": "4711", "snapshot": str(first), "ended": "COMPLETED"}))
    ran(first, "from bench.run import snapshot; snapshot.in_use()", tmp_path)
    assert snapshot.tidy() == [], "a job that runs has just used it"
    os.utime(first / "snapshot.json", (OLD, OLD))
    (checkout / "bench" / "seeds.py").write_text("x = 1\n")
    second = snapshot.take(store)  # tidies
    assert not first.exists()
    assert second.exists()


def test_a_job_that_submits_jobs_hands_on_its_own_copy(checkout: Path, tmp_path: Path) -> None:
    code = snapshot.take(tmp_path / "store")
    script = "from pathlib import Path; from bench.run import snapshot; print(snapshot.take(Path('store')))"
    assert ran(code, script, tmp_path) == str(code)


def test_in_a_checkout_nothing_is_marked() -> None:
    snapshot.in_use()
    assert not (ROOT / environment.ORIGIN).exists()
