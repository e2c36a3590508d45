"""What a figure of a suite needs to be measured beside the rows' evaluations. Separate from planning.py: it is recipes,
over the models that the rows have anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.lineage import model_chain, trunk_of
from bench.method import Builder, part
from bench.stage import Stage
from bench.suite.suite import Suite


def linear_probe(b: Builder, model: Stage) -> dict[str, Stage]:
    """How many boxes of val a linear probe tells right, of the features after each training of the model's chain that
    changes them; by the training's number, the first is 1."""
    found: dict[str, Stage] = {}
    trainings = [stage for stage in model_chain(model) if stage.kind == "train"]
    for number, stage in enumerate(trainings, 1):
        if trunk_of(stage) == stage:
            line = b.fit(part("probe:Ridge"), model=stage)
            found[f"linear_probe/{number}"] = b.fit(part("probe:Hits", probe=line), model=stage, split="val")
    return found


# By the kind of a figure.
LOOKS: Mapping[str, Callable[[Builder, Stage], dict[str, Stage]]] = {"linear_probe": linear_probe}


def wanted(suite: Suite, label: str, model: Stage, seed: int) -> dict[str, Stage]:
    """The fit stages that the suite's figures need of a row, by name; none of a search's trials."""
    if suite.division is not None:
        return {}
    kinds = {f.kind for f in suite.sections.figures if f.kind in LOOKS and (not f.rows or label in f.rows)}
    b = Builder(suite, seed)
    return {name: stage for kind in sorted(kinds) for name, stage in LOOKS[kind](b, model).items()}
