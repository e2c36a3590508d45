"""The `patch` stage: a finished classifier, edited or put inside another one, without training."""

from __future__ import annotations

from bench.detection.contract import Classifier
from bench.detection.per_head import OneHead, edited
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
        models, found = models_named(work.store, work.stage, patch, {}), fitted(work.store, work.stage)

        def change(one: Classifier, k: int) -> Classifier:
            edit, settings = resolve(patch, {**found, **{name: OneHead(model, k) for name, model in models.items()}})
            changed: Classifier = edit(one, **settings)
            return changed

        classifier = edited(old, change)
    else:
        seed = spec_of(training_of(model), TrainSpec)["seed"]
        classifier = make_classifier(work.store, work.stage, old.head, seed)
        classifier.wrap(old)
    tensors = {f"classifier.{name}": value for name, value in classifier.state_dict().items()}
    checkpoint.write_tensors(work.out / WEIGHTS, tensors)
