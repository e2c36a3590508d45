"""What `methods` says: the list, and one method with its settings and departures from its paper. Separate from
commands.py because it is about recipes alone: no suite, no store.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.method import Method
from bench.suite.catalogue import discover, method_named


def show(name: str | None, paths: Sequence[Path], console: Console) -> None:
    """`bench methods [NAME]`."""
    known = discover(paths)
    if name is None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("method", "settings", "what it does"):
            table.add_column(column, overflow="fold")
        for method in sorted(known.values(), key=lambda m: m.name):
            table.add_row(method.name, ", ".join(method.model_fields) or "-", _first_sentence(method))
        console.print(table)
        console.print("one of them: python -m bench methods NAME", highlight=False)
        return
    _describe_method(method_named(name, known, "methods"), console)


def _describe_method(method: type[Method], console: Console) -> None:
    console.print(f"[bold]{method.name}[/]  ({Path(inspect.getsourcefile(method) or '-').name})", highlight=False)
    console.print(escape(inspect.getdoc(method) or "-"), highlight=False, soft_wrap=True)
    console.print(f"needs of an engine: {', '.join(sorted(method.needs))}", highlight=False)
    console.print("settings:" if method.model_fields else "settings: none", highlight=False)
    schema = method.model_json_schema()
    for name, field in method.model_fields.items():
        form = _form(schema["properties"][name], schema.get("$defs", {}))
        console.print(f"  {name} = {field.default!r}    {escape(form)}", highlight=False, soft_wrap=True)
    for deviation in method.deviations():
        console.print(f"DEVIATION: {escape(deviation)}", highlight=False, soft_wrap=True)


def _form(schema: dict[str, Any], defined: dict[str, Any]) -> str:
    """What a setting takes, in words, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(_form(option, defined) for option in schema["anyOf"])
    if "$ref" in schema:
        inner = defined[schema["$ref"].rsplit("/", 1)[-1]]["properties"]
        return "{" + ", ".join(f"{name}: {_form(value, defined)}" for name, value in inner.items()) + "}"
    if "enum" in schema or "const" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        return "[" + ", ".join(_form(item, defined) for item in items) + "]"
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[word]:g}" for word, sign in limits.items() if word in schema]
    return " ".join([str(schema.get("type", "any")), *bounds])


def _first_sentence(method: type[Method]) -> str:
    text = " ".join((inspect.getdoc(method) or "-").split("\n\n")[0].split())
    return escape(text.split(". ")[0].rstrip("."))
