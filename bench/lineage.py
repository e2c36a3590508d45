"""What lies below a stage, whose trunk a model uses, whether a stage is fresh, and what one pass can make. Separate
because the planner and the jobs use it; no torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from bench.detection.taps import TAPS
from bench.engines.facts import facts, only_classifier
from bench.errors import UserError
from bench.key import Fixed, StageRef, canonical, digest, plain
from bench.stage import KINDS, Stage, walk

# From this many post-hoc predictions over one trunk on, its val features are kept. Within one run they save nothing
# (the predictions are one pass anyway), but they serve points that are added later. A sweep has at least five
# points (tau 0, 0.25, ..., 1) and grows; the one or two post-hoc rows of a table of methods do not.
N_POST_HOC = 5


class Finished(Protocol):
    """What is needed of a finished stage; bench.store.store.Done is one."""

    @property
    def digest(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, str]: ...
    @property
    def seconds(self) -> float: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...
    @property
    def sizes(self) -> Mapping[str, int]: ...


# -- a stage and its sources


def read_stage(load: Callable[[str], Mapping[str, Any]], key: str, known: dict[str, Stage] | None = None) -> Stage:
    """A stage as it was stored, with all below it; `load` returns the JSON of a key (bench.store.store.Store.load).

    It has the key that it was stored under, whatever the version of the code was then.

    Raises:
        UserError: a stage below is missing or corrupt.
        KeyError: one is of another form.
    """
    known = {} if known is None else known
    if key not in known:
        value = load(key)
        inputs = {name: read_stage(load, source, known) for name, source in value["inputs"].items()}
        stage = Stage(value["kind"], plain(value["spec"]), inputs, plain(value.get("aside", {})))
        vars(stage)["key"] = value["key"]
        known[key] = stage
    return known[key]


def submitted_stage(
    load: Callable[[str], Mapping[str, Any]], key: str, asides: Mapping[str, Mapping[str, Any]]
) -> Stage:
    """A stage as a job was told to make it, with all below it: what its store holds must give the keys it names.

    Whoever may write to the store may write another stage.json while a job is queued, and with it name other code. A
    key is the hash of all that is computed; what is not in it (paths) comes from the submission alone.

    Args:
        load: the JSON of a key, as stored.
        key: what the job was told to make.
        asides: of the job, see `asides_of`.

    Raises:
        UserError: a stage is missing or corrupt, or is not what its key names.
    """

    def checked(source: str) -> Mapping[str, Any]:
        value = load(source)
        if _key_of(value) != source:
            raise UserError(
                "its stage.json is not what was submitted: its content has another key", where=f"stage {source[:12]}",
                hint="it was changed since; nothing of it was run. Run the suite again: it writes its stages anew",
            )  # fmt: skip
        return {**value, "aside": asides.get(source, {})}

    return read_stage(checked, key)


def asides_of(*stages: Stage) -> dict[str, Mapping[str, Any]]:
    """What is in no key, of these stages and all below them, by key: a job gets it from whoever submits it."""
    return {stage.key: stage.not_in_key for stage in walk(*stages) if stage.not_in_key}


def _key_of(value: Mapping[str, Any]) -> str | None:
    """The key that a stage.json has by its content (see Stage.key); None for one that is no stage's."""
    try:
        return digest({name: value[name] for name in ("kind", "version", "spec", "inputs")})
    except (KeyError, TypeError, RecursionError):
        return None


def fresh(stage: Stage, done: Callable[[str], Finished | None]) -> bool:
    """Done, and made from the present content of its inputs. A missing input does not make it stale.

    Args:
        stage: of a plan, or read from a store.
        done: a store's record of a key (bench.store.store.Store.done).
    """
    found = done(stage.key)
    if found is None:
        return False
    held = ((name, done(source.key)) for name, source in stage.inputs.items())
    return all(source is None or found.inputs.get(name) == source.digest for name, source in held)


def sources(stage: Stage) -> list[tuple[Stage, bool]]:
    """All sources of a stage, each once, nearest first; True for its own inputs."""
    found = {source.key: (source, True) for source in stage.inputs.values()}
    queue = [source for source, _ in found.values()]
    for one in queue:
        below = {source.key: (source, False) for source in one.inputs.values() if source.key not in found}
        found |= below
        queue += [source for source, _ in below.values()]
    return list(found.values())


def reached(keys: Collection[str], inputs: Callable[[str], Sequence[str]]) -> set[str]:
    """These keys and the keys of all below them; `inputs` gives those of a stage, none where it cannot be read."""
    found = set(keys)
    queue = list(found)
    for key in queue:
        more = set(inputs(key)) - found
        found |= more
        queue += more
    return found


# -- models


def model_chain(model: Stage) -> list[Stage]:
    """The stages that made a model, the first training first, the model last."""
    parent = model.inputs.get("model") or model.inputs.get("init")
    return [*(model_chain(parent) if parent else []), model]


def training_of(model: Stage) -> Stage:
    """The train stage below patches: the model itself, or the patched one."""
    while model.kind == "patch":
        model = model.inputs["model"]
    return model


def rest_of(model: Stage) -> Stage | None:
    """The stage that holds what a model does not store itself (a stage stores only what it trained); None: it stores
    everything."""
    if model.kind == "patch":
        return model.inputs["model"]
    return model.inputs.get("init") if model.spec["trainable"] and "take" not in model.spec else None


def trunk_of(model: Stage) -> Stage:
    """The train stage whose trunk a model uses: below patches and below stages that train a classifier alone."""
    while True:
        if model.kind == "patch":
            model = model.inputs["model"]
        elif trains_classifier_only(model) and rest_of(model) is not None:
            model = model.inputs["init"]
        else:
            return model


def trains_classifier_only(stage: Stage) -> bool:
    """Whether this is a training that leaves everything below the classifier unchanged."""
    if stage.kind != "train":
        return False
    return only_classifier(stage.spec["trainable"], facts(stage.spec["engine"]["name"]).groups)


# -- what one pass can make


def pass_of(stage: Stage) -> str:
    """Equal for stages that one pass makes: heads over one frozen trunk, predictions of one trunk; else the key."""
    if not KINDS[stage.kind].together:
        return stage.key
    if "model" in stage.inputs:
        return prediction_group(stage)
    alone = "losses" in stage.spec or not trains_classifier_only(stage)
    return stage.key if alone else training_group(stage)


def job_root(stage: Stage) -> Stage:
    """The stage whose job a stage runs in, directly or through others."""
    while (ridden := KINDS[stage.kind].rides_with) is not None:
        stage = stage.inputs[ridden]
    return stage


@functools.lru_cache(maxsize=65536)
def training_group(stage: Stage) -> str:
    """Equal for classifier-only train stages that one pass can train: the same batches through the same trunk.

    Without what is per head: the classifier and its inputs, its trainable groups, the schedule and where a rung stops.
    Of the schedule the batch stays, and whether it counts in steps or epochs.
    """
    own = ("classifier", "keep_classifier", "trainable", "schedule", "until")
    spec = {name: value for name, value in stage.spec.items() if name not in own}
    schedule = stage.spec["schedule"]
    spec["schedule"] = [schedule["batch"], "epochs" if schedule["steps"] is None else "steps"]
    parts = {name: value for name, value in spec.items() if not isinstance(value, Fixed)}  # a detector names no inputs
    named = {name: stage.inputs[name].key for name in sorted({"train", *inputs_named(canonical(parts))})}
    init = stage.inputs.get("init")
    return digest({"spec": spec, "inputs": named, "trunk": None if init is None else trunk_of(init).key})


@functools.lru_cache(maxsize=65536)
def prediction_group(predict: Stage) -> str:
    """Equal for predict stages that one pass over the images can make."""
    trunk = trunk_of(predict.inputs["model"]).key
    return digest({"spec": predict.spec, "trunk": trunk, "val": predict.inputs["val"].key})


def features_stage(predict: Stage, taps: Sequence[str]) -> Stage:
    """The stored output of a trunk that a prediction reads: proposals, refined boxes and taps of val.

    The spec is that of predict without what only post-processing reads. The stage is a cache: it is no input of any
    other; its key is derived from the predict stage.
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

    A guess, since the part is not imported. A missed tap only costs a network pass.
    """
    return {"box_features"} | {value for value in _texts(canonical(model.spec["classifier"])) if value in TAPS}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _texts(inner)


def inputs_named(value: Any) -> Iterator[str]:
    """Names of the inputs that stand for settings of the parts inside (bench.key.StageRef)."""
    if isinstance(value, Mapping) and value == StageRef(str(value.get("input"))).to_json():
        yield value["input"]
        return
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from inputs_named(inner)
