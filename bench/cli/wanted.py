"""All that a suite asks for: its rows, and of a search its trials so far and what it reports. Separate because
`status`, `logs`, `why` and `stop` take a search as they take any suite.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UserError
from bench.plan import planning
from bench.plan.planning import Plan
from bench.search import plans
from bench.search.view import View
from bench.store.store import Store
from bench.suite.suite import Suite

if TYPE_CHECKING:
    from bench.search.study import Study


def wanted(suite: Suite, store: Path) -> Plan:
    """The plan of a suite; of a search the stages of its trials and of what it reports are in it."""
    if suite.sections.search is None:
        return planning.make(suite)
    try:
        view = seen(suite, Store(store))
    except UserError:  # it has no trial yet
        return planning.make(suite)
    return planning.joined(reported(suite, view), *plans.trial_plans(suite, view))


def reported(suite: Suite, view: View) -> Plan:
    """The rows of a search that are measured on val: those of the suite, and its best trials where it has some."""
    return plans.final_plan(suite, view) if view.finals() else planning.make(suite)


def seen(suite: Suite, store: Store) -> View:
    """The search of a suite in a store, only looked at.

    Raises:
        UserError: it was not begun.
    """
    return whole_view(study_of(suite, store), suite, store)


def whole_view(study: Study, suite: Suite, store: Store) -> View:
    """The search with how the training images were divided, where that is done."""
    return replace(study.view(), divided=plans.divided(suite, store))


def study_of(suite: Suite, store: Store) -> Study:
    """The same, with Optuna's storage open for reading.

    Raises:
        UserError: it was not begun.
    """
    from bench.search import study

    name = plans.study_name(suite)
    search, space = plans.searched(suite)
    try:
        return study.opened(store.root, name, search, space, {}, write=False)
    except FileNotFoundError:
        hint = f"begin it: {suite.command('search', store.root)}"
        raise UserError("this search has no trial yet", where=str(suite.path), hint=hint) from None
