"""All checks in order, and the methods that a word names. Separate because tests and command begin here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.contract_check import effect, outcome, recipe, training
from bench.contract_check.subject import Check, Subject, Verdict, trace_of
from bench.errors import UserError
from bench.method import Method
from bench.suite.catalogue import discover, method_named

CHECKS: tuple[Check[Subject], ...] = (
    Check("plan", "planning is pure: same keys everywhere, no torch, clock, chance or disk", recipe.plans_purely),
    Check("key", "every setting changes the key of the row's result", recipe.settings_reach_the_key),
    Check("json", "settings come back from JSON with the same key", recipe.settings_come_back_from_json),
    Check("runs", "every stage ends, every loss is finite", training.runs),
    Check("moves", "training moves the groups it names and nothing else", training.moves_what_it_names),
    Check("resume", "stopped and resumed equals undisturbed, bit for bit", training.resumes_exactly),
    Check("teachers", "a teacher gets no gradient and keeps its bits", training.leaves_teachers_as_they_are),
    Check("reload", "the model in the store scores as the one that was trained", training.reloads_as_it_was),
    Check("fused", "trained in one pass with plain classifiers equals alone", training.fused_equals_alone),
    Check("scores", "detections and scores are well-formed", outcome.predicts_well_formed),
    Check("edges", "a batch without foreground, an image without proposals", outcome.stands_edge_batches),
    Check("effect", "every setting changes a result", effect.settings_change_a_result),
)


@dataclass(frozen=True)
class Named:
    """What a word of the command line names: methods by name, and what is wrong with its file, if anything."""

    methods: Mapping[str, type[Method]]
    broken: Verdict | None = None


def named(word: str) -> Named:
    """The method of a name, or all methods in a .py file or in the files of a folder.

    Raises:
        UserError: no such method, file or folder, or no method in it.
    """
    path = Path(word)
    if path.suffix != ".py" and not path.is_dir():
        return Named({word: method_named(word, discover(), "methods check")})
    if not path.exists():
        raise UserError("no such file", where=word, allowed="a method's name, a .py file, or a folder of them")
    path = path.resolve()
    own = {name: kind for name, kind in discover().items() if _lies_in(kind, path)}
    if own:  # files of the house, which are known already
        return Named(own)
    try:
        known = discover([path])
    except UserError as error:
        promise = "the file can be read as Python and its methods have a name and a plan"
        return Named({}, Verdict("file", promise, "fail", str(error), trace_of(error)))
    own = {name: kind for name, kind in known.items() if _lies_in(kind, path)}
    if not own:
        raise UserError("no method in it", where=word, hint="a method is a subclass of Method with a name and a plan")
    return Named(own)


def _lies_in(kind: type[Method], path: Path) -> bool:
    file = Path(inspect.getsourcefile(kind) or "").resolve()
    return file == path or path in file.parents
