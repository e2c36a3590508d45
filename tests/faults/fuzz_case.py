"""What the fuzzers share: a case, one command on it, what came of it, and values that nobody should have written.

A case is answered well if the command ends with exit code 0, or with exit code 2 and one message: printable, shorter
than 2,000 characters, without a traceback; within its CPU seconds and memory.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

CPU_SECONDS = 15.0  # the longest: a hundred thousand values of YAML take 8 on a slow machine
MEGABYTES = 1500  # beside what the process has
MESSAGE = 2000  # characters


@dataclass(frozen=True)
class Case:
    """Files to write into an empty folder, and the words of a command there."""

    name: str
    words: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a command did; `wrong`: in what it was not answered well, or nothing."""

    code: int
    out: str
    err: str
    seconds: float
    wrong: str = ""


class TimeIsUp(BaseException):
    """The case has used its CPU seconds."""


def answer(case: Case, folder: Path) -> Answer:
    """Run a case in this process and judge its answer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    out, err, failure, code = io.StringIO(), io.StringIO(), "", 0
    begun = time.process_time()
    try:
        with (
            _in(folder),
            _bounded(),
            patch.object(sys, "argv", ["bench", *case.words]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = _main()
    except TimeIsUp:
        failure = f"took more than {CPU_SECONDS:.0f} CPU seconds"
    except BaseException as error:  # what a user would see as a traceback
        failure = "".join(traceback.format_exception(error, limit=-6))
    seconds = time.process_time() - begun
    return Answer(
        code, out.getvalue(), err.getvalue(), seconds, failure or judged(code, out.getvalue(), err.getvalue())
    )


def judged(code: int, out: str, err: str) -> str:
    """In what an answer is not well-formed; empty if it is."""
    if code not in (0, 2):
        return f"exit code {code}"
    if "Traceback" in out + err:
        return "a traceback is printed"
    for name, text in (("output", out), ("message", err)):
        strange = [c for c in text if not (c.isprintable() or c in "\n\t\u200c\u200d\xa0\u3000\u2003")]
        if strange:
            return f"{name} has {strange[:5]!r}"
    if code == 0:
        return f"exit code 0 and a message: {err[:200]}" if err.strip() else ""
    usage = err.lstrip().startswith(("Usage:", "╭─ Error"))
    if len(re.findall("^error: ", err, re.M)) != (0 if usage else 1):
        return f"not one message: {err[:300]!r}"
    return f"a message of {len(err)} characters" if len(re.sub("[─│╭╮╰╯ ]+", " ", err)) > MESSAGE else ""


def _main() -> int:
    from bench.cli import app

    try:
        app.main()
    except SystemExit as end:
        return int(str(end.code or 0))
    return 0


@contextlib.contextmanager
def _in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    environment = {"COLUMNS": "250", "BENCH_STORE": "", "XDG_CACHE_HOME": str(folder / "cache")}
    os.chdir(folder)
    try:
        with patch.dict(os.environ, environment):
            os.environ.pop("BENCH_STORE")
            yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """A limit on CPU seconds and on memory beside what this process has."""

    def ring(*_: object) -> None:
        raise TimeIsUp

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEGABYTES * 1_000_000
    before = signal.signal(signal.SIGVTALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS * (4 if sys.gettrace() else 1))  # coverage is slow
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# -- odd values


@dataclass(frozen=True)
class Raw:
    """YAML text as it stands."""

    text: str


TEXTS = (
    "", " ", "x" * 5000, "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "a\nerror: b", "\r", "\t", "\u202egnp", "\ufeff",
    "\ud83d", "\udcff\udc80", "\x7f\x9b", "$\\frac$", "$", "[red]x[/]", "[/]", "{beta}", "{", "%s %d", "../../etc",
    "/dev/zero", "/dev/null", "~", "-", "--", "null", "true", "0", "²", "\u0661", "1e400", "nan", "a.b.c", ".", "..",
    "a,b", "*", "[!", "\\", "'", '"', "`id`", "$(id)", "\U0001f469\u200d\U0001f52c", "NaN", "-0", "0x10", "1_000",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 0.5, -0.5, 1.5, 10**9, 10**18, 2**63, 2**64, 10**30, 1e300, -1e300, 1e-300, True, False,
    Raw("1e400"), Raw("-1e400"), Raw(".nan"), Raw(".inf"), Raw("-.inf"), Raw("9" * 5000), Raw("0x" + "F" * 5000),
    Raw("-" + "9" * 4000), Raw("1." + "0" * 5000), Raw("0o17"), Raw("1e5"), Raw("+5"),
)  # fmt: skip
SHAPES: tuple[Any, ...] = (
    None, [], {}, [[]], [{}], {"": None}, [None], {"a": {"b": {"c": 1}}}, [1, 2], ["a"], [[1, [2, [3]]]],
    list(range(200)), Raw("&a [*a]"), Raw("&a {x: *a}"), Raw("*nobody"), Raw("[" * 200), Raw("{a: " * 100),
    Raw("[" * 40 + "]" * 40), Raw("!!python/object/apply:os.system [ls]"), Raw("!!binary aGk="), Raw("!!int x"),
    Raw("!!float 1"), Raw("? [a]"), Raw("{[a]: b}"), Raw("{a: 1, a: 2}"), Raw("<<"), Raw("{<<: {a: 1}}"), Raw("|\n"),
    Raw("&a [x,x,x,x,x,x,x,x,x]"), Raw("[&b [1,1,1,1,1,1,1,1,1,1], *b, *b, [*b, *b, *b]]"),
)  # fmt: skip


def odd(rng: random.Random) -> Any:
    """A value of any kind."""
    return rng.choice(rng.choice((TEXTS, NUMBERS, SHAPES)))


def near(value: Any, rng: random.Random) -> Any:
    """A value of the same kind that may well be legal."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((0, 1, 2, value * 2, value / 2, value + 1, -value, value * 1000, value / 1000, 4096, 100_000))
    return rng.choice((value, [value], str(value).upper(), f"{value}s", odd(rng)))


def yaml_text(value: Any) -> str:
    """A value as YAML of one line; `Raw` as it stands, texts with JSON's escapes."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quoted(str(k))}: {yaml_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(yaml_text(v) for v in value) + "]"
    if isinstance(value, str):
        return quoted(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def quoted(text: str) -> str:
    """YAML's double-quoted form."""
    escaped = "".join(_escape(c) for c in text)
    return f'"{escaped}"'


def _escape(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    number = ord(character)
    return character if 32 <= number < 127 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def document(tree: Mapping[str, Any]) -> str:
    """A file: one line for each key of the top level, and for each row."""
    lines = []
    for key, value in tree.items():
        if key == "rows" and isinstance(value, Mapping) and value:
            lines.append("rows:")
            lines += [f"  {quoted(str(label))}: {yaml_text(row)}" for label, row in value.items()]
        else:
            lines.append(f"{quoted(str(key))}: {yaml_text(value)}")
    return "\n".join(lines) + "\n"


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into nested mappings and lists."""
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(tree, Mapping):
        items = list(tree.items())
    elif isinstance(tree, list):
        items = list(enumerate(tree))
    return [path for key, value in items for path in [(*at, key), *places(value, (*at, key))]]


def mutated(tree: dict[str, Any], rng: random.Random) -> str:
    """Change one place of a tree in place: another value, no value, another name, the value somewhere else."""
    path = rng.choice(places(tree))
    holder: Any = tree
    for name in path[:-1]:
        holder = holder[name]
    kind = rng.choice(("value", "value", "near", "near", "near", "near", "gone", "name", "twice", "wrapped", "moved"))
    last = path[-1]
    if kind == "gone":
        del holder[last]
    elif kind == "name" and isinstance(holder, dict):
        holder[rng.choice((f"{last}x", str(last)[:-1], rng.choice(TEXTS)))] = holder.pop(last)
    elif kind == "near":
        holder[last] = near(holder[last], rng)
    elif kind == "twice" and isinstance(holder, list):
        holder.append(holder[last])
    elif kind == "wrapped":
        holder[last] = rng.choice(([holder[last]], {"x": holder[last]}, {str(last): holder[last]}))
    elif kind == "moved":
        tree[str(last)] = holder[last]
    else:
        holder[last] = odd(rng)
    return f"{kind} at {'.'.join(map(str, path))[:60]}"


def scarred(text: str, rng: random.Random) -> tuple[str, bytes]:
    """A file of which a few bytes or lines were changed."""
    content = text.encode("utf-8", "surrogatepass")
    lines = content.split(b"\n")
    at = rng.randrange(len(content))
    line = rng.randrange(len(lines))
    kinds: dict[str, bytes] = {
        "cut short": content[:at],
        "a byte": content[:at] + bytes([rng.randrange(256)]) + content[at:],
        "a byte lost": content[:at] + content[at + 1 :],
        "a line twice": b"\n".join([*lines[:line], lines[line], *lines[line:]]),
        "tabs": content.replace(b"  ", b"\t"),
        "windows lines": content.replace(b"\n", b"\r\n"),
        "a byte order mark": b"\xef\xbb\xbf" + content,
        "utf-16": content.decode("utf-8", "replace").encode("utf-16"),
        "latin-1": content + b"title: H\xe4ufig\n",
        "two documents": content + b"---\n" + content,
        "NUL": content[:at] + b"\0" * 20 + content[at:],
        "a directive": b"%YAML 9.9\n---\n" + content,
        "nothing": b"",
        "binary": bytes(rng.randrange(256) for _ in range(500)),
    }
    kind = rng.choice(list(kinds))
    return kind, kinds[kind]
