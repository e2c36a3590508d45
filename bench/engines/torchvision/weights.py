"""Weight files under torchvision's names. Separate because both layouts are handled here alone; the reading, and the
refusals, are also those of other engines (`read_file`, `load_named`).

Ours: groups first, background last, no background slot in the box regressor. torchvision: `backbone.body.`,
`backbone.fpn.`, `rpn.head.`, `roi_heads.`, background first, a background slot in `bbox_pred`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import safetensors.torch
import torch
from torch import Tensor, nn

from bench.detection.contract import Classifier
from bench.engines.sections import DetectorSection
from bench.errors import UserError

# our group -> torchvision's prefix
_PREFIXES = {
    "backbone.": "backbone.body.",
    "fpn.": "backbone.fpn.",
    "rpn.": "rpn.head.",
    "box_head.": "roi_heads.box_head.",
}
_BOXES = "roi_heads.box_predictor.bbox_pred."
_CLASSES = "roi_heads.box_predictor.cls_score."
# Names of files older than torchvision 0.13, its COCO_V1 detectors among them.
_OLD_NAMES = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^rpn\.head\.conv\.(weight|bias)$"), r"rpn.head.conv.0.0.\1"),
)


LEAST = 0.5  # of the trunk's tensors: a file with fewer is of another network, whatever happens to have a shape of ours
_NUMBERS = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64, torch.bool,
)  # fmt: skip
_COUNTER = "num_batches_tracked"  # of batch norm: no weight, and of one shape in all networks


class Model(Protocol):
    """What a detector must have for its weights to be read or written."""

    @property
    def spec(self) -> DetectorSection: ...

    classifier: Classifier
    class_agnostic: bool  # all classes share one box regression
    body_prefix: str  # what ImageNet weight files put before the names of the body

    def group_of(self, name: str) -> str: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> object: ...


def to_foreign(model: Model) -> dict[str, Tensor]:
    """Our weights under torchvision's names.

    The background slot of `bbox_pred`, which torchvision never trains or reads, is zero. A classifier without a single
    linear layer of C + 1 outputs has no counterpart and is left out; a class-agnostic regressor keeps its 4 rows.
    """
    state = model.state_dict()
    foreign = {_rename(name): value for name, value in state.items() if _rename(name)}
    for part in ("weight", "bias"):
        value = state[f"box_regressor.{part}"]
        if not model.class_agnostic:
            value = torch.cat((torch.zeros_like(value[:4]), value))
        foreign[_BOXES + part] = value
    linear = linear_of(model.classifier, model.classifier.head.num_classes + 1)
    if linear is not None:
        for part in ("weight", "bias"):
            value = state[f"classifier.{linear}{part}"]
            foreign[_CLASSES + part] = torch.cat((value[-1:], value[:-1]))
    return foreign


def load_foreign(model: Model, state: Mapping[str, Tensor]) -> list[str]:
    """Load a torchvision state dict: an ImageNet classifier (its body) or a whole detector.

    Returns:
        Names of our state dict left as initialised: absent from the file, or of another shape.

    Raises:
        UserError: see `load_named`.
    """
    return load_named(model, state, to_ours, to_foreign)


def load_named(
    model: Model,
    state: Mapping[str, Tensor],
    translate: Callable[[Model, Mapping[str, Tensor]], dict[str, Tensor]],
    examples: Callable[[Model], Iterable[str]],
    whole: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Load what fits of a state dict with others' names.

    Args:
        model: the detector.
        state: of the file.
        translate: the same under our names; tensors of other shapes may be among them.
        examples: names that a file has which fits.
        whole: what else, beside the trunk, must come from the file: groups by what messages call them.

    Returns:
        Names of our state dict left as initialised: absent from the file, or of another shape.

    Raises:
        UserError: nothing in it fits the trunk, or less than half (`LEAST`) of the tensors of the trunk or of a part in
            `whole`; or values that are no weights.
    """
    for name, value in state.items():
        _check_form(name, value)
    ours = model.state_dict()
    found = translate(model, state)
    fitting = {name: value for name, value in found.items() if name in ours and ours[name].shape == value.shape}
    for name, value in fitting.items():
        _check_values(name, value)
    if not any(model.group_of(name) != "classifier" for name in fitting):
        theirs, here = list(state)[:3], [name for name in examples(model) if name not in state][:3]
        raise UserError(
            f"nothing in the weights file fits trunk '{model.spec.trunk}'",
            where="detector.weights",
            allowed=f"names such as {', '.join(here)}",
            hint=f"the file has {len(state)} tensors, such as {', '.join(map(str, theirs))}",
        )
    for what, groups in {f"trunk '{model.spec.trunk}'": ("backbone",), **(whole or {})}.items():
        _check_enough(what, [name for name in ours if model.group_of(name) in groups], fitting)
    model.load_state_dict({**ours, **fitting})
    _say(model, list(ours), fitting)
    return [name for name in ours if name not in fitting]


def _check_enough(what: str, names: Sequence[str], fitting: Mapping[str, Tensor]) -> None:
    """Refuse a file with less than `LEAST` of these."""
    wanted = [name for name in names if not name.endswith(_COUNTER)]
    lacking = [name for name in wanted if name not in fitting]
    there = len(wanted) - len(lacking)
    if there < LEAST * len(wanted):
        raise UserError(
            f"the weights file fits only {there} of the {len(wanted)} tensors of {what}",
            where="detector.weights", allowed=f"a file that has at least {LEAST:.0%} of them, in their shapes",
            hint=f"what it lacks, or has in another shape: {', '.join(lacking[:3])}, ...",
        )  # fmt: skip


def _check_form(name: str, value: Tensor) -> None:
    """Refuse a tensor that no file of weights has: it could not even be sliced."""
    plain = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
    if not plain or value.dtype not in _NUMBERS:
        form = f"{value.dtype}, {value.layout}, on {value.device}"
        raise UserError(f"tensor '{name}' of the weights file is not of real numbers: {form}", where="detector.weights")


def _check_values(name: str, value: Tensor) -> None:
    if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
        what = f"tensor '{name}' of the weights file holds values that are not finite"
        raise UserError(what, where="detector.weights")


def _say(model: Model, names: list[str], fitting: Mapping[str, Tensor]) -> None:
    """How much is from the file, in the job's log; by name it is in train.json."""
    groups: dict[str, list[bool]] = {}
    for name in names:
        if not name.endswith(_COUNTER):
            groups.setdefault(name.partition(".")[0], []).append(name in fitting)
    parts = [f"{group} {sum(there)} of {len(there)}" for group, there in groups.items()]
    print(f"tensors from the weights file: {', '.join(parts)}; the others are as initialised", file=sys.stderr)


def load_file(model: Model, path: str) -> list[str]:
    """Load a .pth of torchvision; the names left as initialised.

    Raises:
        UserError: no such file, not a state dict, or nothing in it fits.
    """
    return load_foreign(model, read_file(path))


def read_file(path: str) -> Mapping[str, Tensor]:
    """The tensors of a .safetensors, or of what torch.save wrote (weights_only=True: no code of it runs).

    Raises:
        UserError: no such file, or not a state dict.
    """
    if not Path(path).is_file():
        raise UserError(f"no file '{path}'", where="detector.weights", hint="a path is read from where you are")
    plain = Path(path).suffix == ".safetensors"
    try:
        state = safetensors.torch.load_file(path) if plain else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises is not bounded: KeyError, IndexError, UnicodeDecodeError
        writer = "safetensors" if plain else "torch.save"
        what = f"cannot read '{path}': damaged, cut short, or not written by {writer} ({type(error).__name__})"
        raise UserError(what, where="detector.weights", allowed="a state dict of tensors") from error
    tensors = isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values())
    if not tensors or not all(isinstance(name, str) for name in state):
        raise UserError(f"'{path}' is not a state dict of tensors", where="detector.weights")
    return dict(state)


def _rename(name: str) -> str:
    for ours, theirs in _PREFIXES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return ""


def to_ours(model: Model, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision state dict under our names."""
    if not any(name.startswith(("backbone.", "roi_heads.")) for name in state):  # an ImageNet classifier
        prefix = model.body_prefix
        return {f"backbone.{name.removeprefix(prefix)}": v for name, v in state.items() if name.startswith(prefix)}
    found: dict[str, Tensor] = {}
    linear = linear_of(model.classifier, model.classifier.head.num_classes + 1)
    current = {_rename(name) for name in model.state_dict()}
    for name, value in state.items():
        if name not in current:
            for old, new in _OLD_NAMES:
                name = old.sub(new, name)
        if name.startswith((_BOXES, _CLASSES)) and not value.dim():
            continue  # those are cut by rows
        if name.startswith(_BOXES):
            own = value if model.class_agnostic else value[4:]
            found["box_regressor." + name.removeprefix(_BOXES)] = own
        elif name.startswith(_CLASSES) and linear is not None:
            found[f"classifier.{linear}{name.removeprefix(_CLASSES)}"] = torch.cat((value[1:], value[:1]))
        for ours, theirs in _PREFIXES.items():
            if name.startswith(theirs):
                found[ours + name.removeprefix(theirs)] = value
    return found


def linear_of(classifier: Classifier, outputs: int) -> str | None:
    """Prefix of the classifier's only linear layer with so many outputs, e.g. "fc."; None where there is none such."""
    shape = (outputs, classifier.head.features)
    names = [
        name
        for name, module in classifier.named_modules()
        if isinstance(module, nn.Linear) and tuple(module.weight.shape) == shape and module.bias is not None
    ]
    return f"{names[0]}." if len(names) == 1 else None
