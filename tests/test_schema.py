"""The schema that editors read: made from the sections, it takes every suite there is and marks what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.cli.schema import Kind, text
from bench.suite import yamlfile
from bench.suite.catalogue import discover
from bench.suite.sections import OF_THE_FILE, Sections
from tests.conftest import ROOT, Bench

SUITES = ROOT / "suites"
FILES = {
    **dict.fromkeys((*SUITES.glob("*.yaml"), *SUITES.glob("_presets/*.yaml")), Kind.suite),
    # But that of an engine which has to be installed: then `bench schema` knows it, and not the one beside the suites.
    **{file: Kind.suite for file in (ROOT / "examples").rglob("*.yaml") if file.parent.name != "own_engine"},
    **dict.fromkeys(SUITES.glob("_clusters/*.yaml"), Kind.cluster),
}
TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
    "null": type(None),
}  # fmt: skip


def faults(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Where a value departs from a schema: the words of JSON Schema 2020-12 that ours is written in, and no others."""
    for word, content in schema.items():
        if word == "$ref":
            yield from faults(value, root["$defs"][content.rsplit("/", 1)[-1]], root, at)
        elif word == "anyOf":
            if all(any(faults(value, one, root, at)) for one in content):
                yield f"{at}: none of the alternatives"
        elif word == "allOf":
            for one in content:
                yield from faults(value, one, root, at)
        elif word == "if":
            if not any(faults(value, content, root, at)):
                yield from faults(value, schema["then"], root, at)
        elif word == "type":
            wrong = isinstance(value, bool) and content in ("integer", "number")
            if wrong or not isinstance(value, TYPES[content]):
                yield f"{at}: not of type {content}"
        elif word in ("enum", "const"):
            if value not in (content if word == "enum" else [content]):
                yield f"{at}: not {content}"
        elif isinstance(value, dict):
            yield from of_mapping(value, word, content, schema, root, at)
        elif isinstance(value, list):
            yield from of_list(value, word, content, root, at)
        elif isinstance(value, int | float):
            bounds = {
                "minimum": lambda v, b: v >= b, "maximum": lambda v, b: v <= b,
                "exclusiveMinimum": lambda v, b: v > b, "exclusiveMaximum": lambda v, b: v < b,
            }  # fmt: skip
            if word in bounds and not bounds[word](value, content):
                yield f"{at}: {word} {content}"
        elif word == "maxLength" and isinstance(value, str) and len(value) > content:
            yield f"{at}: too long"


def of_mapping(
    value: dict[str, Any], word: str, content: Any, schema: Mapping[str, Any], root: Mapping[str, Any], at: str
) -> Iterator[str]:
    if word == "properties":
        for name in content.keys() & value.keys():
            yield from faults(value[name], content[name], root, f"{at}.{name}")
    elif word == "required":
        yield from (f"{at}: no {name}" for name in content if name not in value)
    elif word == "additionalProperties":
        for name in value.keys() - schema.get("properties", {}).keys():
            if content is False:
                yield f"{at}: no setting {name}"
            elif content is not True:
                yield from faults(value[name], content, root, f"{at}.{name}")


def of_list(value: list[Any], word: str, content: Any, root: Mapping[str, Any], at: str) -> Iterator[str]:
    if word == "items" and content is not False:
        for i, one in enumerate(value):
            yield from faults(one, content, root, f"{at}.{i}")
    elif word == "prefixItems":
        for i, (one, of) in enumerate(zip(value, content, strict=False)):
            yield from faults(one, of, root, f"{at}.{i}")
    elif (word == "minItems" and len(value) < content) or (word == "maxItems" and len(value) > content):
        yield f"{at}: {word} {content}"


def schema_of(kind: Kind) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SUITES / f"{kind.value}.schema.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("kind", Kind)
def test_the_schema_that_lies_beside_the_suites_is_that_of_the_code(kind: Kind, call: Bench) -> None:
    """Else: python -m bench schema KIND > suites/KIND.schema.json"""
    assert (SUITES / f"{kind.value}.schema.json").read_text(encoding="utf-8") == text(kind)
    assert call("schema", kind.value).out == text(kind)


def test_every_suite_preset_and_cluster_conforms() -> None:
    assert len(FILES) > 15
    for file, kind in FILES.items():
        schema = schema_of(kind)
        assert list(faults(yamlfile.read(file).value, schema, schema)) == [], file


def test_every_file_names_its_schema_in_the_first_line() -> None:
    for file, kind in FILES.items():
        first = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", file.read_text(encoding="utf-8").split("\n")[0])
        assert first is not None, file
        assert (file.parent / first[1]).resolve() == SUITES / f"{kind.value}.schema.json"


@pytest.mark.parametrize(
    ("kind", "document", "fault"),
    [
        ("suite", "schedule: {stps: 3}", r"\.schedule: no setting stps"),
        ("suite", "seedz: [1]", r": no setting seedz"),
        ("suite", "seeds: [-1]", r"\.seeds\.0: minimum 0"),
        ("suite", "schedule: {lr: 0}", r"\.schedule\.lr: exclusiveMinimum 0\.0"),
        ("suite", "detector: {norm: none}", r"\.detector: none of the alternatives"),
        ("suite", "stages: {second: {stps: 1}}", r"\.stages\.second: no setting stps"),
        ("suite", "rows: {a: {beta: 3}}", r"\.rows\.a: no method"),
        ("suite", "rows: {a: {method: bags, bta: 3}}", r"\.rows\.a: no setting bta"),
        ("suite", "rows: {a: {method: bags, beta: -1}}", r"\.rows\.a\.beta: none of the alternatives"),
        ("suite", "rows: {a: {method: bags, each: {beta: 3}}}", r"\.rows\.a\.each\.beta: not of type array"),
        ("suite", "data: {name: glyph}", r"\.data: none of the alternatives"),
        ("suite", "input: {workers: -1}", r"\.input\.workers: none of the alternatives"),
        ("cluster", "time_min: 0", r"\.time_min: minimum 1"),
        ("cluster", "stages: {data: {gpu: 0}}", r"\.stages\.data: no setting gpu"),
    ],
)
def test_what_loading_refuses_is_marked(kind: str, document: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(document)
    schema = schema_of(Kind(kind))
    found = set(faults(yamlfile.read(tmp_path / "a.yaml").value, schema, schema))
    assert len(found) == 1
    assert re.fullmatch(fault, found.pop())


@pytest.mark.parametrize(
    "document",
    [
        "rows: {a: {method: mine_own, anything: 3}}",  # a method that the schema does not know
        "data: {val: other.json}",
        "data: {name: coco}",  # the folder comes with --data
        "input: {workers: 2}",  # the old place
        "rows: {a: {method: rfs, t: {images: 3}, schedule: {epochs: 2}, data: {classes: 9}, cluster: {gpus: 1}}}",
        "figures: [{kind: bars}]\nseeds: [1, 2]\ntitle: a",
    ],
)
def test_what_loading_takes_is_not_marked(document: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(document)
    schema = schema_of(Kind.suite)
    assert list(faults(yamlfile.read(tmp_path / "a.yaml").value, schema, schema)) == []


def test_the_schema_has_every_section_and_every_method() -> None:
    schema = schema_of(Kind.suite)
    assert set(schema["properties"]) == {*Sections.model_fields, *OF_THE_FILE}
    rules = schema["$defs"]["Row"]["allOf"]
    assert {rule["if"]["properties"]["method"]["const"] for rule in rules} == set(discover())
