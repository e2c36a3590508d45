"""Other legal values of a method's settings, from its pydantic schema. Separate because it handles JSON
schema and no stages.

A setting of which no other value can be made (free text, say) names some itself: `Field(examples=[...])`. Those come
first, so they also serve where a made value shows nothing on tiny data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from bench.key import canonical, digest
from bench.method import Method

MOST = 16  # values of one setting that are tried

Schema = Mapping[str, Any]


def other_values(kind: type[Method], name: str, base: Mapping[str, Any]) -> list[Any]:
    """Legal values of a setting that differ from its value in `base`, the likeliest to show an effect first.

    Args:
        kind: the method.
        name: of the setting.
        base: the settings beside which they must be legal, JSON-like; none are where these are not legal themselves.
    """
    schema, defined = _schema(kind)
    try:
        now = kind.model_validate(dict(base)).model_dump()[name]
    except ValidationError:
        return []
    seen = {digest(now)}
    found = []
    for value in itertools.islice(_candidates(schema.get(name, {}), defined, canonical(now)), 200):
        try:
            typed = kind.model_validate({**base, name: value}).model_dump()[name]
        except ValidationError:
            continue
        if digest(typed) not in seen:
            seen.add(digest(typed))
            found.append(value)
    return found[:MOST]


def choices(kind: type[Method], name: str) -> list[Any]:
    """The values that a setting lists by name (a Literal's words, true and false); empty where it lists none."""
    schema, defined = _schema(kind)
    return list(_listed(schema.get(name, {}), defined))


def rank(kind: type[Method], name: str) -> int:
    """How likely a setting's other values are to make another setting matter: its examples, words, the rest."""
    return 0 if _schema(kind)[0].get(name, {}).get("examples") else 1 if choices(kind, name) else 2


def required(kind: type[Method]) -> dict[str, Any]:
    """A legal value for every setting without a default, so that the method can be made at all.

    Raises:
        ValidationError: none could be made.
    """
    schema, defined = _schema(kind)
    names = [name for name, field in kind.model_fields.items() if field.is_required()]
    options = [list(itertools.islice(_candidates(schema.get(n, {}), defined, None), 8)) for n in names]
    for chosen in itertools.islice(itertools.product(*options), 200):
        settings = dict(zip(names, chosen, strict=True))
        try:
            kind.model_validate(settings)
        except ValidationError:
            continue
        return settings
    kind.model_validate({})
    return {}


def _schema(kind: type[Method]) -> tuple[Schema, Schema]:
    try:
        schema = kind.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return {}, {}
    return schema.get("properties", {}), schema.get("$defs", {})


def _candidates(schema: Schema, defined: Schema, now: Any) -> Iterator[Any]:
    yield from schema.get("examples", ())
    options = [option for word in ("anyOf", "oneOf", "allOf") for option in schema.get(word, ())]
    if "$ref" in schema:
        options.append(defined[schema["$ref"].rsplit("/", 1)[-1]])
    missing = object()
    for turn in itertools.zip_longest(*(_candidates(o, defined, now) for o in options), fillvalue=missing):
        yield from (value for value in turn if value is not missing)  # so that no form of a union is cut off
    yield from schema.get("enum", ())
    if "const" in schema:
        yield schema["const"]
    match schema.get("type"):
        case "boolean":
            yield from (True, False)
        case "null":
            yield None
        case "integer" | "number" as form:
            yield from _numbers(schema, now, whole=form == "integer")
        case "array":
            yield from _lists(schema, defined, now)
        case "object":
            yield from _mappings(schema, defined, now)


def _listed(schema: Schema, defined: Schema) -> Iterator[Any]:
    yield from schema.get("enum", ())
    if "const" in schema:
        yield schema["const"]
    if schema.get("type") == "boolean":
        yield from (True, False)
    for word in ("anyOf", "oneOf", "allOf"):
        for option in schema.get(word, ()):
            yield from _listed(option, defined)


def _numbers(schema: Schema, now: Any, *, whole: bool) -> Iterator[float]:
    """Near and far from the present value, and the bounds."""
    known = isinstance(now, int | float) and not isinstance(now, bool) and math.isfinite(now)
    d = float(now) if known and now else 1.0
    low, high = (
        schema.get("minimum", schema.get("exclusiveMinimum")),
        schema.get("maximum", schema.get("exclusiveMaximum")),
    )
    bounds = [float(b) for b in (low, high) if b is not None]
    middle = [sum(bounds) / 2, 0.9 * bounds[0] + 0.1 * bounds[1]] if len(bounds) == 2 else []
    for value in (2 * d, d + 1, d / 10, *middle, d / 2, d / 100, 10 * d, d - 1, 100 * d, *bounds):
        yield round(value) if whole else value


def _lists(schema: Schema, defined: Schema, now: Any) -> Iterator[list[Any]]:
    fixed = schema.get("prefixItems")
    present = now if isinstance(now, list) else None
    if fixed is None:
        item = schema.get("items", {})
        if present:
            yield present[:-1]
        yield from ([], [5, 10], [1])
        fixed = [item] * max(1, len(present or ()), int(schema.get("minItems", 0)))
    around: Sequence[Any] = present if present is not None and len(present) == len(fixed) else [None] * len(fixed)
    options = [
        list(itertools.islice(_candidates(form, defined, value), 4)) for form, value in zip(fixed, around, strict=True)
    ]
    if present is not None:
        for i, values in enumerate(options):  # one item at a time
            yield from ([*present[:i], value, *present[i + 1 :]] for value in values)
    yield from (list(values) for values in itertools.product(*options))


def _mappings(schema: Schema, defined: Schema, now: Any) -> Iterator[dict[str, Any]]:
    forms = schema.get("properties", {})
    present = now if isinstance(now, Mapping) and set(now) <= set(forms) else {}
    options = {
        name: list(itertools.islice(_candidates(form, defined, present.get(name)), 8)) for name, form in forms.items()
    }
    for name, values in options.items():
        if present:
            yield from ({**present, name: value} for value in values)
    yield from (dict(zip(options, values, strict=True)) for values in itertools.product(*options.values()))
