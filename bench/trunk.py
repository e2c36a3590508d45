"""Which trunk a model uses, and what can be done in one pass over it. Separate because the planner and the jobs must
agree on it; no torch.

Three questions: which stages train classifiers over one frozen trunk (one training pass), which predictions are of one
trunk (one pass over the pictures), and which `features` stage holds what such a pass reads again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.detection.taps import TAPS
from bench.engines.facts import facts, only_classifier
from bench.key import Fixed, Input, canonical, digest
from bench.stage import Stage

# From so many post-hoc predictions over one trunk on, its val features are kept. Within one run they save nothing (the
# predictions are one pass anyway): what is kept serves the points that are added later. A sweep has at least five
# points (tau 0, 0.25, ..., 1) and grows; the one or two post-hoc rows of a table of methods do not.
N_POST_HOC = 5


def trunk_of(model: Stage) -> Stage:
    """The train stage whose trunk a model uses: below patches and below stages that train a classifier alone."""
    while True:
        if model.kind == "patch":
            model = model.inputs["model"]
        elif trains_classifier_only(model) and "init" in model.inputs:
            model = model.inputs["init"]
        else:
            return model


def trains_classifier_only(stage: Stage) -> bool:
    """Whether this is a training that leaves everything below the classifier as it is."""
    if stage.kind != "train":
        return False
    return only_classifier(stage.spec["trainable"], facts(stage.spec["engine"]["name"]).groups)


@functools.lru_cache(maxsize=65536)
def training_group(stage: Stage) -> str:
    """Equal for classifier-only train stages that one pass can train: the same batches through the same trunk.

    Left out is what each head has for itself: the classifier and its inputs, which of its groups learn, the schedule.
    Of the schedule the batch stays, and whether it counts in steps or epochs.
    """
    own = ("classifier", "keep_classifier", "trainable", "schedule")
    spec = {name: value for name, value in stage.spec.items() if name not in own}
    schedule = stage.spec["schedule"]
    spec["schedule"] = [schedule["batch"], "epochs" if schedule["steps"] is None else "steps"]
    parts = {name: value for name, value in spec.items() if not isinstance(value, Fixed)}  # a detector names no inputs
    named = {name: stage.inputs[name].key for name in sorted({"train", *_inputs_named(canonical(parts))})}
    init = stage.inputs.get("init")
    return digest({"spec": spec, "inputs": named, "trunk": None if init is None else trunk_of(init).key})


@functools.lru_cache(maxsize=65536)
def prediction_group(predict: Stage) -> str:
    """Equal for predict stages that one pass over the pictures can make."""
    trunk = trunk_of(predict.inputs["model"]).key
    return digest({"spec": predict.spec, "trunk": trunk, "val": predict.inputs["val"].key})


def features_stage(predict: Stage, taps: Sequence[str]) -> Stage:
    """What a prediction reads of its trunk, kept: proposals, refined boxes and taps of val.

    The spec is that of predict without what only post-processing reads. The stage is a cache: it is no input of any
    other, whoever wants it derives its key from the predict stage.
    """
    spec = {name: value for name, value in predict.spec.items() if name not in ("test", "postprocess")}
    spec |= {"batch": predict.spec["test"]["batch"], "taps": sorted({"box_features", *taps})}
    return Stage("features", spec, {"model": trunk_of(predict.inputs["model"]), "val": predict.inputs["val"]})


def features_stages(predict: Stage, taps: Sequence[str]) -> list[Stage]:
    """The features stages that hold at least these taps, the smallest first."""
    more = [name for name in TAPS if name != "box_features"]
    sets = [[name for i, name in enumerate(more) if number >> i & 1] for number in range(2 ** len(more))]
    return [features_stage(predict, chosen) for chosen in sorted(sets, key=len) if {*taps} <= {"box_features", *chosen}]


def taps_named(model: Stage) -> set[str]:
    """Taps that a model's classifier is likely to read: those that its part's settings name.

    A guess, since to know it the part would have to be imported. A tap that is missed costs a network pass, no more.
    """
    return {"box_features"} | {value for value in _texts(canonical(model.spec["classifier"])) if value in TAPS}


def read_stage(load: Callable[[str], Mapping[str, Any]], key: str, known: dict[str, Stage] | None = None) -> Stage:
    """A stage as it was written down, with all below it; `load` gives the JSON of a key (bench.store.Store.load)."""
    known = {} if known is None else known
    if key not in known:
        value = load(key)
        inputs = {name: read_stage(load, source, known) for name, source in value["inputs"].items()}
        known[key] = Stage(value["kind"], value["spec"], inputs)
    return known[key]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _texts(inner)


def _inputs_named(value: Any) -> Iterator[str]:
    """Names of the inputs that stand for settings of the parts inside (bench.key.Input)."""
    if isinstance(value, Mapping) and value == Input(str(value.get("input"))).to_json():
        yield value["input"]
        return
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _inputs_named(inner)
