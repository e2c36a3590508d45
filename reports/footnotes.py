"""What stands under a table: the protocol of its numbers, and where it mixes protocols, machines or versions. Separate
because no table may be without it, and figures take their caption from it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.load import RowResult
from reports.paper import Published
from reports.stats import bases_of, engine_of, other_counts, other_val

MARK = "\N{DAGGER}"  # behind the label of a row whose method wants something to be said of it
DIGEST = 12  # characters of a sha256 that are shown
SHOWN = 5  # rows named beside a value, or values of a list, before the rest is counted
# Fields of the protocol that a method sets.
RECIPE = ("steps", "batch", "lr", "initialisation", "reinitialised", "settings")
# These follow the seed where the data do.
DIGESTS = ("train_digest", "val_digest", "train_images", "val_images", "counted_images")
IN_FIGURES = (
    "data", "classes", "train_images", "val_images", "engine", "trunk", "initialisation", "evaluator", "max_detections",
    "score_threshold",
)  # fmt: skip
MACHINE = ("cpu", "gpus", "threads")
RAN_WITH = (
    "python", "packages.torch", "packages.torchvision", "packages.faster-coco-eval", "cpu", "threads", "gpus", "commit",
)  # fmt: skip


def footnotes(rows: Sequence[RowResult]) -> tuple[str, ...]:
    """Protocol, seeds, what the spread means, and one line for every field on which the rows differ."""
    if not rows:
        return ()
    common, mixed = _compare(_protocols(rows))
    notes = [*searched(rows), *(f"{MARK} {text}" for text in marked(rows))]
    notes += ["protocol: " + "; ".join(f"{worded(name)} {value_text(value)}" for name, value in common.items())]
    notes += [_classes(rows), _epochs(rows), _seeds(rows)]
    # Rows are meant to differ in what they train; that is listed, and is not a mixture.
    notes += [f"by row: {worded(name)} {where}" for name, where in mixed.items() if name in RECIPE]
    by = {name: "seed" if _by_seed(rows, name) else "row" for name in DIGESTS}
    notes += [f"by {by[name]}: {worded(name)} {where}" for name, where in mixed.items() if name in DIGESTS]
    rest = {name: where for name, where in mixed.items() if name not in (*RECIPE, *DIGESTS)}
    notes += [f"not one protocol: {worded(name)} {where}" for name, where in rest.items()]
    if unknown := {r.record.protocol.split: None for r in rows if r.record.protocol.negatives == "none listed"}:
        notes.append(
            f"negatives none listed: no image of {' or '.join(unknown)} says which classes are absent from it, so "
            "false positives of classes that an image does not show are not counted; AP is far too high, and "
            "comparable with no other data"
        )
    same, differing = _compare([(r.record.row, r.record.seed, flat(r.record.environment)) for r in rows], most=SHOWN)
    ran = [f"{worded(name)} {value_text(same[name])}" for name in RAN_WITH if same.get(name) not in (None, [], "")]
    notes += ["ran with: " + ", ".join(ran)] if ran else []
    notes += [f"mixes machines or versions: {worded(name)} {where}" for name, where in differing.items()]
    return tuple(notes)


def marked(rows: Sequence[RowResult]) -> list[str]:
    """What methods want to be said of their rows: which rows, and what."""
    of: dict[str, dict[str, None]] = {}
    for result in rows:
        if result.record.mark:
            of.setdefault(result.record.mark, {})[result.record.row] = None
    return [f"{some_rows(list(labels))}: {mark}" for mark, labels in of.items()]


def searched(rows: Sequence[RowResult]) -> list[str]:
    """One line where rows were measured on a part of the training images: they are a search's and no result."""
    tuned = [r for r in rows if r.record.protocol.split != "val"]
    if not tuned:
        return []
    found = [r.record.protocol for r in tuned]
    parts = {
        f"`{p.split}`, {p.val_images} of the {p.counted_images or '-'} training images, by models trained on "
        f"{p.train_images} others": None
        for p in found
    }
    texts = list(parts)
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    who = "" if len(tuned) == len(rows) else f"{some_rows(list(dict.fromkeys(r.record.row for r in tuned)))}: "
    none = max(sum(value is None for value in r.per_class_ap) for r in tuned)
    empty = f"; up to {none} of {max(p.classes for p in found)} classes have no box in it" if none else ""
    return [
        f"{who}measured on {'; '.join(texts[:SHOWN])}{more}{empty}; bins and the counts that methods use are those "
        "of all training images. These are numbers of a search: a result is measured on val"
    ]


def other_data(groups: Mapping[str, Sequence[RowResult]], baseline: str | None) -> tuple[str, ...]:
    """Which rows were evaluated on other data than the baseline, count its classes otherwise, or are on another engine,
    and what it means."""
    base = groups.get(baseline or "", [])
    val = [label for label, group in groups.items() if other_val(group, base)]
    train = [label for label, group in groups.items() if label not in val and other_counts(group, base)]
    texts = {
        f"evaluated on other data than {baseline}, so without a difference from it": val,
        f"trained on other class counts than {baseline}, so its bins hold other classes": train,
    }
    bases = bases_of(groups)
    for label, group in groups.items():
        own = bases.get(label)
        if base and engine_of(group) != engine_of(base) and label != own:
            what = f"compared with {own}" if own else f"without a difference from {baseline}"
            texts.setdefault(f"on engine {engine_of(group)}, so {what}", []).append(label)
    return tuple(f"{text}: {some_rows(rows)}" for text, rows in texts.items() if rows)


def paper_caption(paper: Published, rows: Sequence[RowResult]) -> str:
    """What the published column is, and that and how its protocol is another than ours."""
    theirs = "; ".join(f"{worded(name)} {text}" for name, text in paper.protocol.items())
    common, _ = _compare(_protocols(rows))
    shown = {name: value for name, value in common.items() if _comparable(name) or (name, value) == ("split", "tune")}
    ours = "; ".join(f"{worded(name)} {value_text(value)}" for name, value in shown.items())
    here = f" Here: {ours}." if ours else ""
    return f"paper: {paper.title}. Measured under another protocol, not to be subtracted from ours: {theirs}.{here}"


def figure_caption(rows: Sequence[RowResult], suite: str, shows: str) -> str:
    """What was run and what the marks show, for below a figure; the whole protocol stands under the table."""
    common, mixed = _compare(_protocols(rows))
    ran = [f"suite {suite}"]
    for name in IN_FIGURES:
        if name in common:
            ran.append(f"{worded(name)} {value_text(common[name])}")
        elif name in mixed and not (name in DIGESTS and _by_seed(rows, name)):
            ran.append(f"{worded(name)} differ{'' if name.endswith('s') else 's'} between rows")
    ran += [_steps(rows), f"seeds {', '.join(map(str, sorted({r.record.seed for r in rows})))}"]
    ran += [*searched(rows), *marked(rows)]
    same, _ = _compare([(r.record.row, r.record.seed, flat(r.record.environment)) for r in rows])
    ran += [f"{worded(name)} {value_text(same[name])}" for name in MACHINE if same.get(name) not in (None, [], "")]
    return "; ".join(ran) + f". {shows}"


def _steps(rows: Sequence[RowResult]) -> str:
    """ "steps 900", or "steps 900, 900 + 300" where recipes train one after the other."""
    lengths = dict.fromkeys(" + ".join(map(str, r.record.protocol.steps.values())) for r in rows)
    texts = [text or "-" for text in lengths]
    return f"steps {', '.join(texts)}" if len(texts) <= SHOWN else "steps by row, see the table"


def _protocols(rows: Sequence[RowResult]) -> list[tuple[str, int, dict[str, Any]]]:
    return [(r.record.row, r.record.seed, r.record.protocol.model_dump(mode="json", exclude_none=True)) for r in rows]


def _classes(rows: Sequence[RowResult]) -> str:
    """Over how many classes each AP of a bin is a mean: one of few moves with each of them."""
    found = dict.fromkeys(result.record.classes_per_bin for result in rows)
    texts = [", ".join(f"AP{i} {count}" for i, count in enumerate(counts, 1)) for counts in found]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return f"classes of each bin that val shows: {'; or '.join(texts[:SHOWN])}{more}"


def _epochs(rows: Sequence[RowResult]) -> str:
    """How often the trainings see an image, on average: a number of steps alone says nothing about another data set."""
    found = {
        (steps, protocol.batch[name], protocol.train_images): None
        for protocol in (result.record.protocol for result in rows)
        for name, steps in protocol.steps.items()
        if name in protocol.batch
    }
    every = (f"{steps} of {batch} images {steps * batch / max(1, images):.1f}" for steps, batch, images in found)
    texts = list(dict.fromkeys(every))  # seeds with other data have nearly as many images
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    of = (
        "all training images"
        if all(r.record.protocol.counted_images is None for r in rows)
        else "the images trained on"
    )
    return f"steps in epochs of {of}: {', '.join(texts[:SHOWN])}{more}"


def _seeds(rows: Sequence[RowResult]) -> str:
    per_row: dict[str, list[int]] = {}
    for result in rows:
        per_row.setdefault(result.record.row, []).append(result.record.seed)
    sets = {tuple(sorted(seeds)) for seeds in per_row.values()}
    if len(sets) == 1:
        seeds = next(iter(sets))
        spread = "mean ± sample standard deviation over them" if len(seeds) > 1 else "one run a row, no spread known"
        return f"seeds {', '.join(map(str, seeds))}; {spread}"
    having: dict[tuple[int, ...], list[str]] = {}
    for row, own in per_row.items():
        having.setdefault(tuple(sorted(own)), []).append(row)
    named = [f"{some_rows(rows_of)} {', '.join(map(str, seeds))}" for seeds, rows_of in having.items()]
    return f"seeds differ between rows ({'; '.join(named)}); mean ± sample standard deviation over those a row has"


def _compare(
    values: Sequence[tuple[str, int, Mapping[str, Any]]], most: int | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """(fields with one value everywhere, fields with several -> text with which rows or seeds have which).

    `most`: values of a field that are listed; a table of thirty rows from thirty nodes names the first few.
    """
    names = dict.fromkeys(name for _, _, fields in values for name in fields)
    common: dict[str, Any] = {}
    mixed: dict[str, str] = {}
    for name in names:
        groups: dict[str, list[tuple[str, int]]] = {}
        for row, seed, fields in values:
            groups.setdefault(value_text(fields.get(name)), []).append((row, seed))
        if len(groups) == 1:
            common[name] = next(fields[name] for _, _, fields in values)
        else:
            listed = [f"{value} ({_who(members, groups)})" for value, members in groups.items()][:most]
            rest = len(groups) - len(listed)
            mixed[name] = "; ".join(listed) + (f"; and {rest} more value{'s' * (rest > 1)}" if rest else "")
    return common, mixed


def _who(members: Sequence[tuple[str, int]], groups: Mapping[str, Sequence[tuple[str, int]]]) -> str:
    """ "seed 1" where the value goes with the seed, else the rows, with the seed where only both identify it."""
    others = [member for group in groups.values() if group is not members for member in group]
    seeds, rows = {seed for _, seed in members}, list(dict.fromkeys(row for row, _ in members))
    if not seeds & {seed for _, seed in others}:
        return f"seed {', '.join(map(str, sorted(seeds)))}"
    both = not set(rows).isdisjoint(row for row, _ in others)
    return some_rows(rows) + (f" at seed {', '.join(map(str, sorted(seeds)))}" if both else "")


def _by_seed(rows: Sequence[RowResult], name: str) -> bool:
    """Whether all rows have the same value of a protocol field at the same seed."""
    values: dict[int, set[str]] = {}
    for result in rows:
        values.setdefault(result.record.seed, set()).add(value_text(getattr(result.record.protocol, name)))
    return all(len(texts) == 1 for texts in values.values())


def some_rows(rows: Sequence[str]) -> str:
    """`a, b and 12 more rows`."""
    return ", ".join(rows[:SHOWN]) + (f" and {len(rows) - SHOWN} more rows" if len(rows) > SHOWN else "")


def _comparable(name: str) -> bool:
    """The fields that a published protocol names too."""
    return name in ("data", "train_images", "val_images", "classes", "engine", "trunk", "evaluator", "max_detections",
                    "score_threshold")  # fmt: skip


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names."""
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            found |= flat(inner, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = inner
    return found


def worded(name: str) -> str:
    """A dotted name of a protocol or environment in words."""
    if name == "dirty":  # the sha256 of what a checkout had changed
        return "uncommitted changes"
    return name.removeprefix("packages.").replace("_", " ").replace(".", " ")


def value_text(value: Any) -> str:
    """A value of a protocol or environment in few characters; digests are cut, `-` is nothing."""
    if value is None or value in ([], {}, ()):
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {value_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return ", ".join(map(value_text, value[:SHOWN])) + more
    if isinstance(value, str) and " + " in value:  # the values of several stages (reports.load)
        return " + ".join(map(value_text, value.split(" + ")))
    if isinstance(value, str) and len(value) >= 32 and set(value) <= set("0123456789abcdef"):
        return value[:DIGEST]
    return f"{value:g}" if isinstance(value, float) else str(value)
