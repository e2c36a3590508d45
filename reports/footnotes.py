"""What stands under a table: the protocol of its numbers, and where it mixes protocols, machines or versions. Separate
because it is the part that must not be forgotten, and figures take their caption from it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.load import RowResult
from reports.paper import Published

DIGEST = 12  # characters of a sha256 that are shown
SHOWN = 5  # rows named beside a value, or values of a list, before the rest is counted
RECIPE = ("steps", "batch", "initialisation", "reinitialised")  # fields of the protocol that a method sets
DIGESTS = ("train_digest", "val_digest", "train_images", "val_images")  # follow the seed where the data do
IN_FIGURES = (
    "data", "classes", "train_images", "val_images", "engine", "trunk", "initialisation", "steps", "evaluator",
    "max_detections", "score_threshold",
)  # fmt: skip
RAN_WITH = (
    "python", "packages.torch", "packages.torchvision", "packages.faster-coco-eval", "cpu", "threads", "gpus", "commit",
)  # fmt: skip


def footnotes(rows: Sequence[RowResult]) -> tuple[str, ...]:
    """Protocol, seeds, what the spread means, and one line for every field on which the rows differ."""
    if not rows:
        return ()
    common, mixed = _compare(_protocols(rows))
    notes = ["protocol: " + "; ".join(f"{_spoken(name)} {_text(value)}" for name, value in common.items())]
    notes.append(_seeds(rows))
    # Rows are meant to differ in what they train; that is told, and is not a mixture.
    notes += [f"by row: {_spoken(name)} {where}" for name, where in mixed.items() if name in RECIPE]
    notes += [f"by seed: {_spoken(name)} {where}" for name, where in mixed.items() if name in DIGESTS]
    rest = {name: where for name, where in mixed.items() if name not in (*RECIPE, *DIGESTS)}
    notes += [f"not one protocol: {_spoken(name)} {where}" for name, where in rest.items()]
    same, differing = _compare([(r.record.row, r.record.seed, _flat(r.record.environment)) for r in rows])
    ran = [f"{_spoken(name)} {_text(same[name])}" for name in RAN_WITH if same.get(name) not in (None, [], "")]
    notes += ["ran with: " + ", ".join(ran)] if ran else []
    notes += [f"mixes machines or versions: {_spoken(name)} {where}" for name, where in differing.items()]
    return tuple(notes)


def paper_caption(paper: Published, rows: Sequence[RowResult]) -> str:
    """What the published column is, and that and how its protocol is another than ours."""
    theirs = "; ".join(f"{_spoken(name)} {text}" for name, text in paper.protocol.items())
    common, _ = _compare(_protocols(rows))
    ours = "; ".join(f"{_spoken(name)} {_text(value)}" for name, value in common.items() if _comparable(name))
    here = f" Here: {ours}." if ours else ""
    return f"paper: {paper.title}. Measured under another protocol, not to be subtracted from ours: {theirs}.{here}"


def figure_caption(rows: Sequence[RowResult], suite: str, shows: str) -> str:
    """What was run and what the marks show, for below a figure; the whole protocol stands under the table."""
    common, _ = _compare(_protocols(rows))
    ran = [f"{_spoken(name)} {_text(common[name])}" for name in IN_FIGURES if name in common]
    return "; ".join([f"suite {suite}", *ran]) + f". {shows}"


def _protocols(rows: Sequence[RowResult]) -> list[tuple[str, int, dict[str, Any]]]:
    return [(r.record.row, r.record.seed, r.record.protocol.model_dump(mode="json")) for r in rows]


def _seeds(rows: Sequence[RowResult]) -> str:
    per_row: dict[str, list[int]] = {}
    for result in rows:
        per_row.setdefault(result.record.row, []).append(result.record.seed)
    sets = {tuple(sorted(seeds)) for seeds in per_row.values()}
    if len(sets) == 1:
        seeds = next(iter(sets))
        spread = "mean ± sample standard deviation over them" if len(seeds) > 1 else "one run a row, no spread known"
        return f"seeds {', '.join(map(str, seeds))}; {spread}"
    named = [f"{row} {', '.join(map(str, sorted(seeds)))}" for row, seeds in per_row.items()]
    return f"seeds differ between rows ({'; '.join(named)}); mean ± sample standard deviation over those a row has"


def _compare(values: Sequence[tuple[str, int, Mapping[str, Any]]]) -> tuple[dict[str, Any], dict[str, str]]:
    """(fields with one value everywhere, fields with several -> text that says which rows or seeds have which)."""
    names = dict.fromkeys(name for _, _, fields in values for name in fields)
    common: dict[str, Any] = {}
    mixed: dict[str, str] = {}
    for name in names:
        groups: dict[str, list[tuple[str, int]]] = {}
        for row, seed, fields in values:
            groups.setdefault(_text(fields.get(name)), []).append((row, seed))
        if len(groups) == 1:
            common[name] = next(fields[name] for _, _, fields in values)
        else:
            mixed[name] = "; ".join(f"{value} ({_who(members, groups)})" for value, members in groups.items())
    return common, mixed


def _who(members: Sequence[tuple[str, int]], groups: Mapping[str, Sequence[tuple[str, int]]]) -> str:
    """ "seed 1" where the value goes with the seed, else the rows."""
    seeds = {seed for _, seed in members}
    others = {seed for group in groups.values() if group is not members for _, seed in group}
    if not seeds & others:
        return f"seed {', '.join(map(str, sorted(seeds)))}"
    rows = list(dict.fromkeys(row for row, _ in members))
    more = f" and {len(rows) - SHOWN} more rows" if len(rows) > SHOWN else ""
    return ", ".join(rows[:SHOWN]) + more


def _comparable(name: str) -> bool:
    """The fields that a published protocol names too."""
    return name in ("data", "train_images", "val_images", "classes", "engine", "trunk", "evaluator", "max_detections",
                    "score_threshold")  # fmt: skip


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            found |= _flat(inner, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = inner
    return found


def _spoken(name: str) -> str:
    return name.removeprefix("packages.").replace("_", " ").replace(".", " ")


def _text(value: Any) -> str:
    if value is None or value in ([], {}, ()):
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return ", ".join(map(_text, value[:SHOWN])) + more
    if isinstance(value, str) and len(value) >= 32 and set(value) <= set("0123456789abcdef"):
        return value[:DIGEST]
    return f"{value:g}" if isinstance(value, float) else str(value)
