"""The JSON schema of a suite file and of a cluster file, for editors. Separate because it is made from the typed
sections and none of the code reads it: what is legal is decided where a file is loaded.

A suite is a layer on a preset, so nothing is required in a section; a row has the settings of its method. Made of the
methods of this tree: an editor knows nothing of a suite's own `methods_path`, so other methods take any setting.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from bench.data.formats import FORMATS
from bench.engines.facts import ENGINES
from bench.spec import Schedule
from bench.suite.catalogue import discover
from bench.suite.clusters import Cluster, Resources
from bench.suite.reference import described, sections_in
from bench.suite.search import Search
from bench.suite.sections import OF_THE_FILE, Sections

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def of_suite() -> dict[str, Any]:
    """The schema of suites/*.yaml and their presets."""
    schema = _described(Sections)
    defined: dict[str, Any] = schema.setdefault("$defs", {})
    for section in {form.section.__name__ for form in FORMATS.values()}:  # several formats may share one
        names = [form.name for form in FORMATS.values() if form.section.__name__ == section]
        defined[section]["properties"]["name"]["enum"] = names
    for section in {engine.section.__name__ for engine in ENGINES.values()}:
        names = [engine.name for engine in ENGINES.values() if engine.section.__name__ == section]
        defined[section]["properties"]["engine"]["enum"] = names
    _add(defined, "Resources", _described(Resources))
    methods = discover()
    for name, method in methods.items():
        settings = _described(method)
        defined |= settings.pop("$defs", {})
        defined[f"method {name}"] = settings
    defined["Row"] = _row(defined, list(methods))
    properties: dict[str, Any] = schema["properties"]
    space = defined[Search.__name__]["properties"]["space"]  # in full, or as on a command line
    space["additionalProperties"] = {"anyOf": [{"type": "string"}, {"type": "array"}, space["additionalProperties"]]}
    properties["stages"] = _of_each(properties["stages"], "Schedule")
    properties |= {
        "preset": {"type": "string", "description": "a file of suites/_presets, without .yaml"},
        "methods_path": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "figures_path": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "rows": _of_each({"description": "label: method and settings; the order is that of the table"}, "Row"),
    }
    assert set(OF_THE_FILE) <= set(properties)
    return {"$schema": DIALECT, "title": "suite", **_partial(_allowing_old_places(schema))}


def of_cluster() -> dict[str, Any]:
    """The schema of suites/_clusters/*.yaml."""
    schema = _described(Cluster)
    _add(schema.setdefault("$defs", {}), "Resources", _described(Resources))
    schema["properties"]["stages"] = _of_each(schema["properties"]["stages"], "Resources")
    return {"$schema": DIALECT, **_partial(schema), "title": "cluster"}


def _described(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a section, with the texts of its settings and of those of all sections in it."""
    schema = model.model_json_schema()
    for one in (model, *sections_in(model)):
        place = schema if one is model else schema["$defs"][one.__name__]
        for name, text in described(one).items():
            place["properties"][name]["description"] = text
    return schema


def _row(defined: dict[str, Any], methods: list[str]) -> dict[str, Any]:
    """`method` and, for a method of this tree, its settings; its own sections; `each`."""
    data = {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in _data_sections(defined)]}
    own = {
        "method": {"type": "string", "examples": methods},
        "schedule": {"$ref": f"#/$defs/{Schedule.__name__}"},
        "data": data,
        "detector": {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in _detector_sections()]},
        "cluster": {"type": "object"},
        "against": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "each": {"type": "object", "additionalProperties": {"type": "array"}},
    }
    rules = []
    for name in methods:
        settings = defined.pop(f"method {name}")
        allowed = {**settings.get("properties", {}), **own}
        then = {"properties": allowed, "additionalProperties": False, "description": settings.get("description", "")}
        rules.append({"if": {"properties": {"method": {"const": name}}, "required": ["method"]}, "then": then})
    return {"type": "object", "properties": own, "required": ["method"], "allOf": rules}


def _data_sections(defined: dict[str, Any]) -> list[str]:
    return sorted({form.section.__name__ for form in FORMATS.values()} & set(defined))


def _detector_sections() -> list[str]:
    return sorted({engine.section.__name__ for engine in ENGINES.values()})


def _of_each(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """A mapping whose values are of one section."""
    kept = {word: text for word, text in schema.items() if word in ("description", "title")}
    return {**kept, "type": "object", "additionalProperties": {"$ref": f"#/$defs/{name}"}}


def _add(defined: dict[str, Any], name: str, schema: dict[str, Any]) -> None:
    defined |= schema.pop("$defs", {})
    defined[name] = schema


def _allowing_old_places(schema: dict[str, Any]) -> dict[str, Any]:
    """Settings that have moved are still read in their old section (bench.suite.layers.MOVED)."""
    from bench.suite.layers import MOVED

    defined, names = schema["$defs"], {name: ref["$ref"] for name, ref in _references(schema).items()}
    for (old, setting), (new, moved) in MOVED.items():
        there = defined[names[new].rsplit("/", 1)[-1]]["properties"][moved]
        defined[names[old].rsplit("/", 1)[-1]]["properties"][setting] = there
    return schema


def _references(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema["properties"].items() if "$ref" in value}


def _partial(value: Any) -> Any:
    """A schema in which sections may be given in part: nothing is required but a row's method, no defaults are said to
    be taken (a preset may have others), and alternatives need not exclude one another."""
    if isinstance(value, list):
        return [_partial(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _partial(inner) for name, inner in value.items() if name not in ("default", "discriminator")}
    if kept.get("required") != ["method"]:
        kept.pop("required", None)
    if "oneOf" in kept:
        kept["anyOf"] = kept.pop("oneOf")
    return kept
