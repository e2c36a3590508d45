"""Plans one method in a process of its own and prints what that touched. Separate because only a fresh process shows
what a recipe imports, and only two of them whether its keys depend on the process.

`python -m bench.contract_check.probe REQUEST` prints one JSON object; see `ProbeRequest` and `ProbeResult`.
"""

from __future__ import annotations

import datetime
import importlib
import json
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

A_YEAR = 366 * 86_400.0
HEAVY = frozenset({"torch", "torchvision", "mlflow", "optuna", "pandas"})  # too slow to import on a login node
CODE = (".py", ".pyc", ".so")  # reading these is how parts get their version


class ProbeRequest(TypedDict):
    """What to plan: `origin` is ["file", path] or ["module", name]; `other`: on another day, with another seed."""

    origin: list[str]
    method: str
    settings: Mapping[str, Any]
    engine: str
    other: bool


class ProbeResult(TypedDict):
    """`imported` and `planned`: heavy libraries that came in; `keys` of two plans; `touched`: files, sockets, ..."""

    imported: list[str]
    planned: list[str]
    keys: list[str]
    touched: list[str]


def surroundings(hash_seed: int) -> dict[str, str]:
    """The environment variables of a process of its own that imports what this one can."""
    root = Path(__file__).resolve().parents[2]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), *(path for path in sys.path if path)]),
        "PYTHONHASHSEED": str(hash_seed),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def main() -> None:
    """Run the request on the command line and print the result."""
    request: ProbeRequest = json.loads(sys.argv[1])
    from bench.contract_check import tiny  # before the clocks move: what we import needs none of that

    if request["other"]:
        _another_day()
    before = _heavy()
    kind = _load(request["origin"], request["method"])
    imported = _heavy() - before
    suite = tiny.suite(request["engine"])
    method = tiny.made(kind, request["settings"])
    before = _heavy()
    touched = _watch()
    keys = [tiny.result_of(suite, method).key for _ in range(2)]
    seen = list(dict.fromkeys(touched))
    planned = _heavy() - before
    result = ProbeResult(imported=sorted(imported), planned=sorted(planned), keys=keys, touched=seen)
    print(json.dumps(result))


def _load(origin: list[str], name: str) -> Any:
    from bench.suite import catalogue

    form, where = origin
    module = catalogue.imported(Path(where)) if form == "file" else importlib.import_module(where)
    found: dict[str, Any] = {}
    catalogue.collect(module, found)
    return found[name]


def _heavy() -> set[str]:
    return {name.partition(".")[0] for name in sys.modules} & HEAVY


def _watch() -> list[str]:
    """From now on: what is opened beside code, and what is started or connected to."""
    touched: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode = str(arguments[0]), str(arguments[1] or "r")
            if not (path.endswith(CODE) and mode[:1] == "r"):
                touched.append(path)
        elif event in ("subprocess.Popen", "socket.connect", "os.system", "os.listdir", "os.scandir"):
            touched.append(f"{event} {arguments[0]}")

    sys.addaudithook(note)
    return touched


def _another_day() -> None:
    """Shift the clocks that recipes could look at and seed the shared generators."""
    real, real_ns, today = time.time, time.time_ns, datetime.datetime

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return today.now(tz) + datetime.timedelta(seconds=A_YEAR)

    class ShiftedDate(datetime.date):
        @classmethod
        def today(cls) -> Any:
            return datetime.date(1999, 1, 1)

    time.time = lambda: real() + A_YEAR
    time.time_ns = lambda: real_ns() + int(A_YEAR * 1e9)
    datetime.datetime, datetime.date = Shifted, ShiftedDate  # type: ignore[misc]
    random.seed(7)


if __name__ == "__main__":
    main()
