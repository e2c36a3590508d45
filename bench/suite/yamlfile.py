"""Read a YAML file safely, with the line of every value. Separate because PyYAML's defaults do not suit suites.

YAML 1.1 reads `1e-4` as text, `no` as false and `10:30` as 630, and takes the last of duplicate keys; here numbers and
booleans are those of YAML 1.2 and a duplicate key is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UserError

Path_ = tuple[str | int, ...]
TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))


@dataclass(frozen=True)
class Document:
    """A parsed file: its value and the line of every path into it."""

    path: Path
    value: dict[str, Any]
    lines: dict[Path_, int]

    def where(self, *path: str | int) -> str:
        """`file:line` of the value at a path, or of its nearest ancestor that has one."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return f"{self.path}:{self.lines[path[:end]]}"
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
        return Document(self.path, value, lines)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own shape)


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
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise UserError("no such file", where=str(path), allowed=", ".join(near), hint=f"name a {what} file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=str(path)) from None
    lines: dict[Path_, int] = {(): 1}
    try:
        node = yaml.compose(text, Loader=_Loader)
        value = _build(node, (), lines, path) if node is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"broken YAML: {getattr(error, 'problem', error)}", where=f"{path}{line}") from None
    except RecursionError:
        raise UserError("nested too deeply, or an anchor that holds itself", where=str(path)) from None
    if not isinstance(value, dict):
        raise UserError("the top level must be a mapping", where=f"{path}:1", allowed="key: value lines")
    return Document(path, value, lines)


def scalar(text: str) -> Any:
    """The value of one YAML flow expression, as used by `--set key=value`.

    Raises:
        UserError: broken YAML.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"'{text}' is not a YAML value: {getattr(error, 'problem', error)}", where="--set") from None
    return _build(node, (), {}, Path("--set")) if node is not None else None


def _build(node: yaml.Node, path: Path_, lines: dict[Path_, int], file: Path) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if node.tag not in TAGS:
        where = f"{file}:{node.start_mark.line + 1}"
        raise UserError(f"the tag '{node.tag}' is not allowed", where=where, allowed="plain YAML")
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError("a key must be plain text", where=f"{file}:{key_node.start_mark.line + 1}")
            key = str(key_node.value)
            where = f"{file}:{key_node.start_mark.line + 1}"
            if key in result:
                first = lines.get((*path, key), 0)
                raise UserError(
                    f"duplicate key '{key}' (first on line {first})", where=where, hint="remove one of the two"
                )
            lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = _build(value_node, (*path, key), lines, file)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, (*path, i), lines, file) for i, child in enumerate(node.value)]
    return _scalar(node, file)


def _scalar(node: yaml.Node, file: Path) -> Any:
    text, tag = str(node.value), node.tag.rsplit(":", 1)[-1]
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "str":
        return text
    try:
        if tag == "int":
            return int(text, 0 if text.lstrip("+-")[:2] in ("0o", "0x") else 10)
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError as error:  # an explicit tag on other text, or thousands of digits
        raise UserError(f"{text[:40]!r} is not a number: {error}", where=f"{file}:{node.start_mark.line + 1}") from None
