"""A pydantic error as the one message a user sees. Separate from suite.py because only this file
depends on the form of pydantic's errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bench.data.formats import FORMATS
from bench.engines.facts import no_engine
from bench.errors import UserError, unknown
from bench.suite.yamlfile import Document

Models = tuple[type[BaseModel], ...]


def _no_format(name: str, where: str) -> UserError:
    return unknown("data set", name, FORMATS, where=where)


# Sections of which one is chosen by a setting: the setting, and the error for a name that it may not have.
_UNIONS: Mapping[str, tuple[str, Callable[[str, str], UserError]]] = {
    "data": ("name", _no_format), "detector": ("engine", no_engine),
}  # fmt: skip


def blame(
    error: ValidationError,
    document: Document,
    at: tuple[str, ...],
    model: type[BaseModel],
    hint: str = "",
    beside: Sequence[str] = (),
) -> UserError:
    """One pydantic error as one UserError: file:line, the path, what is legal.

    beside: names that are legal at the top and no field of the model.
    """
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    extra = first["type"] == "extra_forbidden"
    sections, path = _located(model, first["loc"][:-1] if extra else first["loc"])
    path += first["loc"][-1:] if extra else ()
    full = (*at, *path)
    where = f"{document.where(*full)} {'.'.join(map(str, full))}"
    if extra:
        legal = [name for section in sections for name in section.model_fields]
        legal += beside if len(path) == 1 else []
        return unknown("setting", str(path[-1]), legal, where=where, hint=hint)
    if first["type"] == "union_tag_invalid":
        chosen_by, error_of = _UNIONS[str(path[-1])]
        place = f"{document.where(*full, chosen_by)} {'.'.join(map(str, full))}.{chosen_by}"
        return error_of(str(first["ctx"]["tag"]), place)
    if first["type"] == "missing":
        last = path[-1]
        what = f"value number {last + 1} is missing" if isinstance(last, int) else f"'{last}' is missing"
        return UserError(what, where=where, hint=hint)
    same = [e for e in errors if _located(model, e["loc"])[1] == path]
    choices = dict.fromkeys(str(e["ctx"]["expected"]) for e in same if "expected" in e.get("ctx", {}))
    allowed = "" if len(choices) < 2 and len(same) < 2 else " or ".join(choices)
    return UserError(message(first), where=where, allowed=allowed, hint=hint)


def message(error: ErrorDetails) -> str:
    """pydantic's words, in terms of YAML."""
    text = error["msg"].removeprefix("Value error, ")
    text = (text[:1].lower() + text[1:]).replace("a valid tuple", "a list").replace("tuple should", "list should")
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        text = "must be a mapping"
    return text if isinstance(error["input"], Mapping) else f"{text}, got {error['input']!r}"


def _located(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[Models, tuple[str | int, ...]]:
    """(sections that may stand at a pydantic location, the location as in YAML: without names of alternatives)."""
    options: Models = (model,)
    path: list[str | int] = []
    open_names = False  # whether a name that is no field may come: the mapping's own keys
    for name in loc:
        field = next((m.model_fields[str(name)] for m in options if name in m.model_fields), None)
        if field is not None:
            options = _models(field.annotation)
        if field is not None or isinstance(name, int) or open_names:
            path.append(name)
            open_names = field is not None and _is_mapping(field.annotation)
        else:
            options = (
                (FORMATS[name].section,)
                if name in FORMATS
                else tuple(m for m in options if m.__name__ == name) or options
            )
    return options, tuple(path)


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) in (dict, Mapping)


def _models(annotation: Any) -> Models:
    inner = get_args(annotation)
    if not inner:
        return (annotation,) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else ()
    return tuple(model for part in inner for model in _models(part))
