"""The `patch` stage: a finished classifier, edited without training."""

from __future__ import annotations

from bench.key import resolve
from bench.run import checkpoint
from bench.run.model import WEIGHTS, load_model
from bench.run.work import Work


def run(work: Work) -> None:
    """Load the model, edit its classifier, store the classifier alone."""
    detector = load_model(work.store, work.input_key("model"))
    edit, settings = resolve(work.spec["patch"])
    classifier = edit(detector.classifier, **settings)
    tensors = {f"classifier.{name}": value for name, value in classifier.state_dict().items()}
    checkpoint.write_tensors(work.out / WEIGHTS, tensors)
