"""Our Deformable DETR against Hugging Face's: same weights, same images, same function, match and losses.

Theirs has its own initialisation, class weights, and side of the first boxes (0.05); here both have the same.
Not compared, because theirs differs or has none:

- the losses of the proposals: theirs never trains the first stage;
- memory, and proposals, of cells in the padding, which nothing reads: theirs codes their places otherwise;
- tokens that must not become queries (in the padding, or nearer than 0.01 to the border): theirs lets them, with the
  box of the whole image at its lower right corner, where they score best; here they score low.
"""

from __future__ import annotations

from typing import Any

import detr_oracle as oracle
import pytest
import torch
from torch.nn import functional as F

from bench.detection.contract import Batch, Context, Draws, Taps, Targets
from bench.detection.per_head import PerHead
from bench.engines.detr.detector import DeformableDetr, _focal_score
from bench.engines.detr.matching import Truth, Weights, box_losses, match
from bench.engines.detr.network import decode, padding

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
SIZES = ((128, 160), (96, 128), (128, 64))
PARTS = ((128, 160), (100, 150), (77, 33))  # that no stride divides
LAYERS, QUERIES, C = oracle.LAYERS, oracle.QUERIES, oracle.C


@pytest.fixture(scope="module")
def theirs() -> Any:
    return oracle.theirs()


@pytest.fixture(scope="module")
def ours(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> DeformableDetr:
    path = tmp_path_factory.mktemp("detr") / "pytorch_model.bin"
    torch.save(theirs.state_dict(), path)
    model = oracle.ours(path)
    assert model.fresh == []
    return model.eval()


def answer(theirs: Any, shown: Batch) -> Any:
    mask, targets = oracle.pixel_mask(shown), oracle.their_targets(shown)
    return theirs(pixel_values=shown.images, pixel_mask=mask, labels=targets)


@pytest.mark.parametrize("sizes", [SIZES, PARTS, (oracle.FRAME,)], ids=["padding", "parts", "no_padding"])
@torch.no_grad()
def test_every_part_of_the_network(theirs: Any, ours: DeformableDetr, sizes: tuple[tuple[int, int], ...]) -> None:
    """Projected maps, memory, proposals, and states, boxes and logits of every decoder layer."""
    shown, projected = oracle.batch(*sizes), []
    hooks = [p.register_forward_hook(lambda _, __, found: projected.append(found)) for p in theirs.model.input_proj]
    expected = answer(theirs, shown)
    for hook in hooks:
        hook.remove()

    maps = ours.maps(shown.images)
    for mine, other in zip(maps.values(), projected, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)

    memory = ours._memory(shown, maps)
    real = (
        torch.ones(memory.tokens_BTD.shape[:2], dtype=torch.bool) if memory.padding_BT is None else ~memory.padding_BT
    )
    torch.testing.assert_close(memory.tokens_BTD[real], expected.encoder_last_hidden_state[real], **CLOSE)

    tokens, boxes, legal = ours.proposals(memory)
    first = expected.enc_outputs_class[..., 0]
    assert torch.equal(legal, expected.enc_outputs_coord_logits.isfinite().all(dim=-1))
    assert first[legal].std() > 0.5
    assert (first.topk(QUERIES).values[:, -1] > oracle.LOW + 1).all(), "a token that must not become a query does"
    torch.testing.assert_close(ours.objectness(tokens)[..., 0][legal], first[legal], **CLOSE)
    torch.testing.assert_close(boxes[legal], expected.enc_outputs_coord_logits[legal].sigmoid(), **CLOSE)

    out = ours.train_forward(shown, Draws(0, 0, 0), trunk_losses=False)
    start = ours._best(ours.objectness(tokens)[..., 0].masked_fill(~legal, -1e4), boxes)
    found = decode(ours.decoder, ours.box_regressor, ours.proposals, memory, start)
    torch.testing.assert_close(start, expected.init_reference_points, **CLOSE)
    torch.testing.assert_close(found.hidden_LBQD.transpose(0, 1), expected.intermediate_hidden_states, **CLOSE)
    torch.testing.assert_close(found.boxes_LBQ4.transpose(0, 1), expected.intermediate_reference_points, **CLOSE)
    assert out.pending is not None
    torch.testing.assert_close(out.pending.boxes_LBQ4, found.boxes_LBQ4, **CLOSE)

    layers = [*expected.auxiliary_outputs, {"logits": expected.logits, "pred_boxes": expected.pred_boxes}]
    z_BLQC = ours.classifier(out.taps).view(len(sizes), LAYERS, QUERIES, C)
    for k, of_layer in enumerate(layers):
        torch.testing.assert_close(z_BLQC[:, k], of_layer["logits"], **CLOSE)
        torch.testing.assert_close(out.pending.boxes_LBQ4[k], of_layer["pred_boxes"], **CLOSE)
    assert len(layers) == LAYERS


def test_losses_and_gradients_of_a_step(theirs: Any, ours: DeformableDetr) -> None:
    """The sum over all decoder layers of class, L1 and generalised IoU, each with its weight."""
    shown = oracle.batch(*SIZES)
    theirs.zero_grad()
    ours.zero_grad()
    expected = answer(theirs, shown)
    expected.loss.backward()
    out = ours.train_forward(shown, Draws(0, 0, 0), trunk_losses=True)
    found = ours.assign(out, lambda: ours.classifier.scores(ours.classifier(out.taps))[0].detach())
    context = Context(0, 0.0, torch.Generator())
    own = ours.classifier.loss(ours.classifier(found.taps), found.targets, context)
    mine = {"ce": own["classification"], "bbox": found.losses["loss_box_l1"], "giou": found.losses["loss_box_giou"]}
    for name, weight in (("ce", 1.0), ("bbox", 5.0), ("giou", 2.0)):
        parts = [value for key, value in expected.loss_dict.items() if key.startswith(f"loss_{name}")]
        assert len(parts) == LAYERS
        torch.testing.assert_close(mine[name], weight * torch.stack(parts).sum(), **CLOSE)
    torch.stack(list(mine.values())).sum().backward()
    for name, other in (
        ("input_proj.levels.2.0.weight", "model.input_proj.2.0.weight"),
        ("encoder.level_code", "model.level_embed"),
        ("encoder.layers.0.attention.offsets.weight", "model.encoder.layers.0.self_attn.sampling_offsets.weight"),
        ("encoder.layers.1.feed.up.weight", "model.encoder.layers.1.mlp.fc1.weight"),
        ("decoder.0.attention.weights.weight", "model.decoder.layers.0.encoder_attn.attention_weights.weight"),
        ("decoder.1.attention.value.weight", "model.decoder.layers.1.encoder_attn.value_proj.weight"),
        ("decoder.0.among.out_proj.weight", "model.decoder.layers.0.self_attn.o_proj.weight"),
        ("proposals.query.0.weight", "model.pos_trans.weight"),
        ("box_regressor.0.4.weight", "bbox_embed.0.layers.2.weight"),
        ("classifier.heads.1.fc.weight", "class_embed.1.weight"),
    ):
        wanted, got = theirs.get_parameter(other).grad, ours.get_parameter(name).grad
        assert wanted is not None, other
        assert got is not None, name
        size = float(wanted.abs().max())
        assert size > 1e-3, f"{name}: the comparison says nothing"
        torch.testing.assert_close(got / size, wanted / size, atol=1e-5, rtol=0.0)
    assert theirs.model.enc_output.weight.grad is None, "theirs trains its first stage: compare those losses too"


@pytest.mark.parametrize("seed", range(5))
def test_the_match_and_the_losses_of_any_outputs(theirs: Any, ours: DeformableDetr, seed: int) -> None:
    """Their matcher and their criterion on drawn logits and boxes; an image without objects among them."""
    draw = torch.Generator().manual_seed(seed)
    counts = (3, 0, 7)
    B = len(counts)
    z_LBQC = 2 * torch.randn(LAYERS, B, QUERIES, C, generator=draw) - 2
    boxes_LBQ4 = _boxes(draw, LAYERS, B, QUERIES)
    labels = [torch.randint(C, (n,), generator=draw) for n in counts]
    boxes = [_boxes(draw, n) for n in counts]
    targets = [{"class_labels": of, "boxes": where} for of, where in zip(labels, boxes, strict=True)]
    truth = Truth(boxes, labels, [torch.zeros(n, dtype=torch.bool) for n in counts])

    from transformers.loss import loss_deformable_detr as loss

    pairs = match(_focal_score(z_LBQC.sigmoid()), boxes_LBQ4, truth, ours.cost)
    matcher = loss.DeformableDetrHungarianMatcher(oracle.CLASS_COST, 5, 2)
    wanted = {
        (k, b, int(q), int(g))
        for k in range(LAYERS)
        for b, of in enumerate(matcher({"logits": z_LBQC[k], "pred_boxes": boxes_LBQ4[k]}, targets))
        for q, g in zip(*of, strict=True)
    }
    got = torch.stack((pairs.layer, pairs.image, pairs.query, pairs.box), dim=1).tolist()
    assert {tuple(row) for row in got} == wanted
    assert len(got) == LAYERS * sum(counts)

    _, expected, _ = loss.DeformableDetrForObjectDetectionLoss(
        z_LBQC[-1], targets, z_LBQC.device, boxes_LBQ4[-1], theirs.config, z_LBQC, boxes_LBQ4
    )
    mine = box_losses(boxes_LBQ4, truth, pairs, Weights(1.0, 1.0, 1.0), "box")
    labels_LBQ = torch.full((LAYERS, B, QUERIES), C)
    labels_LBQ[pairs.layer, pairs.image, pairs.query] = truth.flat_labels(pairs)
    context = Context(0, 0.0, torch.Generator())
    assert isinstance(ours.classifier, PerHead)
    for k, one in enumerate(ours.classifier.every):
        end = "" if k == LAYERS - 1 else f"_{k}"
        image_N = torch.arange(B).repeat_interleave(QUERIES)
        own = Targets(labels_LBQ[k].flatten(), image_N, [], [], Taps(torch.zeros(B * QUERIES, oracle.WIDTH)))
        found = one.loss(z_LBQC[k].flatten(0, 1), own, context)["classification"]
        torch.testing.assert_close(found, expected[f"loss_ce{end}"], **CLOSE)
    for name, key in (("box_l1", "loss_bbox"), ("box_giou", "loss_giou")):
        both = torch.stack([value for found, value in expected.items() if found.startswith(key)])
        torch.testing.assert_close(mine[name], both.sum(), **CLOSE)


def _boxes(draw: torch.Generator, *shape: int) -> torch.Tensor:
    """cx cy w h inside the image."""
    side = 0.05 + 0.4 * torch.rand(*shape, 2, generator=draw)
    return torch.cat((side / 2 + (1 - side) * torch.rand(*shape, 2, generator=draw), side), dim=-1)


@pytest.mark.parametrize("sizes", [SIZES, PARTS, ((128, 160), (10, 160))], ids=["whole", "parts", "narrow"])
def test_which_cells_are_padding(sizes: tuple[tuple[int, int], ...]) -> None:
    """Those whose first pixel is; of a narrow image each level has a cell."""
    shown, frame = oracle.batch(*sizes), oracle.FRAME
    shapes = [(frame[0] // stride, frame[1] // stride) for stride in (8, 16, 32)]
    mine, valid = padding(shapes, shown.sizes, frame, torch.device("cpu"))
    assert mine is not None
    mask = oracle.pixel_mask(shown)[None].float()
    other = torch.cat([~F.interpolate(mask, size=shape)[0].bool().flatten(1) for shape in shapes], dim=1)
    assert torch.equal(mine, other)
    assert valid.min() > 0
