"""A trunk's output for the val images: from the network, or from a `features` stage. Separate from
predict.py, which turns it into detections, because post-hoc methods read it many times.

A kept pass is exact: float32 (which holds bfloat16 too), in the batches of the network pass, so that a classifier over
it gives the same bits as over the network.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench import spec as specs
from bench.data.folder import image_root_of
from bench.data.loader import eval_batches, eval_pass
from bench.data.split import open_split
from bench.detection.contract import TAPS, BatchGeometry, PredictOutput, Taps
from bench.lineage import features_stages, fresh
from bench.run import checkpoint
from bench.run.loading import workers_of
from bench.run.model import load_model
from bench.run.work import Work, device_of
from bench.stage import FeaturesSpec, Stage, spec_of
from bench.store.disk import read_json, write_json
from bench.store.store import Store

FEATURES = "features.safetensors"
INFO = "features.json"
_FIELDS = ("proposals_N4", "boxes", "image_N")  # of PredictOutput, beside its taps


@dataclass(frozen=True)
class CachedPass:
    """A pass that a features stage has kept."""

    frames: list[BatchGeometry]
    dtypes: Mapping[str, str]
    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.frames)

    def batches(self, device: str) -> Generator[tuple[BatchGeometry, PredictOutput]]:
        """What `TrunkPass.batches` yielded when it was stored."""
        for i, frame in enumerate(self.frames):
            # A copy: the tensors of a file lie anywhere in memory, and alignment can decide the order of a sum.
            found = {
                name: self.tensors[f"{i}/{name}"].to(getattr(torch, dtype), copy=True).to(device)
                for name, dtype in self.dtypes.items()
            }
            taps = Taps(**{name: found[name] for name in TAPS if name in found})
            yield frame, PredictOutput(taps, **{name: found[name] for name in _FIELDS})


class TrunkPass:
    """A pass over the val images through a trunk.

    Args:
        works: the predict or features stages that ask; the stop flag of the first is checked once per batch.
        model: a model with the trunk.
        batch: images per forward pass.
        taps: names of the taps wanted.
        device: torch device.
    """

    def __init__(self, works: Sequence[Work], model: Stage, batch: int, taps: Sequence[str], device: str) -> None:
        work = works[0]
        self._work, self._taps, self._device = work, tuple(taps), device
        self._detector = load_model(work.store, model)
        self._detector.to(device)
        self._detector.eval()
        self._input = specs.Input.model_validate(work.spec["input"])
        self._split = open_split(work.input("val"), image_root_of(work.stage.inputs["val"]))
        self._cuts = eval_batches(self._split, self._input, batch)
        self._workers = workers_of(works, self._split, device)

    def __len__(self) -> int:
        return len(self._cuts)

    def batches(self) -> Generator[tuple[BatchGeometry, PredictOutput]]:
        """One forward pass after the other. Close it: the threads that make its batches end with it."""
        with eval_pass(self._split, self._input, self._cuts, self._workers) as made:
            for _ in self._cuts:
                self._work.stop.check()
                batch = next(made).to(self._device)
                out = self._detector.predict_forward(batch, taps=self._taps)
                yield BatchGeometry(batch.sizes, batch.scale, batch.image_index), out


def run(work: Work) -> None:
    """Write features.safetensors and features.json; or, where that would be larger than machine.features_mb, only
    features.json with {"skipped": reason}."""
    device, spec = device_of(work.machine), spec_of(work.stage, FeaturesSpec)
    taps = spec["taps"]
    network = TrunkPass([work], work.stage.inputs["model"], spec["batch"], taps, device)
    limit = work.machine.features_mb * 1_000_000
    frames: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    dtypes: dict[str, str] = {}
    size = 0
    with (
        closing(network.batches()) as batches,
        torch.inference_mode(),
        torch.autocast(device, torch.bfloat16, enabled=spec["precision"] == "bfloat16"),
    ):
        for i, (frame, out) in enumerate(batches):
            found = _found(out, taps)
            dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in found.items()}
            added = {f"{i}/{name}": _exact(tensor) for name, tensor in found.items()}
            size += sum(tensor.numel() * tensor.element_size() for tensor in added.values())
            if size > limit:
                hint = "raise machine.features_mb and delete this stage's folder in the store"
                reason = f"{i + 1} of {len(network)} batches are {size / 1e6:.0f} MB, more than machine.features_mb"
                write_json(work.out / INFO, {"skipped": f"{reason} ({work.machine.features_mb}); {hint}"})
                return
            tensors |= added
            frames.append({"sizes": frame.sizes, "scale": frame.scale, "image_index": frame.image_index})
            work.progress(i + 1, len(network))
    checkpoint.write_tensors(work.out / FEATURES, tensors)
    write_json(work.out / INFO, {"skipped": None, "frames": frames, "dtypes": dtypes})


def cached_pass(store: Store, predict: Stage, taps: Sequence[str]) -> CachedPass | None:
    """The pass that a predict stage would make with these taps, where a features stage in the store has kept it.

    A stage that is stale, was skipped or has a corrupt file is not used.
    """
    for wanted in features_stages(predict, taps):
        if not fresh(wanted, store.done):
            continue
        if not store.verify(wanted.key):
            print(f"features {wanted.key[:6]}: corrupt, the network is run instead", file=sys.stderr)
            continue
        folder = store.output(wanted.key)
        info = read_json(folder / INFO)
        if info["skipped"] is None:
            frames = [_frame(value) for value in info["frames"]]
            return CachedPass(frames, info["dtypes"], checkpoint.read_tensors(folder / FEATURES))
    return None


def _found(out: PredictOutput, taps: Sequence[str]) -> dict[str, Tensor]:
    chosen = {name: getattr(out.taps, name) for name in TAPS if name in taps}
    return {name: getattr(out, name) for name in _FIELDS} | chosen


def _exact(tensor: Tensor) -> Tensor:
    """On the CPU, floating point as float32: nothing is rounded."""
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.is_floating_point() else tensor


def _frame(value: Mapping[str, Any]) -> BatchGeometry:
    return BatchGeometry(
        [(int(h), int(w)) for h, w in value["sizes"]],
        [(float(y), float(x)) for y, x in value["scale"]],
        [int(i) for i in value["image_index"]],
    )
