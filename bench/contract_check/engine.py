"""The promises that every engine keeps, as checks of its tiny detector: the list, and those of what it says of itself.
Separate from the checks of methods, which ask what a recipe does; last come those that a plain baseline must pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

import torch

from bench.contract_check.behaviour import (
    draws_by_address,
    freezes_what_is_not_named,
    ignores_the_names_of_classes,
    learns_everywhere,
    predicts_boxes_of_images,
    reads_given_boxes,
    sees_each_image_alone,
)
from bench.contract_check.built import C, EngineSubject, below, different, state_of
from bench.contract_check.checks import CHECKS
from bench.contract_check.probe import HEAVY, surroundings
from bench.contract_check.subject import Broken, Check, DoesNotApply, Subject, Verdict, look
from bench.detection.contract import Detector
from bench.engines.contract import CAPABILITIES, CLASSIFIER
from bench.engines.facts import ORIGINS
from bench.suite.catalogue import discover

AWAY = 0.1  # by which share the number of parameters that planning uses may be off
PATIENCE = 120.0  # seconds for the imports of one process
OF_BASELINE = ("runs", "moves", "resume", "reload", "scores", "edges")  # checks of methods that an engine must pass
_IMPORTS = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps([*sys.modules]))
"""


def examine_engine(subject: EngineSubject) -> Iterator[Verdict]:
    """Every promise in turn: those of the detector, then those that a baseline on it must keep."""
    for check in ENGINE_CHECKS:
        yield look(check, subject)
    for of_method in (check for check in CHECKS if check.name in OF_BASELINE):
        try:
            yield look(of_method, Subject(discover()["baseline"], subject.place))
        except DoesNotApply as reason:
            yield Verdict(of_method.name, of_method.promise, "skip", str(reason))


# -- what it says of itself


def says_what_is_true(subject: EngineSubject) -> str | None:
    """The facts need no torch, name what there is, and describe the detector that is built."""
    one = subject.facts
    heavy = _imported_with(_modules_of(subject)) & HEAVY
    if heavy:
        raise Broken(
            f"its facts import {', '.join(sorted(heavy))}",
            "`bench plan` reads them: keep them in a file of their own that imports no heavy library, and name the "
            "module of the detector as text (module=)",
        )
    strange = sorted(one.provides - set(CAPABILITIES))
    if strange:
        raise Broken(f"it provides {', '.join(strange)}", f"legal words: {', '.join(CAPABILITIES)}")
    _check_groups(subject)
    if isinstance(subject.tried, Exception):
        error = subject.tried
        advice = "name in `tiny` the sections (detector, schedule, test) that its `check` lets pass and `build` builds"
        if isinstance(error, ImportError):
            advice = "install the library that it needs"
        raise Broken(f"its tiny detector cannot be built: {type(error).__name__}: {error}", advice) from error
    built = sum(p.numel() for name, p in subject.detector().named_parameters() if below(name))
    said = one.parameters(subject.section, C)
    if abs(said - built) > AWAY * built:
        raise Broken(
            f"`parameters` says {said:,} below the classifier, and {built:,} are built",
            "count what the section asks for, so that `bench plan` knows how large checkpoints are",
        )
    return None


def _check_groups(subject: EngineSubject) -> None:
    one = subject.facts
    if CLASSIFIER not in one.groups or len(set(one.groups)) < len(one.groups):
        raise Broken(f"groups are {', '.join(one.groups)}", f"each once, '{CLASSIFIER}' among them")
    for field, names in (("projector", one.projector), ("head", one.head), ("judges", one.judges)):
        lost = [name for name in names if name not in one.groups]
        if lost:
            raise Broken(f"{field} names {', '.join(lost)}, no group of it", f"legal: {', '.join(one.groups)}")


def _modules_of(subject: EngineSubject) -> list[str]:
    """Those that its facts are made of."""
    one, origin = subject.facts, ORIGINS.get(subject.name)
    pieces = (
        one.check, one.head_widths, one.parameters, one.proposals, one.anchors, one.heads, one.classifier, one.section,
    )  # fmt: skip
    names = {str(getattr(piece, "__module__", "")) for piece in pieces} | ({origin.module} if origin else set())
    return sorted(names - {"", "__main__", "functools"})


def _imported_with(names: Sequence[str]) -> set[str]:
    """What else comes in with these modules, by its first word."""
    ended = subprocess.run(
        [sys.executable, "-c", _IMPORTS, *names], capture_output=True, text=True, env=surroundings(1),
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise Broken(f"its facts cannot be imported by themselves: {last}") from RuntimeError(ended.stderr)
    return {name.partition(".")[0] for name in json.loads(ended.stdout.splitlines()[-1])}


# -- parameters


def gives_each_name_a_group(subject: EngineSubject) -> str | None:
    """Every tensor of the state dict has a group of the facts; every group has a parameter."""
    model, groups = subject.detector(), subject.facts.groups
    for name in model.state_dict():
        group = _group_of(model, name)
        if group not in groups and below(name):
            raise Broken(
                f"{name} is of group '{group}', which its facts do not list",
                f"`groups` of the facts has {', '.join(groups)}; `group_of` answers with one of them",
            )
    parameters = [name for name, _ in model.named_parameters()]
    empty = [group for group in groups if group not in {_group_of(model, name) for name in parameters}]
    if empty:
        raise Broken(f"group {', '.join(empty)} has no parameter", "a stage that trains it would train nothing")
    return None


def _group_of(model: Detector, name: str) -> str:
    try:
        return model.group_of(name)
    except Exception as error:
        raise Broken(f"`group_of` of {name} ends with {type(error).__name__}: {error}", _GROUPS) from error


_GROUPS = "it gets each name of the state dict, buffers too"


def begins_by_its_seed(subject: EngineSubject) -> str | None:
    """Initial weights depend on the seed alone, and torch's generator is left as it was."""
    states = []
    with torch.random.fork_rng(devices=[]):
        for stream, seed in ((1, 0), (2, 0), (2, 1)):
            torch.manual_seed(stream)
            before = torch.get_rng_state()
            states.append(state_of(subject.detector(seed)))
            if not torch.equal(before, torch.get_rng_state()):
                raise Broken("`build` moves torch's global generator", _SEED)
    one, again, other = states
    moved = different(one, again)
    if moved:
        raise Broken(f"built twice with one seed, {moved[0]} differs", _SEED)
    if not any(below(name) for name in different(one, other)):
        raise Broken("built with another seed, it has the same weights", _SEED)
    return None


_SEED = (
    "in `build`: `with torch.random.fork_rng(devices=[]): torch.manual_seed(address(seed, 'init'))` around the "
    "detector's constructor (bench.seeds)"
)


ENGINE_CHECKS: tuple[Check[EngineSubject], ...] = (
    Check("facts", "what it says of itself needs no torch and is true of what is built", says_what_is_true),
    Check("groups", "every tensor has a listed group, every group a parameter", gives_each_name_a_group),
    Check("seeds", "initial weights depend on the seed alone", begins_by_its_seed),
    Check("losses", "losses are finite and reach every parameter, whatever boxes there are", learns_everywhere),
    Check("draws", "a step is a function of weights and address; prediction draws nothing", draws_by_address),
    Check("frozen", "where one group is trained, the others keep every bit", freezes_what_is_not_named),
    Check("classes", "classes under other names give the same losses and scores", ignores_the_names_of_classes),
    Check("batch-mates", "an image's prediction does not depend on its batch", sees_each_image_alone),
    Check("boxes", "predicted boxes are finite, inside their image and in its order", predicts_boxes_of_images),
    Check("given-boxes", "taps of given boxes come in their order, none for none", reads_given_boxes),
)
