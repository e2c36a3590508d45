"""The `patch` stage: a finished classifier, edited or put inside another one, without training."""

from __future__ import annotations

from bench.key import resolve
from bench.run import checkpoint
from bench.run.model import WEIGHTS, fitted, load_classifier, make_classifier, training_stage
from bench.run.work import Work


def run(work: Work) -> None:
    """Load the model, change its classifier, store the classifier alone."""
    old = load_classifier(work.store, work.input_key("model"))
    if work.spec["patch"] is not None:
        edit, settings = resolve(work.spec["patch"], fitted(work.store, work.stage))
        classifier = edit(old, **settings)
    else:
        _, trained = training_stage(work.store, work.input_key("model"))
        classifier = make_classifier(work.store, work.stage, old.head, int(trained["spec"]["seed"]))
        classifier.wrap(old)
    tensors = {f"classifier.{name}": value for name, value in classifier.state_dict().items()}
    checkpoint.write_tensors(work.out / WEIGHTS, tensors)
