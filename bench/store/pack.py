"""One zip that is a small store: written with the same bytes each time, and unpacked only where it is what it should
be. Separate because a zip may come from anybody: its names and sizes are looked at before a byte is written.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import UserError, parsed, printable
from bench.store.disk import disk_errors, free_bytes
from bench.store.excerpt import KEPT_BESIDE
from bench.store.form import is_key, is_number
from bench.store.roots import FOLDER as ROOTS

MANIFEST, README, REPORT = "export.json", "README.txt", "report"
FORMAT, VERSION = "longtail-bench export", 1  # raise VERSION when an older checkout could not read it
# What deflate makes of real exports is 3 to 8 times smaller; a bomb is a thousand times.
MOST_TIMES, ANYHOW = 100, 20_000_000  # bytes unpacked: so many times the zip's, or so many
LONGEST_MANIFEST = 100_000_000
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError)
# Names of a report that are laid beside another one: nothing hidden, nothing that runs by its name.
OF_REPORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,80}\.(html|md|txt|csv|png|svg|pdf)")
AGAIN = "export it again where it was made: python -m bench export SUITE OUT.zip"
_HINT = "exports are made by: python -m bench export SUITE OUT.zip"


def write_zip(path: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write a zip, whole or not at all: names in order, no dates, so that equal content gives equal bytes.

    Args:
        path: what is there already is replaced.
        files: name in the zip -> content, or the file that holds it.

    Raises:
        UserError: it cannot be written, or a file has vanished.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    hint = "name another file: python -m bench export SUITE OUT.zip"
    try:
        with disk_errors(path, hint=hint):
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                with zipfile.ZipFile(file, "w") as packed:
                    for name in sorted(files):
                        _add(packed, name, files[name])
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
    except FileNotFoundError as error:
        what = "a file has vanished while it was packed"
        raise UserError(what, where=str(error.filename), hint="try again") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _add(packed: zipfile.ZipFile, name: str, content: bytes | Path) -> None:
    info = zipfile.ZipInfo(name)  # 1980-01-01
    info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, (stat.S_IFREG | 0o644) << 16
    if isinstance(content, bytes):
        packed.writestr(info, content)
        return
    with content.open("rb") as source, packed.open(info, "w", force_zip64=True) as target:
        shutil.copyfileobj(source, target)


def is_export(path: Path) -> bool:
    """Whether a path is an export, packed or not, of any version."""
    with contextlib.suppress(UserError, OSError, *_BROKEN):
        if path.is_dir():
            return bool(_manifest((path / MANIFEST).read_bytes(), path, strict=False))
        with zipfile.ZipFile(path) as packed:
            return bool(_manifest(packed.read(MANIFEST), path, strict=False))
    return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `export.json` of an unpacked export says.

    Raises:
        UserError: there is none, or none that this version reads.
    """
    path = folder / MANIFEST
    try:
        with disk_errors(path):
            content = path.read_bytes()
    except OSError:
        raise UserError(f"no export: it has no {MANIFEST}", where=str(folder), hint=_HINT) from None
    return _manifest(content, folder)


@contextlib.contextmanager
def unpacked(path: Path, *, report: bool = False) -> Iterator[Path]:
    """The folder of an export: the path itself where it is one, else a temporary one while the block lasts.

    Args:
        path: a zip, or a folder that it was unpacked into.
        report: with the files of its report.

    Raises:
        UserError: no zip, not one of ours, damaged, or larger than what it claims to be could be. One that is raised
            in the block about a file of it names the zip, and exporting again in place of running again.
    """
    if path.is_dir():
        read_manifest(path)
        with _blamed(path, path):
            yield path
        return
    with tempfile.TemporaryDirectory(prefix="bench-export-") as folder:
        unpack(path, Path(folder), report=report)
        with _blamed(path, Path(folder)):
            yield Path(folder)


@contextlib.contextmanager
def _blamed(path: Path, folder: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        if not error.where.startswith(str(folder)):
            raise
        inside = error.where.removeprefix(str(folder)).lstrip("/")
        joint = "/" if path == folder else ": "
        where = f"{path}{joint}{inside}" if inside else str(path)
        hint = error.hint if error.hint and "run " not in error.hint else AGAIN
        raise UserError(error.what, where=where, allowed=error.allowed, hint=hint) from None


def unpack(path: Path, folder: Path, *, report: bool = False) -> None:
    """Unpack the stages of an export (its README stays packed), and with `report` the files of its report.

    Raises:
        UserError: as `unpacked`.
    """
    try:
        with disk_errors(path), zipfile.ZipFile(path) as packed:
            entries = packed.infolist()
            _check(entries, path, folder)
            if packed.getinfo(MANIFEST).file_size > LONGEST_MANIFEST:
                raise _strange(path, f"its {MANIFEST} has {packed.getinfo(MANIFEST).file_size:,} bytes")
            _manifest(packed.read(MANIFEST), path)
            for entry in entries:
                if not entry.is_dir() and (_is_of_store(entry.filename) or (report and _is_of_report(entry.filename))):
                    _extract(packed, entry, folder)
    except FileNotFoundError:
        raise UserError("no such file", where=str(path), hint=_HINT) from None
    except _BROKEN as error:
        what = f"this zip is damaged or is none ({printable(str(error), 100)})"
        raise UserError(what, where=str(path), hint="copy it again, or export it again") from None


def _extract(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / entry.filename
    with disk_errors(target, entry.file_size):
        target.parent.mkdir(parents=True, exist_ok=True)
        with packed.open(entry) as source, target.open("xb") as file:
            shutil.copyfileobj(source, file)


def _check(entries: list[zipfile.ZipInfo], path: Path, folder: Path) -> None:
    """Refuse a zip that is not one of ours, by its list of contents alone."""
    names = [entry.filename for entry in entries]
    if MANIFEST not in names:
        raise UserError(f"not an export: it has no {MANIFEST}", where=str(path), hint=_HINT)
    for entry in entries:
        name = entry.filename
        if not entry.is_dir() and not (_is_of_store(name) or _is_beside(name)):
            raise _strange(path, f"'{name}' is no name of a file of an export")
        if entry.flag_bits & 1:
            raise _strange(path, f"'{name}' is encrypted")
    if len(set(names)) < len(names):
        raise _strange(path, "a name stands in it twice")
    total, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if total > max(ANYHOW, MOST_TIMES * packed):
        raise _strange(path, f"its {packed:,} bytes would unpack to {total:,}")
    if total > (free := free_bytes(folder)):
        what = f"unpacked it has {total / 1e6:.0f} MB, and {folder} has {free / 1e6:.0f} MB free"
        raise UserError(what, where=str(path), hint="set TMPDIR to a folder on a larger disk")


def _is_of_store(name: str) -> bool:
    """Whether this is a file that an export has of a store, as a path below the store."""
    if not _is_plain(name):
        return False
    first, *rest = name.split("/")
    if first == ROOTS:
        return len(rest) == 1 and rest[0].endswith(".json")
    if not rest:
        return name == MANIFEST
    if not is_key(first):
        return False
    if len(rest) == 1:
        return rest[0] in ("stage.json", "done") or KEPT_BESIDE.fullmatch(rest[0]) is not None
    numbered = len(rest) > 2 and rest[0] == "attempts" and is_number(rest[1])
    return numbered and (rest[2:] == ["events.jsonl"] or (rest[2] == "outputs" and len(rest) > 3))


def _is_beside(name: str) -> bool:
    return name == README or (name.startswith(f"{REPORT}/") and _is_plain(name))


def _is_of_report(name: str) -> bool:
    folder, _, rest = name.partition("/")
    return folder == REPORT and OF_REPORT.fullmatch(rest) is not None


def _is_plain(name: str) -> bool:
    """A relative path that stays where it begins, on any system."""
    parts = name.split("/")
    return bool(re.fullmatch(r"[^\\:\x00-\x1f]+", name)) and not any(part in ("", ".", "..") for part in parts)


def _strange(path: Path, what: str) -> UserError:
    return UserError(f"not an export, nothing of it was unpacked: {what}", where=str(path), hint=_HINT)


def _manifest(content: bytes, path: Path, *, strict: bool = True) -> dict[str, Any]:
    try:
        value = parsed(content)
    except ValueError:
        value = None
    if not isinstance(value, dict) or value.get("format") != FORMAT or type(value.get("version")) is not int:
        raise UserError(f"not an export: its {MANIFEST} is of something else, or damaged", where=str(path), hint=_HINT)
    if strict and value["version"] > VERSION:
        what = f"written by a newer version: form {value['version']}, this one reads up to {VERSION}"
        raise UserError(what, where=str(path), hint="update this checkout (git pull)")
    return value
