"""Two users of one machine and a group's store: real uids, real commands. Shared by the tests of test_another_user.py.

The interpreter of the tests may lie in a home that nobody else may enter; then a copy of it is made that all may run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

GROUP = 54300
_LEFT_OUT = shutil.ignore_patterns("test", "site-packages", "__pycache__", "idlelib", "*.a", "config-3*")


@dataclass(frozen=True)
class User:
    """A user, who is in the group. Homes are closed to others."""

    name: str
    uid: int
    home: Path
    python: Path
    libraries: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin", "HOME": str(self.home), "USER": self.name, "LOGNAME": self.name,
            "PYTHONPATH": os.pathsep.join([str(ROOT), self.libraries]),
            "LD_LIBRARY_PATH": str(self.python.parents[1] / "lib"), "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "250", "MLFLOW_DISABLE_TELEMETRY": "true",
        }  # fmt: skip

    def start(self, words: Sequence[str], folder: Path) -> subprocess.Popen[str]:
        """A command as this user, with the group's umask."""
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={GROUP}", "--clear-groups"]
        shell = ["sh", "-c", 'umask 002; exec "$@"', "sh", *words]
        return subprocess.Popen(
            [*become, *shell], cwd=folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    def bench(self, folder: Path, *words: str | Path) -> subprocess.Popen[str]:
        return self.start([str(self.python), "-m", "bench", *map(str, words)], folder)

    def script(self, folder: Path, text: str, *words: str | Path) -> subprocess.Popen[str]:
        return self.start([str(self.python), "-c", text, *map(str, words)], folder)

    def own(self, path: Path, mode: int = 0o755) -> Path:
        os.chown(path, self.uid, GROUP)
        path.chmod(mode)
        return path


def python_for_all(folder: Path) -> Path:
    """An interpreter that other users may run, with the standard library of this one."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    (folder / "python" / "bin").mkdir(parents=True)
    shutil.copy(base / "bin" / version, folder / "python" / "bin" / "python")
    shutil.copytree(base / "lib" / version, folder / "python" / "lib" / version, ignore=_LEFT_OUT)
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy(library, folder / "python" / "lib")
    return folder / "python" / "bin" / "python"


def users(folder: Path) -> tuple[User, User]:
    """Alice, who is attacked, and Bob."""
    python = python_for_all(folder)
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    made = []
    for name, uid in (("alice", 54301), ("bob", 54302)):
        home = folder / name
        home.mkdir()
        made.append(User(name, uid, home, python, libraries))
        made[-1].own(home, 0o700)
    return made[0], made[1]


def ended(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str]:
    """Exit code and all that was printed."""
    out, _ = process.communicate(timeout=seconds)
    return process.returncode, out
