"""Stores as somebody, a disk or another version may leave them: `cases(seed, n)`, each a change of one store.

And weight files of all kinds: `weight_files(seed, n)`. Both know the structure of what they change, so that most
changes reach behind the first check.

    python -m tests.faults.fuzz_store STORE SEED    change a store (a copy!) by one case and say how
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.store.done import Done, format_done

Random = random.Random
Value = Callable[[Random], Any]
ODD: tuple[Value, ...] = (
    lambda r: None, lambda r: [], lambda r: {}, lambda r: "", lambda r: -1, lambda r: True, lambda r: 1e308,
    lambda r: 10**30, lambda r: float("nan"), lambda r: float("-inf"), lambda r: "../../x", lambda r: "/etc/passwd",
    lambda r: "\x00", lambda r: "\x1b[2J\x1b]0;x\x07", lambda r: "²", lambda r: "9" * 5000, lambda r: "x" * 100_000,
    lambda r: [[[[[]]]]], lambda r: {"a": {"b": []}}, lambda r: [None, 1, "x"], lambda r: "\ud800",
    lambda r: r.randrange(-10, 10), lambda r: "ab" * 32, lambda r: {"part": "nowhere:Nothing", "version": "1"},
    lambda r: "nan", lambda r: 0.5, lambda r: 2**63,
)  # fmt: skip
RAW: tuple[Callable[[Random, bytes], bytes], ...] = (
    lambda r, data: b"", lambda r, data: data[: r.randrange(len(data) + 1)], lambda r, data: b"\xef\xbb\xbf" + data,
    lambda r, data: b"[" * 200_000, lambda r, data: b"{" + b'"a":{' * 100_000, lambda r, data: r.randbytes(64),
    lambda r, data: data + data, lambda r, data: b"null\n", lambda r, data: b"NaN", lambda r, data: b"1" * 10_000,
    lambda r, data: data.replace(b":", b",", 1), lambda r, data: b"\x00" * len(data), lambda r, data: data.upper(),
    lambda r, data: b'{"a": 1}\n' * 1000, lambda r, data: b"\xff\xfe" + data, lambda r, data: b"[]",
)  # fmt: skip
NAMES = (
    "lease.²", "lease.99999999999999999999", "lease.-1", "lease.", "lease.1.tmp-1-2", "attempts/²", "attempts/-1",
    "attempts/0", "attempts/99", "attempts/" + "9" * 40, "attempts/1/checkpoint-².safetensors",
    "attempts/1/checkpoint-.safetensors", "attempts/1/checkpoint-7.safetensors", "attempts/x\ny", "done.tmp-1-2",
    "done.broken-1", "attempts/1/outputs/more", "attempts/\x1b[2Jx", "stage.json.tmp-0-0",
)  # fmt: skip
AT_ROOT = (
    "roots/a b.json", "roots/-.json", "roots/x.json/y", "ab" * 32, "AB" * 32, "cd" * 32 + "/stage.json", "0/stage.json",
    "roots.tmp-1-2", "submitted/4711.json", "submitted/-x.json", "submitted/begun/x.json", "submitted/begun/y.json/z",
    "orders.jsonl", "reports/tiny/.told", "trash/x/y", "probe.1", "\x1b[31m/stage.json", "submitted/²_1.json",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One change: what was done, and to which file (relative to the store)."""

    what: str
    path: str


def cases(seed: int, n: int) -> Iterator[Callable[[Path], Case]]:
    """Changes of a store; each makes one to three of them, in files of its own (a store may be of hard links)."""
    for number in range(n):
        yield _change(f"{seed}/{number}")


def _change(seed: str) -> Callable[[Path], Case]:
    def change(root: Path) -> Case:
        chance = Random(seed)
        found = [_one(root, chance) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
        return Case("; ".join(one.what for one in found), " ".join(one.path for one in found))

    return change


def _one(root: Path, chance: Random) -> Case:
    kind = chance.choice(("json", "json", "json", "json", "raw", "raw", "tree", "tree", "name"))
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    texts = [path for path in files if path.name in INTERESTING or path.suffix in (".json", ".jsonl")]
    # By name first: there are a hundred outputs for each file that says what they are.
    name = chance.choice(sorted({path.name for path in texts}))
    path = chance.choice([path for path in texts if path.name == name])
    if kind == "json":
        return _json(root, path, chance)
    if kind == "raw":
        number = chance.randrange(len(RAW))
        _put(path, RAW[number](chance, path.read_bytes()))
        return Case(f"raw {number}", path.relative_to(root).as_posix())
    if kind == "tree":
        return _tree(root, chance.choice([path, path.parent, path.parent.parent]), chance)
    return _name(root, path, chance)


INTERESTING = ("done", "lease.1", "stage.json")


def _json(root: Path, path: Path, chance: Random) -> Case:
    text = path.read_bytes()
    lines = path.suffix == ".jsonl"
    try:
        value = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    except ValueError:
        _put(path, b"{}")
        return Case("emptied", path.relative_to(root).as_posix())
    where = _mutated(value, chance)
    if lines:
        new = b"".join(json.dumps(one).encode() + b"\n" for one in value)
    elif path.name == "done" and isinstance(value, dict) and chance.random() < 0.7:
        names = {entry.name for entry in fields(Done)}
        whole = names <= set(value)
        new = format_done(Done(**{name: value[name] for name in names})) if whole else json.dumps(value).encode()
    else:
        new = json.dumps(value).encode()
    _put(path, new)
    return Case(where, path.relative_to(root).as_posix())


def _mutated(value: Any, chance: Random) -> str:
    """Change one place of a nested value, which stays what it is at the top; where and how."""
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, inner in list(pairs):
            places.append((node, key))
            visit(inner)

    visit(value)
    if not places:
        return "nothing"
    # Places near the top as likely as those in a long list.
    node, key = chance.choice(places if chance.random() < 0.5 else places[: max(1, min(12, len(places)))])
    if isinstance(node, dict) and chance.random() < 0.15:
        del node[key]
        return f"without {key}"
    if isinstance(node, dict) and chance.random() < 0.1:
        node["more"] = 1
        return "more"
    number = chance.randrange(len(ODD))
    node[key] = ODD[number](chance)
    return f"{key} = odd {number}"


def _tree(root: Path, path: Path, chance: Random) -> Case:
    if path == root:
        path = root / "roots"
    what = chance.choice(("gone", "folder", "pipe", "link", "dangling", "loop", "file", "moved"))
    aside = path.with_name(f"{path.name}.aside")
    if what == "moved":
        os.rename(path, aside)
        return Case(what, path.relative_to(root).as_posix())
    # An earlier change of the same case may have left a link in its place.
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to(root.parent)
    elif what == "dangling":
        path.symlink_to(root / "nowhere")
    elif what == "loop":
        path.symlink_to(path)
    elif what == "file":
        path.write_bytes(b"x")
    return Case(what, path.relative_to(root).as_posix())


def _name(root: Path, path: Path, chance: Random) -> Case:
    keys = [folder for folder in sorted(root.iterdir()) if (folder / "stage.json").is_file()]
    if chance.random() < 0.5 and keys:
        new = chance.choice(keys) / chance.choice(NAMES)
    else:
        new = root / chance.choice(AT_ROOT)
    content = chance.choice((b"", b"{}", b"[]", b"null", b"x", path.read_bytes()))
    try:
        new.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir() if chance.random() < 0.2 else new.write_bytes(content)
    except OSError:
        return Case("nothing", new.name)
    return Case(f"new, {len(content)} bytes", new.relative_to(root).as_posix())


def _put(path: Path, data: bytes) -> None:
    """A new file: the old one may have another name in another store."""
    path.unlink()
    path.write_bytes(data)


# -- weight files


def weight_files(seed: int, n: int, good: dict[str, Any]) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What was done, and a function that writes the file. `good`: a state dict under torchvision's names."""
    import torch

    chance = Random(seed)
    names = sorted(good)

    def some(share: float) -> list[str]:
        return chance.sample(names, max(1, int(share * len(names))))

    shapes: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("transposed", lambda t: t.transpose(0, -1) if t.dim() else t),
        ("one row less", lambda t: t[1:] if t.dim() else t),
        ("scalar", lambda t: torch.zeros(())), ("empty", lambda t: torch.zeros(0)), ("half", lambda t: t.half()),
        ("double", lambda t: t.double()), ("integers", lambda t: t.to(torch.int64)), ("bool", lambda t: t > 0),
        ("complex", lambda t: t.to(torch.complex64)), ("nan", lambda t: torch.full(t.shape, torch.nan)),
        ("huge", lambda t: torch.full(t.shape, 3e38)), ("sparse", lambda t: t.to_sparse() if t.dim() else t),
        ("expanded", lambda t: torch.zeros(1).expand(t.shape)), ("meta", lambda t: torch.empty(t.shape, device="meta")),
        ("float8", lambda t: t.to(torch.float8_e4m3fn) if t.is_floating_point() else t),
        ("quantized", lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8)),
    )  # fmt: skip
    whole: tuple[tuple[str, Any], ...] = (
        ("a list", [good]), ("wrapped", {"model": good}), ("a number", 3), ("nothing", {}), ("None", None),
        ("a tensor", torch.zeros(3)), ("numbers for names", dict(enumerate(good.values()))),
        ("names for tensors", dict.fromkeys(good, "x")), ("tuples", {("a", 1): torch.zeros(2)}),
    )  # fmt: skip
    for number in range(n):
        kind = chance.choice(("shape", "shape", "names", "whole", "raw", "raw", "code"))
        if kind == "shape":
            what, change = shapes[number % len(shapes)]
            chosen, share = set(), chance.choice((0.0, 0.1, 0.5, 1.0))
            chosen = set(some(share))
            value: Any = {name: change(t) if name in chosen else t for name, t in good.items()}
            what = f"{what}, {len(chosen)} of {len(names)}"
        elif kind == "names":
            chosen = set(some(chance.choice((0.05, 0.3, 0.7))))
            how = chance.choice(("only", "prefixed", "doubled"))
            value = {
                "only": {name: good[name] for name in chosen},
                "prefixed": {f"module.{name}" if name in chosen else name: t for name, t in good.items()},
                "doubled": good | {f"backbone.{name}": good[name] for name in chosen},
            }[how]
            what = f"{how} {len(chosen)}"
        elif kind == "whole":
            what, value = whole[number % len(whole)]
        elif kind == "code":
            what, value = "code", _Runs()
        else:
            number_, what = chance.randrange(len(RAW)), "raw"
            what, value = f"raw {number_}", (RAW[number_], chance.randrange(2**31))
        yield what, _writer(value, good)


class _Runs:
    """Unpickled with code, it would leave a mark."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def _writer(value: Any, good: dict[str, Any]) -> Callable[[Path], None]:
    import torch

    def write(path: Path) -> None:
        if isinstance(value, tuple):
            torch.save(good, path)
            path.write_bytes(value[0](Random(value[1]), path.read_bytes()))
        else:
            torch.save(value, path)

    return write


if __name__ == "__main__":
    print(_change(sys.argv[2])(Path(sys.argv[1])))
