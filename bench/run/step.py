"""One training step as the losses see it: bench.detection.losses.Step over a batch. Separate from loop.py because it
says what is computed, once, whoever asks; the loop says in which order a step goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.detection.boxes import carry
from bench.detection.contract import Batch, Context, Detector, Draws, Maps, PredictOutput, Taps, TrainOutput
from bench.seeds import address

T = TypeVar("T")


class TrainStep:
    """See bench.detection.losses.Step.

    Args:
        student: the detector that is trained.
        batches: what it is trained on, and the views that were made ahead, on the device.
        draws: of the step.
        context: for the losses.
        other_view: makes another view of the same images, on the device.
        whole: gathers rows over the processes.
        frozen: nothing below the classifier is trained: the student's features have no gradient.
        taps: names that the student's classifier, or those trained with it, read.
    """

    def __init__(
        self,
        student: Detector,
        batches: Sequence[Batch],
        draws: Draws,
        context: Context,
        *,
        other_view: Callable[[int], Batch],
        whole: Callable[[Tensor], Tensor],
        frozen: bool,
        taps: Sequence[str],
    ) -> None:
        self.student, self.context = student, context
        self._draws, self._other_view, self._frozen, self._taps = draws, other_view, frozen, tuple(taps)
        self._batches = dict(enumerate(batches))
        self.whole = whole
        self._known: dict[tuple[str, int, int], object] = {}

    def batch(self, view: int = 0) -> Batch:
        if view not in self._batches:
            self._batches[view] = self._other_view(view)
        return self._batches[view]

    @property
    def first(self) -> int:
        return self._draws.first

    def generator(self, role: str, image: int) -> torch.Generator:
        return self._draws.generator(f"losses/{role}", image)

    def carried(self, boxes: Sequence[Tensor], view: int) -> tuple[list[Tensor], list[Tensor]]:
        seen, other = self.batch(), self.batch(view)
        found = [carry(boxes_N4, seen.placed[i], other.placed[i], other.sizes[i]) for i, boxes_N4 in enumerate(boxes)]
        return [cut for cut, _ in found], [share for _, share in found]

    def last(self, model: Detector | None = None, view: int = 0) -> Tensor:
        return list(self._body(model, view).values())[-1]

    def maps(self, model: Detector | None = None, view: int = 0) -> Maps:
        body = self._body(model, view)
        return self._once("maps", model, view, lambda shown: shown.maps(self.batch(view).images, body))

    def _body(self, model: Detector | None, view: int) -> Maps:
        return self._once("body", model, view, lambda shown: shown.body(self.batch(view).images))

    def rois(self, model: Detector | None = None, view: int = 0) -> TrainOutput:
        maps, draws = self.maps(model, view), replace(self._draws, view=view)
        own = model is None or model is self.student

        def sampled(shown: Detector) -> TrainOutput:
            return shown.train_forward(
                self.batch(view),
                draws,
                trunk_losses=own and view == 0 and not self._frozen,
                taps=self._taps if own else (),
                maps=maps,
            )

        return self._once("rois", model, view, sampled)

    def proposals(self, model: Detector | None = None, view: int = 0) -> PredictOutput:
        maps = self.maps(model, view)
        return self._once("proposals", model, view, lambda shown: shown.predict_forward(self.batch(view), maps=maps))

    def taps(
        self, boxes: Sequence[Tensor], model: Detector | None = None, view: int = 0, names: Sequence[str] = ()
    ) -> Taps:
        maps, shown = self.maps(model, view), model or self.student
        with self._around(shown, view):
            return shown.box_taps(self.batch(view), boxes, taps=names, maps=maps)

    def _once(self, what: str, model: Detector | None, view: int, compute: Callable[[Detector], T]) -> T:
        shown = model or self.student
        at = (what, id(shown), view)
        if at not in self._known:
            with self._around(shown, view):
                self._known[at] = compute(shown)
        return cast(T, self._known[at])

    @contextlib.contextmanager
    def _around(self, shown: Detector, view: int) -> Iterator[None]:
        """Gradients for the student's alone; in train mode, what a model draws from torch (dropout) has an address."""
        own = shown is self.student
        draws = _drawn(self._draws, "student" if own else "teacher", view)
        training = cast(nn.Module, shown).training
        with torch.set_grad_enabled(own and not self._frozen), draws if training else contextlib.nullcontext():
            yield


@contextlib.contextmanager
def _drawn(draws: Draws, whose: str, view: int) -> Iterator[None]:
    """torch's own generators, seeded by the step and left as they were."""
    role = f"{whose}/{view}" if view else whose
    with torch.random.fork_rng():
        torch.manual_seed(address(draws.seed, role, draws.phase, draws.step, draws.first))
        yield


def frozen(model: Detector, device: str, *, train_mode: bool = False) -> Detector:
    """A finished model as a loss gets it: without gradients, on the device, in eval mode; or in train mode, its running
    statistics held (see bench.detection.losses.ExtraLoss)."""
    module = cast(nn.Module, model)
    module.requires_grad_(False).to(device).eval()
    if train_mode:
        module.train()
        for one in module.modules():
            if isinstance(one, _BatchNorm):
                one.momentum, one.num_batches_tracked = 0.0, None  # the new running statistics are the old ones
    return model
