"""The stages that a word on the command line means. Separate because `logs`, `why`, `stop` and `retry` take one."""

from __future__ import annotations

from pathlib import Path

from bench.cli.say import listed
from bench.errors import UserError, did_you_mean
from bench.plan.planning import Plan
from bench.stage import Stage, walk

LABELS = 20  # rows that a message lists


def find(plan: Plan, word: str) -> Stage:
    """The stage that a word means: the first digits of a key, or a row's label (its model).

    Raises:
        UserError: none, or several.
    """
    hits = [stage for key, stage in plan.stages.items() if key.startswith(word.lower())] if word else []
    for row in plan.rows:
        if row.label == word and row.evaluate is not None:
            hits = [row.evaluate.inputs["predict"].inputs["model"]]
    if len(hits) == 1:
        return hits[0]
    labels = list(dict.fromkeys(row.label for row in plan.rows))
    nothing = f"no stage begins with '{word}' and no row is called so{did_you_mean(word, labels)}"
    raise UserError(
        f"{len(hits)} stages begin with '{word}'" if hits else nothing,
        where=str(plan.suite.path),
        allowed=f"a key's first digits, or a row: {listed(labels, LABELS)}",
        hint=f"see: {plan.suite.command('plan', Path('store'))}",
    )


def chosen(plan: Plan, word: str | None) -> list[str]:
    """The keys that a word means: a row's label (all that the row is made from), or the first digits of a key; all
    without a word.

    Raises:
        UserError: nothing is called so, or several stages begin so.
    """
    if word is None:
        return list(plan.stages)
    roots = [root for row in plan.rows if row.label == word for root in row.roots]
    return [stage.key for stage in walk(*roots)] if roots else [find(plan, word).key]


def needed_alone(plan: Plan, word: str | None) -> list[str]:
    """As `chosen`, without the stages that other rows need too: to stop a row is not to stop what they wait for."""
    keys = chosen(plan, word)
    return [key for key in keys if plan.needed_by[key] == (word,)] if len(keys) > 1 and word is not None else keys
