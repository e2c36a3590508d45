"""The settings of a suite and of a cluster file in words: what each does, what is legal, its default. Separate because
it is made from the typed sections for `bench settings`, docs/settings.md and the JSON schemas; no other code reads it.

The words are the texts under the fields of a section, taken from its source: pydantic would read that file each time a
command starts, for every section anew.
"""

from __future__ import annotations

import ast
import functools
import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from bench.suite.clusters import Cluster
from bench.suite.sections import Sections

FAR = 1e9  # a bound as far away only keeps mistyped numbers out
LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Setting:
    """One setting: its full name, e.g. detector.rpn.nms, its default in YAML, what is legal, and what it does."""

    name: str
    default: str
    legal: str
    text: str


@dataclass(frozen=True)
class Group:
    """The settings of one section; `path` is where it stands in the file, empty at the top."""

    path: str
    title: str
    text: str
    settings: tuple[Setting, ...]


def of_suite() -> list[Group]:
    """All sections of a suite, those that a section holds after it."""
    return list(_groups("", Sections, "a suite"))


def of_cluster() -> list[Group]:
    """The one section of a cluster file."""
    return list(_groups("", Cluster, "a cluster file"))


def words(schema: dict[str, Any], defined: dict[str, Any]) -> str:
    """What a setting takes, in words, from its JSON schema."""
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(words(option, defined) for option in schema.get("anyOf") or schema["oneOf"])
    if "$ref" in schema:
        inner = defined[schema["$ref"].rsplit("/", 1)[-1]]["properties"]
        return "{" + ", ".join(f"{name}: {words(value, defined)}" for name, value in inner.items()) + "}"
    if "enum" in schema or "const" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        return "[" + ", ".join(words(item, defined) for item in items) + "]"
    bounds = {sign: schema[word] for word, sign in LIMITS.items() if abs(schema.get(word, FAR)) < FAR}
    limits = [f"{sign} {bound:g}" for sign, bound in bounds.items()]
    if bounds.keys() == {">=", "<="}:
        limits = [f"{bounds['>=']:g} to {bounds['<=']:g}"]
    return " ".join([str(schema.get("type", "any")), *limits])


def described(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the text under it in the source of its class, on one line; fields without one are left out."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if file is not None and issubclass(kind, BaseModel) and kind is not BaseModel:
            found |= _texts(Path(file)).get(kind.__qualname__, {})
    return {name: text for name, text in found.items() if name in model.model_fields}


def sections_in(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The sections in a section, at any depth, each once."""
    own = [one for field in model.model_fields.values() for one in _sections(field.annotation)]
    return list(dict.fromkeys([*own, *(inner for one in own for inner in sections_in(one))]))


def markdown() -> str:
    """docs/settings.md."""
    lines = [
        "# All settings",
        "",
        "Made by `python -m bench settings --markdown`. The defaults are those of a suite without a preset. All that a",
        "suite has, with preset and options: `python -m bench plan SUITE --show-config`. A row has the settings of its",
        "method: `python -m bench methods NAME`.",
        "",
    ]
    for group in (*of_suite(), *of_cluster()):
        lines += [f"## {group.title}", "", group.text, ""]
        if group.settings:
            lines += ["| setting | default | legal | what it does |", "|---|---|---|---|"]
            lines += [
                f"| `{one.name}` | {_cell(one.default)} | {_cell(one.legal)} | {one.text.replace('|', chr(92) + '|')} |"
                for one in group.settings
            ]
            lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`" if text else ""


def _groups(path: str, model: type[BaseModel], title: str) -> Iterator[Group]:
    schema = model.model_json_schema()
    texts, inner = described(model), {name: _sections(field.annotation) for name, field in model.model_fields.items()}
    settings = []
    for name, field in model.model_fields.items():
        if not inner[name]:
            form = words(schema["properties"][name], schema.get("$defs", {}))
            default = "" if field.is_required() else _yaml(field.get_default(call_default_factory=True))
            settings.append(Setting(f"{path}.{name}".lstrip("."), default, form, texts.get(name, "")))
    yield Group(path, title, " ".join((inspect.getdoc(model) or "").split()), tuple(settings))
    for name, models in inner.items():
        for one in models:
            own = f"{path}.{name}".lstrip(".")
            yield from _groups(own, one, f"{own}: {one.__name__}" if len(models) > 1 else own)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections in an annotation, each once."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return list(dict.fromkeys(one for argument in get_args(annotation) for one in _sections(argument)))


def _yaml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_yaml, value))}]"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False).strip('"')


@functools.cache
def _texts(file: Path) -> dict[str, dict[str, str]]:
    """Class -> field -> text, of one file."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            own = found.setdefault(node.name, {})
            for field, below in zip(node.body, node.body[1:], strict=False):
                text = below.value if isinstance(below, ast.Expr) else None
                if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                    continue
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    own[field.target.id] = " ".join(text.value.split())
    return found
