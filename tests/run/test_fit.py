"""What a recipe may do with a trained model without training it: measure it over a split, and put another classifier
around its own. The recipes here lie outside the tree, as somebody's own would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_suite import SMOKE, Undisturbed, bring, copied, key_of, tiny

from bench.data.split import open_split
from bench.plan import planning
from bench.plan.planning import Plan
from bench.run.checkpoint import read_tensors
from bench.run.model import load_model
from bench.store.store import Store

METHODS = '''
"""NorCal around any classifier, a fit of what it is shown, and a wrapper of which one group learns."""

from pathlib import Path
from typing import ClassVar, Literal

from bench.method import Builder, Method, part
from bench.stage import Stage

PARTS = Path(__file__).resolve().parent / "own_parts.py"


class Calibrated(Method):
    name: ClassVar[str] = "calibrated"
    over: Literal["softmax", "groups", "calibrated"] = "softmax"
    gamma: float = 0.6

    def plan(self, b: Builder) -> Stage:
        base = b.train()
        if self.over == "groups":
            groups = part("group_softmax:GroupSoftmax")
            base = b.train(init=base, keep_classifier=False, classifier=groups, trainable=("classifier",))
        wrapped = self.wrapped(b, base)
        return self.wrapped(b, wrapped) if self.over == "calibrated" else wrapped

    def wrapped(self, b: Builder, model: Stage) -> Stage:
        counts = b.fit(part(f"{PARTS}:Counted", rois="gt"), model=model)
        return b.wrap(model, part(f"{PARTS}:NorCal", counts=counts, gamma=self.gamma))


class Scaled(Method):
    name: ClassVar[str] = "scaled"

    def plan(self, b: Builder) -> Stage:
        wrapped = b.wrap(b.train(), part(f"{PARTS}:Scale"))
        return b.train(init=wrapped, keep_classifier=True, trainable=("scale",))
'''
PARTS = '''
"""A fit part and two wrappers."""

import torch
from torch import nn

from bench.detection.contract import Classifier, build_classifier


class Counted:
    inputs = ("box_features",)

    def __init__(self, head, *, rois="gt"):
        self.head, self.rois = head, rois
        self.seen = []

    def update(self, seen):
        assert seen.taps.box_features.shape == (len(seen.labels_N), self.head.features)
        p, p_bg = seen.classifier.scores(seen.classifier(seen.taps))
        assert p.shape == (len(seen.labels_N), self.head.num_classes)
        self.seen.append(torch.cat((torch.stack((seen.image_N, seen.box_N, seen.labels_N), 1), seen.boxes_N4), 1))

    def result(self):
        rows = torch.cat(self.seen)
        counts = rows[:, 2].long().bincount(minlength=self.head.num_classes)
        return {"rows_N7": rows.double(), "count_C": counts}


class NorCal(Classifier):
    def __init__(self, head, *, inner, counts, gamma):
        super().__init__(head)
        self.inner, self.inputs, self.gamma = build_classifier(inner, head), ("box_features",), gamma
        self.register_buffer("count_C", counts["count_C"].clamp(min=1).float(), persistent=False)

    def forward(self, taps):
        return self.inner(taps)

    def loss(self, z_NK, targets, context):
        return self.inner.loss(z_NK, targets, context)

    def scores(self, z_NK):
        p, p_bg = self.inner.scores(z_NK)
        p = p / self.count_C**self.gamma
        total = p.sum(1, keepdim=True) + p_bg[:, None]
        return p / total, p_bg / total[:, 0]


class Scale(Classifier):
    def __init__(self, head, *, inner):
        super().__init__(head)
        self.inner = build_classifier(inner, head)
        self.scale = nn.Parameter(torch.ones(head.num_classes + 1))

    def forward(self, taps):
        return self.inner(taps) * self.scale

    def loss(self, z_NK, targets, context):
        return self.inner.loss(z_NK, targets, context)

    def scores(self, z_NK):
        return self.inner.scores(z_NK)

    def groups(self):
        return {"scale": ["scale"], "inner": [f"inner.{name}" for name, _ in self.inner.named_parameters()]}
'''
ROWS = """methods_path: {file}
rows:
  baseline:   {{method: baseline}}
  x2:         {{method: x2, schedule: {{steps: 12}}}}
  BAGS:       {{method: bags, beta: 8}}
  flat:       {{method: calibrated, gamma: 0}}
  calibrated: {{method: calibrated}}
  groups:     {{method: calibrated, over: groups}}
  twice:      {{method: calibrated, over: calibrated, gamma: 0.3}}
  scaled:     {{method: scaled}}
"""


@pytest.fixture(scope="module")
def made(smoke: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """The rows above, done over the tiny suite's baseline."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(METHODS)
    (folder / "own_parts.py").write_text(PARTS)
    above = SMOKE.read_text().split("rows:")[0]
    (folder / "own.yaml").write_text(above + ROWS.format(file="own.py"))
    suite = tiny(path=folder / "own.yaml")
    plan = planning.make(suite)
    root = copied(smoke.root, folder / "store", set(plan.stages) & set(smoke.plan.stages))
    outcomes = bring(suite, root)
    assert {key for key in plan.stages if Store(root).done(key) is None} == set(), outcomes
    return plan, root


def fits(plan: Plan, label: str) -> list[str]:
    return [key for key, stage in plan.stages.items() if stage.kind == "fit" and label in plan.needed_by[key]]


def detections(plan: Plan, root: Path, label: str) -> dict[str, torch.Tensor]:
    return read_tensors(Store(root).output(key_of(plan, label, "predict")) / "detections.safetensors")


def test_a_fit_sees_every_true_box_once(made: tuple[Plan, Path]) -> None:
    plan, root = made
    (key,) = fits(plan, "flat")
    split = open_split(Store(root).output(plan.stages[key].inputs["data"].key), None)
    rows_N7 = read_tensors(Store(root).output(key) / "fit.safetensors")["rows_N7"]
    truth = [[i, row, label] for i, labels in enumerate(split.labels) for row, label in enumerate(labels.tolist())]
    assert sorted(rows_N7[:, :3].tolist()) == truth
    for image, row, _, *box in rows_N7.tolist():  # glyph pictures are square
        expected = split.boxes[int(image)][int(row)] / split.images[int(image)].width
        np.testing.assert_allclose(box, expected, rtol=1e-5)


def test_rows_that_need_the_same_fit_share_it(made: tuple[Plan, Path]) -> None:
    plan, _ = made
    assert fits(plan, "flat") == fits(plan, "calibrated")
    assert len(fits(plan, "twice")) == 2


def test_a_wrapper_takes_the_model_s_classifier_and_the_fit_s_result(made: tuple[Plan, Path]) -> None:
    plan, root = made
    store = Store(root)
    base = load_model(store, plan.stages[key_of(plan, "baseline")])
    own = load_model(store, plan.stages[key_of(plan, "calibrated", "patch")])
    for name, value in base.classifier.state_dict().items():
        assert torch.equal(own.classifier.state_dict()[f"inner.{name}"], value)
    z = torch.tensor([[2.0] + [1.0] * 7 + [0.5]])
    p, p_bg = base.classifier.scores(z)
    counts = np.maximum(base.classifier.head.instance_counts, 1)
    expected = p[0].double().numpy() / counts**0.6
    scores, background = own.classifier.scores(z)
    assert background is not None
    assert p_bg is not None
    np.testing.assert_allclose(scores[0].numpy(), expected / (expected.sum() + p_bg.item()), rtol=1e-5)
    assert scores.sum() + background.sum() == pytest.approx(1.0)


def test_a_wrapper_that_changes_nothing_finds_the_same_boxes(made: tuple[Plan, Path]) -> None:
    plan, root = made
    plain, flat = (detections(plan, root, label) for label in ("baseline", "flat"))
    torch.testing.assert_close(flat["scores"], plain["scores"], rtol=1e-5, atol=1e-7)


def test_a_wrapper_holds_any_classifier_and_another_wrapper(made: tuple[Plan, Path]) -> None:
    """Each around the right one: twice gamma 0.3 is gamma 0.6, and the groups' own scores are not those of softmax."""
    plan, root = made
    once, twice, groups = (detections(plan, root, label) for label in ("calibrated", "twice", "groups"))
    torch.testing.assert_close(twice["scores"], once["scores"], rtol=1e-4, atol=1e-6)
    kinds = [type(load_model(Store(root), plan.stages[key_of(plan, label, "patch")]).classifier.inner).__name__  # type: ignore[union-attr]
             for label in ("calibrated", "twice", "groups")]  # fmt: skip
    assert kinds == ["Softmax", "NorCal", "GroupSoftmax"]
    assert len(groups["scores"])


def test_a_group_of_a_classifier_learns_and_the_rest_of_it_is_stored_as_it_was(made: tuple[Plan, Path]) -> None:
    plan, root = made
    state = read_tensors(Store(root).output(key_of(plan, "scaled")) / "model.safetensors")
    base = load_model(Store(root), plan.stages[key_of(plan, "baseline")])
    assert state.keys() == {"classifier.scale", "classifier.inner.fc.weight", "classifier.inner.fc.bias"}
    assert torch.equal(state["classifier.inner.fc.weight"], base.classifier.state_dict()["fc.weight"])
    assert not torch.equal(state["classifier.scale"], torch.ones_like(state["classifier.scale"]))
