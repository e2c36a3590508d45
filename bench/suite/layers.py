"""The layers of a suite as plain mappings. Separate from suite.py, which gives their result types.

Later wins: preset, the suite file, a preset given on the command line (its sections replace the file's), --data, --set.
Rows and seeds always come from the file (or --only, --seeds).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import UserError, unknown
from bench.suite import yamlfile

PRESETS = Path(__file__).resolve().parents[2] / "suites" / "_presets"
LENGTHS: Mapping[str, str] = {"steps": "epochs", "epochs": "steps"}  # one replaces the other
MOVED = {("input", "workers"): ("machine", "workers")}  # old place of a setting -> new place


def preset_named(name: str, where: str) -> tuple[dict[str, Any], tuple[yamlfile.Document, ...]]:
    """The mapping of suites/_presets/NAME.yaml, on top of what its own `preset:` names; and these files, itself first.

    Raises:
        UserError: no such preset.
    """
    known = {file.stem: file for file in PRESETS.glob("*.yaml")}
    if not isinstance(name, str) or name not in known:
        raise unknown("preset", str(name), known, where=where)
    file = known[name]
    document = yamlfile.read(file).renamed(MOVED)
    value = dict(document.value)
    below = value.pop("preset", None)
    if not below:
        return value, (document,)
    base, documents = preset_named(below, str(file))
    return merge(base, value), (document, *documents)


def merged_data(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A data section on another; one of another name replaces it."""
    other = above.get("name") not in (None, below.get("name"))
    return dict(above) if other else {**below, **above}


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge of mappings; a `data` section of another name replaces the one below, as epochs replace steps."""
    result = {k: v for k, v in below.items() if LENGTHS.get(k) not in above or k in above}
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merged_data(old, value) if key == "data" else merge(old, value)
        result[key] = value
    return result


def apply_set(tree: dict[str, Any], text: str, document: yamlfile.Document) -> tuple[str, ...]:
    """Apply one `--set a.b.c=value` in place; the path that it set."""
    label = _label_in(text, tree)  # which may hold dots and equals signs
    key, equals, value = text[len(label) :].partition("=")
    if not equals or not key.strip():
        raise UserError(
            f"'{text}' is not key=value", where="--set", allowed="e.g. schedule.steps=300 or rows.BAGS.beta=4"
        )
    names = ["rows", label[5:-1]] if label else []
    names += key.strip().split(".")
    if len(names) > yamlfile.MOST_DEPTH:
        raise UserError(f"a setting is at most {yamlfile.MOST_DEPTH} names deep", where=f"--set {text}")
    names = list(MOVED.get((names[0], names[-1]), names)) if len(names) == 2 else names
    node: Any = tree
    for i, name in enumerate(names[:-1]):
        if name not in node and names[0] == "rows" and i == 1:
            raise unknown("row", name, node, where=f"--set {text}")
        node[name] = dict(node.get(name) or {}) if isinstance(node.get(name), Mapping | None) else node[name]
        node = node[name]
        if not isinstance(node, dict):
            raise UserError(f"'{'.'.join(names[: i + 1])}' is a value, not a section", where=f"--set {text}")
    node.pop(LENGTHS.get(names[-1], ""), None)
    node[names[-1]] = yamlfile.scalar(value)
    return tuple(names)


def _label_in(text: str, tree: Mapping[str, Any]) -> str:
    """ "rows.LABEL." that `--set` begins with, LABEL being a row of the suite; else an empty string."""
    rows = tree.get("rows")
    labels = sorted(rows, key=len, reverse=True) if isinstance(rows, Mapping) else []
    return next((start for label in labels if text.startswith(start := f"rows.{label}.")), "")
