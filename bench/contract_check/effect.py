"""Whether settings change what is computed. Separate from recipe.py, which looks at keys: a part that ignores what it
gets has two keys and one result."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from bench.contract_check import tiny
from bench.contract_check.outcome import LARGE, made_taps
from bench.contract_check.place import RunFailed
from bench.contract_check.recipe import Keys, Settings, unseen
from bench.contract_check.subject import Broken, DoesNotApply, Subject
from bench.run.model import WEIGHTS, load_model
from bench.stage import Stage

MOST_RUNS = 24  # models that are made to see what a method's settings change; about 0.2 s each


def settings_change_a_result(subject: Subject) -> str | None:
    """Every setting, beside some value of another at most, changes a model's weights or its scores."""
    if not subject.kind.model_fields:
        raise DoesNotApply("it has no settings")
    subject.ran()
    keys = Keys(subject)
    effects = _Effects(subject, keys)
    late: list[str] = []
    for name in subject.looked_at:
        options = keys.options(name)
        if not options:
            continue  # the check of keys reports it
        shows = effects.of(name, options)
        if shows is None:
            late.append(name)
        elif not shows:
            raise Broken(
                f"setting '{name}' is in the key but changes neither weights nor scores "
                f"(tried {', '.join(repr(value) for value in options[:5])})",
                "the code that gets it ignores it. If it shows on larger data alone, name a value that shows "
                "on a few images of 8 classes with 1 to 30 instances: Field(examples=[...])",
            )
    return unseen(late, f"nothing showed within {MOST_RUNS} models") if late else None


class _Effects:
    """Models of a method under settings; at most MOST_RUNS of them are made."""

    def __init__(self, subject: Subject, keys: Keys) -> None:
        self.subject, self.keys, self.place = subject, keys, subject.place
        self._left = MOST_RUNS
        self._known: dict[str, Stage | None] = {}

        self._scores: dict[str, list[torch.Tensor]] = {}

    def of(self, name: str, options: list[Any]) -> bool | None:
        """Whether some value shows; None where the runs were used up before one did."""
        for around, value in self._trials(name, options):
            having = {**around, name: value}
            keys = self.keys.of(around), self.keys.of(having)
            if None in keys or keys[0] == keys[1]:
                continue
            if self._left <= 0 and not set(keys) <= set(self._known):
                return None
            one, other = self._model(around), self._model(having)
            if one is not None and other is not None and self._differ(one, other):
                return True
        return False

    def _trials(self, name: str, options: list[Any]) -> Iterator[tuple[Settings, Any]]:
        """The defaults with several values; then beside one value of another setting."""
        yield from ((self.keys.base, value) for value in options[:5])
        yield from itertools.product(itertools.islice(self.keys.surroundings(name), 1, None), options[:3])

    def _model(self, settings: Settings) -> Stage | None:
        """The finished stage of the model; None where this data refuses the settings.

        Raises:
            Broken: its code ends with an error that is not the user's.
        """
        key = self.keys.of(settings)
        assert key is not None
        if key not in self._known:
            self._left -= 1
            result = tiny.result_of(self.place.suite, tiny.made(self.subject.kind, settings))
            model = result.inputs["predict"].inputs["model"]
            try:
                self.place.bring(model)
                self._known[key] = model
            except RunFailed as failed:
                if failed.trace:
                    changed = {name: value for name, value in settings.items() if value != self.keys.base[name]}
                    text = f"with {changed} its {failed}"
                    raise Broken(text, "legal settings run, or the recipe refuses them") from failed
                self._known[key] = None
        return self._known[key]

    def _differ(self, one: Stage, other: Stage) -> bool:
        if self._digest(one) != self._digest(other):
            return True
        return not all(
            a.shape == b.shape and torch.equal(a, b) for a, b in zip(self._says(one), self._says(other), strict=True)
        )

    def _digest(self, model: Stage) -> str:
        return self.place.digests(self.place.store, model)[WEIGHTS]

    def _says(self, model: Stage) -> list[torch.Tensor]:
        """Scores of made RoIs: near the decision, far from it, and with one feature alone."""
        if model.key not in self._scores:
            classifier = load_model(self.place.store, model).classifier
            classifier.eval()
            with torch.inference_mode():
                made = [made_taps(classifier.head, 64, size) for size in (1.0, LARGE)]
                made.append(made_taps(classifier.head, classifier.head.features, LARGE, alone=True))
                pairs = (classifier.scores(classifier(taps)) for taps in made)
                self._scores[model.key] = [p if p is not None else torch.zeros(0) for pair in pairs for p in pair]
        return self._scores[model.key]
