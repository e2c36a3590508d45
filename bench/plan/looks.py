"""What a figure of a suite needs to be measured beside the rows' evaluations. Separate from planning.py: it is recipes,
over the models that the rows have anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.engines.facts import facts
from bench.lineage import model_chain, trunk_of
from bench.method import Builder, part
from bench.stage import Stage
from bench.suite.suite import Suite


def linear_probe(b: Builder, model: Stage) -> Stage:
    """How many boxes of val a linear probe of a model's features tells right."""
    line = b.fit(part("probe:Ridge"), model=model)
    return b.fit(part("probe:Hits", probe=line), model=model, split="val")


def attention(b: Builder, model: Stage) -> Stage:
    """Where a model's last map is large, on the images of val with the rarest classes."""
    return b.fit(part("looks:Attention"), model=model, split="val")


@dataclass(frozen=True)
class Look:
    """A recipe over one model, and the capability words that the engine must provide for it."""

    stage: Callable[[Builder, Stage], Stage]
    needs: frozenset[str] = frozenset()


# By the kind of a figure.
LOOKS: Mapping[str, Look] = {
    "linear_probe": Look(linear_probe),
    "attention": Look(attention, frozenset({"body", "maps"})),
}


def wanted(suite: Suite, label: str, model: Stage, seed: int) -> dict[str, Stage]:
    """The fit stages that the suite's figures need of a row, after each training of its chain that changes features:
    KIND/NUMBER, the number of the training, the first is 1. None of a search's trials, and none that the engine lacks
    something for."""
    if suite.division is not None:
        return {}
    named = {f.kind for f in suite.sections.figures if f.kind in LOOKS and (not f.rows or label in f.rows)}
    provided = facts(suite.sections.detector.engine).provides
    kinds = sorted(kind for kind in named if LOOKS[kind].needs <= provided)
    b = Builder(suite, seed)
    trainings = [stage for stage in model_chain(model) if stage.kind == "train"]
    changing = [(number, stage) for number, stage in enumerate(trainings, 1) if trunk_of(stage) == stage]
    return {f"{kind}/{number}": LOOKS[kind].stage(b, stage) for kind in kinds for number, stage in changing}
