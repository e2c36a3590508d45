"""The `patch` stage: a finished classifier, edited or put inside another one, without training."""

from __future__ import annotations

from bench.detection.per_head import edited
from bench.key import resolve
from bench.lineage import training_of
from bench.run import checkpoint
from bench.run.model import WEIGHTS, fitted, load_classifier, make_classifier, models_named
from bench.run.work import Work
from bench.stage import PatchSpec, TrainSpec, spec_of


def run(work: Work) -> None:
    """Load the model, change its classifier, store the classifier alone."""
    model, patch = work.stage.inputs["model"], spec_of(work.stage, PatchSpec)["patch"]
    old = load_classifier(work.store, model)
    if patch is not None:
        models = models_named(work.store, work.stage, patch, {})
        edit, settings = resolve(patch, fitted(work.store, work.stage) | models)
        classifier = edited(old, lambda one: edit(one, **settings))
    else:
        seed = spec_of(training_of(model), TrainSpec)["seed"]
        classifier = make_classifier(work.store, work.stage, old.head, seed)
        classifier.wrap(old)
    tensors = {f"classifier.{name}": value for name, value in classifier.state_dict().items()}
    checkpoint.write_tensors(work.out / WEIGHTS, tensors)
