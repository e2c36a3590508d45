"""Checks of what comes out: detections, scores, and batches at the edge. Separate because they run no stage again.

Shape legend: N RoIs, D features, K raw outputs, C foreground classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench import spec as specs
from bench.contract_check.subject import Broken, Subject
from bench.data.loader import eval_batch, eval_batches
from bench.data.split import Split, open_split
from bench.detection.contract import Classifier, Context, HeadSpec, Taps, Targets
from bench.detection.per_head import PerHead
from bench.evaluation.stored import DETECTIONS, PROPOSALS
from bench.run.checkpoint import read_tensors
from bench.run.model import load_model

PIXEL = 1e-3  # boxes are float32 and were divided by the image's scale
LARGE = 1000.0  # features that make a classifier of four steps as sure as one that was trained to the end
FIX_SCORES = "`scores` returns probabilities: p_NC in [0, 1] without the background, and p_bg_N or None"


def predicts_well_formed(subject: Subject) -> str | None:
    """Detections obey the protocol, and scores are scores."""
    subject.ran()
    place, predict = subject.place, subject.result.inputs["predict"]
    split = open_split(place.store.output(predict.inputs["val"].key), None)
    found = {n: t.numpy() for n, t in read_tensors(place.store.output(predict.key) / DETECTIONS).items()}
    check_detections(found, split, specs.Inference.model_validate(predict.spec["test"]).kept)
    decided = read_tensors(place.store.output(predict.key) / PROPOSALS)["predicted"]
    C = split.num_classes
    if len(decided) and (int(decided.min()) < -1 or int(decided.max()) > C):
        raise Broken("a proposal is decided for a class that there is not", FIX_SCORES)
    detector = load_model(place.store, subject.model)
    detector.eval()
    section = specs.Input.model_validate(predict.spec["input"])
    batch = eval_batch(split, section, eval_batches(split, section, 4)[0])
    with torch.inference_mode():
        taps = detector.predict_forward(batch).taps
        for seen in (taps, made_taps(detector.classifier.head, 64, size=LARGE)):
            p_NC, p_bg_N = detector.classifier.scores(detector.classifier(seen).float())
            _check_scores(p_NC, p_bg_N, len(seen.box_features), C)
    return None if p_bg_N is not None else "no background score: its ACC is '-'"


def stands_edge_batches(subject: Subject) -> str | None:
    """No foreground among the RoIs: a finite loss and finite gradients; no RoI at all: scores of shape (0, C)."""
    subject.ran()
    place = subject.place
    for stage in subject.own_trainings:
        _check_background_loss(load_model(place.store, stage).classifier)
    classifier = load_model(place.store, subject.model).classifier
    C = classifier.head.num_classes
    classifier.eval()
    with torch.inference_mode():
        try:
            p_NC, p_bg_N = classifier.scores(classifier(made_taps(classifier.head, 0)))
        except Exception as error:
            raise Broken(f"scores of 0 RoIs: {type(error).__name__}: {error}", _EMPTY) from error
    if tuple(p_NC.shape) != (0, C) or (p_bg_N is not None and tuple(p_bg_N.shape) != (0,)):
        raise Broken(f"scores of 0 RoIs have shape {tuple(p_NC.shape)} and not (0, {C})", _EMPTY)
    return None


_EMPTY = "an image can be without proposals: let `forward` and `scores` work on tensors of 0 rows"


def made_taps(head: HeadSpec, rois: int, size: float = 1.0, heads: int = 0, *, alone: bool = False) -> Taps:
    """Taps of RoIs that no image has, of standard deviation `size`: the same numbers every time. `heads`: the rows
    belong to so many in turn. `alone`: a RoI has one feature, of `size`; a classifier of few steps, for which the mean
    of the features is background, says other classes too."""
    generator = torch.Generator().manual_seed(rois)
    before_ND = size * torch.randn((rois, head.features), generator=generator)
    map_N = size * torch.randn((rois, *head.roi_shape), generator=generator)
    if alone:
        before_ND = size * torch.eye(head.features)[torch.arange(rois) % head.features]
    return Taps(before_ND.relu(), before_ND, map_N, torch.arange(rois) % heads if heads else None)


def _check_background_loss(classifier: Classifier) -> None:
    classifier.train()
    N, C = 6, classifier.head.num_classes
    heads = len(classifier.every) if isinstance(classifier, PerHead) else 0
    taps, none = made_taps(classifier.head, N, heads=heads), torch.zeros(0, dtype=torch.int64)
    targets = Targets(
        torch.full((N,), C), torch.tensor([0, 0, 0, 1, 1, 1]), [none, none], [torch.arange(C), none], taps
    )
    losses = classifier.loss(classifier(taps), targets, Context(0, 0.0, torch.Generator().manual_seed(0)))
    for name, value in losses.items():
        if value.numel() != 1 or not bool(torch.isfinite(value).all()):
            raise Broken(
                f"loss '{name}' of a batch without foreground is {value.detach().tolist()}",
                "return scalars, and divide by max(count, 1)",
            )
    total = torch.stack([value.float().reshape(()) for value in losses.values()]).sum()
    if not total.requires_grad:
        return
    total.backward()  # type: ignore[no-untyped-call]
    for name, parameter in classifier.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            raise Broken(
                f"a batch without foreground gives {name} a gradient that is not finite",
                "0 * inf and sqrt(0) have no gradient: clamp before the operation, not after it",
            )


def check_detections(found: dict[str, np.ndarray], split: Split, most: int) -> None:
    image, boxes, scores, labels = (found[name] for name in ("image", "boxes", "scores", "labels"))
    if len(image) == 0:
        raise Broken("there is no detection at all", "are the scores above the threshold?")
    if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
        raise Broken("a detection is not finite", FIX_SCORES)
    if scores.min() < 0 or scores.max() > 1:
        raise Broken(f"detections score between {scores.min():.4g} and {scores.max():.4g}", FIX_SCORES)
    if labels.min() < 0 or labels.max() >= split.num_classes:
        raise Broken(f"labels between {labels.min()} and {labels.max()}", f"0 to {split.num_classes - 1} are classes")
    if image.min() < 0 or image.max() >= len(split):
        raise Broken("a detection lies in an image that there is not")
    limit = np.array([(i.width, i.height) for i in split.images], np.float32)[image]
    x1, y1, x2, y2 = boxes.T
    if (np.minimum(x1, y1) < -PIXEL).any() or (x2 > limit[:, 0] + PIXEL).any() or (y2 > limit[:, 1] + PIXEL).any():
        raise Broken("a box leaves its image", "the engine clips boxes before they are stored")
    if (x1 >= x2).any() or (y1 >= y2).any():
        raise Broken("a box has no area", "the engine drops boxes without area")
    if np.bincount(image).max() > most:
        raise Broken(f"an image has {np.bincount(image).max()} detections and not at most {most}")
    same = image[1:] == image[:-1]
    if (image[1:] < image[:-1]).any() or (scores[1:] > scores[:-1])[same].any():
        raise Broken("detections are not sorted by image and falling score")


def _check_scores(p_NC: Tensor, p_bg_N: Tensor | None, N: int, C: int) -> None:
    if tuple(p_NC.shape) != (N, C):
        raise Broken(f"scores of {N} RoIs and {C} classes have shape {tuple(p_NC.shape)}", FIX_SCORES)
    if p_bg_N is not None and tuple(p_bg_N.shape) != (N,):
        raise Broken(f"background scores of {N} RoIs have shape {tuple(p_bg_N.shape)}", FIX_SCORES)
    for name, p in (("scores", p_NC), ("background scores", p_bg_N)):
        if p is not None and not bool(((p >= 0) & (p <= 1)).all()):  # NaN is neither
            raise Broken(f"{name} lie between {float(p.min()):.4g} and {float(p.max()):.4g}", FIX_SCORES)
