"""Read a YAML file safely, with the line of every value. Separate because PyYAML's defaults do not suit suites.

YAML 1.1 reads `1e-4` as text, `no` as false and `10:30` as 630, and takes the last of duplicate keys; here numbers and
booleans are those of YAML 1.2 and a duplicate key is an error.

A file is bounded while it is read, in bytes, depth and values: anchors that multiply (ten lists of ten aliases, ten
levels deep) are a small file of ten thousand million values. What does not print is refused in keys and texts: they
become headings, file names and lines of a terminal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UserError, did_you_mean, printable

Path_ = tuple[str | int, ...]
# Ten thousand rows, written one by one, are 0.5 MB and 60,000 values, four deep; PyYAML takes 80 us for a value.
MOST_BYTES, MOST_VALUES, MOST_DEPTH = 4_000_000, 100_000, 30
MOST_INTEGER = 2**63 - 1
LINE_BREAKS = "\n\t"  # legal in a text of several lines, e.g. `setup` of a cluster
TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))


@dataclass(frozen=True)
class Document:
    """A parsed file: its value and the line of every path into it.

    Attributes:
        path: the file. value: what it holds. lines: of every path into it.
        given: paths whose values are from the command line (--set), not from the file.
        below: the files that give what this one leaves out, the nearest first.
    """

    path: Path
    value: dict[str, Any]
    lines: dict[Path_, int]
    given: frozenset[Path_] = frozenset()
    below: tuple[Document, ...] = ()

    def where(self, *path: str | int) -> str:
        """`file:line` of the value at a path, or of its nearest ancestor that has one; or "--set"."""
        if any(path[:end] in self.given for end in range(1, len(path) + 1)):
            return "--set"
        for end in range(len(path), -1, -1):
            for one in (self, *self.below):
                if path[:end] in one.lines:
                    return f"{one.path}:{one.lines[path[:end]]}"
        return str(self.path)

    def renamed(self, names: Mapping[tuple[str, str], tuple[str, str]]) -> Document:
        """With settings that have moved to another section (old place -> new place), each with its line.

        Raises:
            UserError: a setting is in both places.
        """
        value, lines = dict(self.value), dict(self.lines)
        for old, new in names.items():
            section = value.get(old[0])
            if not isinstance(section, Mapping) or old[1] not in section:
                continue
            other = value.get(new[0], {})
            if isinstance(other, Mapping) and new[1] in other:
                what = f"{'.'.join(old)} and {'.'.join(new)} are the same setting"
                raise UserError(what, where=self.where(*old), hint=f"keep {'.'.join(new)}")
            value[old[0]] = {name: content for name, content in section.items() if name != old[1]}
            if isinstance(other, Mapping):  # else that section itself is refused
                value[new[0]] = {**other, new[1]: section[old[1]]}
            if old in lines:
                lines[new] = lines[old]
        return replace(self, value=value, lines=lines)


class _TooMuch(Exception):
    """A bound was reached; says which, in words."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with the scalars of YAML 1.2, and with bounds."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own shape)

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._count = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A node and all below it: PyYAML recurses here."""
        self._count += 1
        self._depth += 1
        _check_bounds(self._count, self._depth)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _check_bounds(values: int, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise _TooMuch(f"nested too deeply (more than {MOST_DEPTH} levels), or an anchor that holds itself")
    if values > MOST_VALUES:
        raise _TooMuch(f"more than {MOST_VALUES:,} values, those that anchors repeat included")


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


def read(path: Path, what: str = "suite") -> Document:
    """Parse a YAML mapping. `what`: the kind of file it is, for messages.

    Raises:
        UserError: missing file, broken YAML, a duplicate key or a top level that is not a mapping.
    """
    text = _text_of(path, what)
    reading = _Reading(str(path), in_lines=True)
    value = reading.value_of(text)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise UserError("the top level must be a mapping", where=f"{path}:1", allowed="key: value lines")
    return Document(path, value, reading.lines)


def _text_of(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)  # not all: it may be a device that never ends
        if len(content) > MOST_BYTES:
            raise UserError(f"more than {MOST_BYTES // 1_000_000} MB are no {what} file", where=str(path))
        return content.decode("utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise _missing(path, what, isinstance(error, IsADirectoryError)) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from None


def _missing(path: Path, what: str, is_folder: bool) -> UserError:
    folder = path if is_folder else path.parent
    near = sorted(str(p) for p in folder.glob("*.yaml")) if folder.is_dir() else []
    said = "a folder, not a file" if is_folder else f"no such file{did_you_mean(str(path), near)}"
    return UserError(said, where=str(path), allowed=", ".join(near), hint=f"name a {what} file")


def scalar(text: str) -> Any:
    """The value of one YAML flow expression, as used by `--set key=value`.

    Raises:
        UserError: broken YAML.
    """
    try:
        return _Reading("--set").value_of(text)
    except _Broken as error:
        raise UserError(f"'{text}' is not a YAML value: {error.problem}", where="--set") from None


class _Broken(UserError):
    """YAML that PyYAML cannot parse; `problem`: its words."""

    def __init__(self, problem: str, where: str) -> None:
        super().__init__(f"broken YAML: {problem}", where=where)
        self.problem = problem


class _Reading:
    """One text being read: the lines of its values, and how many values there are with all aliases written out."""

    def __init__(self, name: str, *, in_lines: bool = False) -> None:
        self._name, self._in_lines = name, in_lines
        self._count = 0
        self.lines: dict[Path_, int] = {(): 1}

    def value_of(self, text: str) -> Any:
        """The value; None of an empty text."""
        try:
            node = yaml.compose(text, Loader=_Loader)
            return None if node is None else self._build(node, ())
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{self._name}:{mark.line + 1}" if mark else self._name
            raise _Broken(str(getattr(error, "problem", None) or error), where) from None
        except (_TooMuch, RecursionError) as error:
            raise UserError(str(error) or "nested too deeply", where=self._name) from None

    def _where(self, node: yaml.Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}" if self._in_lines else self._name

    def _build(self, node: yaml.Node, path: Path_) -> Any:
        self._count += 1
        _check_bounds(self._count, len(path) + 1)
        self.lines.setdefault(path, node.start_mark.line + 1)
        if node.tag not in TAGS:
            raise UserError(f"the tag '{node.tag}' is not allowed", where=self._where(node), allowed="plain YAML")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(child, (*path, i)) for i, child in enumerate(node.value)]
        return _scalar(node, self._where(node))

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            where = self._where(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError("a key must be plain text", where=where)
            key = _checked(str(key_node.value), where)
            if key in result:
                what = f"duplicate key '{key}' (first on line {self.lines.get((*path, key), 0)})"
                raise UserError(what, where=where, hint="remove one of the two")
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self._build(value_node, (*path, key))
        return result


def _checked(text: str, where: str) -> str:
    """The text; refused where a character of it does not print."""
    if not text.isprintable() and printable(text, keep=LINE_BREAKS) != text:
        what = f"a character of '{printable(text, 100)}' does not print (a control character, or half of a pair)"
        raise UserError(what, where=where, hint="write it without")
    return text


def _scalar(node: yaml.Node, where: str) -> Any:
    text, tag = str(node.value), node.tag.rsplit(":", 1)[-1]
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    return _checked(text, where) if tag == "str" else _number(text, tag, where)


def _number(text: str, tag: str, where: str) -> int | float:
    shown = repr(text[:40])
    try:
        if tag == "int":
            whole = int(text, 0 if text.lstrip("+-")[:2] in ("0o", "0x") else 10)
            if abs(whole) > MOST_INTEGER:
                raise UserError(f"{shown} is too large a number", where=where, hint="as a measure, not a count: 1e30")
            return whole
        number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError as error:  # an explicit tag on other text, or thousands of digits
        raise UserError(f"{shown} is not a number: {error}", where=where) from None
    if math.isnan(number) or (math.isinf(number) and "inf" not in text.lower()):
        what = "is no value of a setting" if math.isnan(number) else "is too large a number"
        raise UserError(f"{shown} {what}", where=where, hint="" if math.isnan(number) else "without a limit: .inf")
    return number
