"""Weight files of Hugging Face's Deformable DETR under our names. Separate because nothing else here knows those names.

Theirs: `model.backbone.` (a ResNet of their own, or timm's, which has torchvision's names), `model.input_proj.`,
`model.encoder.layers.`, `model.decoder.layers.`; heads `class_embed.` and `bbox_embed.`, also below `model.decoder.`:
one for each decoder layer and, with two stages, one more for the proposals. Files have `conv_encoder`, `out_proj` and
`fc1` where models of the package's version 5 have nothing, `o_proj` and `mlp.fc1`; both are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from bench.detection.per_head import PerHead
from bench.engines.torchvision.weights import Model, linear_of, load_named, read_file, to_ours
from bench.errors import UserError

_LAYER = r"layers\.(\d{1,3})\."
_NAMES = tuple(
    (re.compile(f"^{theirs}"), ours)
    for theirs, ours in (
        (r"model\.level_embed$", "encoder.level_code"),
        (r"model\.input_proj\.", "input_proj.levels."),
        (r"model\.enc_output\.", "proposals.memory.0."),
        (r"model\.enc_output_norm\.", "proposals.memory.1."),
        (r"model\.pos_trans\.", "proposals.query.0."),
        (r"model\.pos_trans_norm\.", "proposals.query.1."),
        (rf"model\.encoder\.{_LAYER}self_attn\.", r"encoder.layers.\1.attention."),
        (rf"model\.encoder\.{_LAYER}self_attn_layer_norm\.", r"encoder.layers.\1.norm."),
        (rf"model\.encoder\.{_LAYER}", r"encoder.layers.\1."),
        (rf"model\.decoder\.{_LAYER}self_attn\.(?:out|o)_proj\.", r"decoder.\1.among.out_proj."),
        (rf"model\.decoder\.{_LAYER}self_attn_layer_norm\.", r"decoder.\1.among_norm."),
        (rf"model\.decoder\.{_LAYER}encoder_attn\.", r"decoder.\1.attention."),
        (rf"model\.decoder\.{_LAYER}encoder_attn_layer_norm\.", r"decoder.\1.norm."),
        (rf"model\.decoder\.{_LAYER}", r"decoder.\1."),
    )
)
# Inside a layer, after the names above.
_PARTS = tuple(
    (re.compile(rf"\.{theirs}\.(weight|bias)$"), rf".{ours}.\1")
    for theirs, ours in (
        ("sampling_offsets", "offsets"),
        ("attention_weights", "weights"),
        ("value_proj", "value"),
        ("output_proj", "output"),
        (r"(?:mlp\.)?fc1", "feed.up"),
        (r"(?:mlp\.)?fc2", "feed.down"),
        ("final_layer_norm", "feed.norm"),
    )
)
_DECODER = re.compile(rf"^model\.decoder\.{_LAYER}")
_AMONG = re.compile(rf"^(model\.decoder\.{_LAYER}self_attn\.)q_proj\.(weight|bias)$")
_CLASSES = re.compile(r"^(?:model\.decoder\.)?class_embed\.(\d{1,3})\.(weight|bias)$")
_BOXES = re.compile(r"^(?:model\.decoder\.)?bbox_embed\.(\d{1,3})\.layers\.([012])\.(weight|bias)$")
_BACKBONE = re.compile(r"^model\.backbone\.(?:conv_encoder\.)?model\.")
_STEM = "embedder.embedder."
_BLOCK = re.compile(
    r"^encoder\.stages\.(\d)\.layers\.(\d+)\.(?:layer\.(\d)|shortcut)\.(convolution|normalization)\.(\w+)$"
)
_SIGN = "sampling_offsets.weight"  # only deformable attention has it
_WHOLE = {"encoder and decoder": ("encoder", "decoder", "offsets")}


def load_file(model: Model, path: str) -> list[str]:
    """Load a file of Hugging Face's Deformable DETR, or a backbone under torchvision's names; the names left as
    initialised.

    Raises:
        UserError: no such file, not a state dict, or too little in it fits.
    """
    return load_state(model, read_file(path))


def load_state(model: Model, state: Mapping[str, Tensor]) -> list[str]:
    """As `load_file`, of tensors by name.

    Raises:
        UserError: another network's; or see `load_named`.
    """
    if not any(name.startswith("model.") for name in state):
        return load_named(model, state, to_ours, _examples)
    if not any(name.endswith(_SIGN) for name in state):
        raise UserError(
            "the weights file is of another network than Deformable DETR", where="detector.weights",
            allowed=f"a file with names such as {_examples(model)[-1]}",
            hint=f"the file has {len(state)} tensors, such as {', '.join(list(state)[:3])}",
        )  # fmt: skip
    return load_named(model, state, from_huggingface, _examples, _WHOLE)


def from_huggingface(model: Model, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a Deformable DETR of Hugging Face under our names; what we have no place for is left out.

    Its proposals are scored by channel 0 of a classifier of their own, which becomes our objectness. Box heads are read
    from networks of two stages only: without them, those of the first layer mean something else.
    """
    layers = 1 + max((int(found[1]) for found in map(_DECODER.match, state) if found), default=-1)
    two_stage = any(name.startswith("model.enc_output.") for name in state)
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if in_backbone := _BACKBONE.match(name):
            found[f"backbone.{_in_torchvision(name[in_backbone.end() :])}"] = value
        elif asked := _AMONG.match(name):
            prefix, layer, part = asked.groups()
            found |= {f"decoder.{int(layer)}.among.in_proj_{part}": one for one in _joined(state, prefix, part)}
        elif of_class := _CLASSES.match(name):
            found |= _of_class(model, int(of_class[1]), layers, two_stage, of_class[2], value)
        elif of_box := _BOXES.match(name):
            k, inner, part = int(of_box[1]), 2 * int(of_box[2]), of_box[3]
            if two_stage and k <= layers:
                found[f"{'proposals.box' if k == layers else f'box_regressor.{k}'}.{inner}.{part}"] = value
        else:
            found[_renamed(name)] = value
    return found


def _of_class(model: Model, k: int, layers: int, two_stage: bool, part: str, value: Tensor) -> dict[str, Tensor]:
    """A classifier of the file: that of decoder layer k, or after the last that of the proposals.

    It has C outputs, or C + 1, which then are numbered by ids that begin with 1: the first is nobody's.
    """
    if not value.dim():
        return {}
    if k == layers:
        return {f"objectness.{part}": value[:1]} if two_stage else {}
    every = model.classifier.every if isinstance(model.classifier, PerHead) else [model.classifier]
    if k >= len(every):
        return {}
    C = every[k].head.num_classes
    linear = linear_of(every[k], C)
    if linear is None:
        return {}
    prefix = f"classifier.heads.{k}." if isinstance(model.classifier, PerHead) else "classifier."
    return {f"{prefix}{linear}{part}": value[1:] if len(value) == C + 1 else value}


def _joined(state: Mapping[str, Tensor], prefix: str, part: str) -> list[Tensor]:
    """Projections of queries, keys and values as one; none where they do not go together."""
    three = [state.get(f"{prefix}{which}_proj.{part}") for which in "qkv"]
    known = [one for one in three if one is not None]
    fits = len(known) == 3 and known[0].dim() and len({one.shape for one in known}) == 1
    return [torch.cat(known)] if fits else []


def _renamed(name: str) -> str:
    for theirs, ours in _NAMES:
        if theirs.match(name):
            name = theirs.sub(ours, name)
            break
    for theirs, ours in _PARTS:
        name = theirs.sub(ours, name)
    return name


def _in_torchvision(name: str) -> str:
    """A name of Hugging Face's ResNet as torchvision has it; timm has it so already."""
    if name.startswith(_STEM):
        return name.removeprefix(_STEM).replace("convolution.", "conv1.").replace("normalization.", "bn1.")
    block = _BLOCK.match(name)
    if block is None:
        return name
    stage, number, layer, kind, part = block.groups()
    convolution = kind == "convolution"
    if layer is None:
        inner = "downsample.0" if convolution else "downsample.1"
    else:
        inner = f"{'conv' if convolution else 'bn'}{int(layer) + 1}"
    return f"layer{int(stage) + 1}.{number}.{inner}.{part}"


def _examples(model: Model) -> list[str]:
    """Names of files that fit: two of a backbone, one of the whole."""
    body = [name.removeprefix("backbone.") for name in model.state_dict() if name.startswith("backbone.")]
    return [*(model.body_prefix + name for name in body[:2]), f"model.encoder.layers.0.self_attn.{_SIGN}"]
