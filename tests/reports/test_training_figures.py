"""Figures of the trainings below a row: counts by class, and the share of losses beside the detector's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.spec import Figure
from bench.store.store import Store
from reports.figures.kinds import KINDS, draw
from reports.figures.scene import Scene
from reports.figures.training import class_counts, embeddings, loss_shares, share
from reports.load import NEED_TRAININGS, load
from reports.trainings import Training, trainings
from tests.reports.made_records import made
from tests.tiny_suite import STEPS, Undisturbed, key_of

BASE = Training(1, (4, 100, 20), {10: {"loss_box_reg": 1.0, "classification": 2.0, "loss": 3.0}}, False)
EXPERT = Training(2, (2, 50, 5), {5: {"loss_box_reg": 0.5, "classification": 1.0, "loss": 1.5}}, False)
UNIFIED = Training(
    3,
    (4, 10, 20),
    {
        5: {"loss_box_reg": 0.5, "classification": 1.5, "imitation": 0.5, "transfer": 1.0, "loss": 3.5},
        10: {"loss_box_reg": 0.5, "classification": 0.5, "imitation": 0.25, "transfer": 0.0, "loss": 1.25},
    },
    True,
)
CHAIN = (BASE, EXPERT, UNIFIED)
NOTHING = Scene([])  # around them


def test_the_counts_of_what_each_training_learns_from() -> None:
    drawing = class_counts(NOTHING, {"base": (BASE,), "step-wise": CHAIN})
    assert drawing is not None
    by_training = {name: [line[-1] for line in drawing.lines if line[1] == name] for _, name, *_ in drawing.lines}
    # Classes by falling instances in the whole set: 1 (100), 2 (20), 0 (4).
    assert by_training == {"training 1": [100, 20, 4], "training 2": [50, 5, 2], "training 3": [10, 20, 4]}
    assert {line[0] for line in drawing.lines} == {"step-wise"}  # the base learns from all: nothing to show
    (axes,) = drawing.figure.axes
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert labels == ["all training images", "training 2", "training 3"]
    assert axes.get_yscale() == "symlog"
    assert all(tick == int(tick) for tick in axes.get_xticks())  # a rank is a whole number
    assert class_counts(NOTHING, {"base": (BASE,)}) is None


def test_the_share_of_a_loss_is_of_the_detector_s_sum() -> None:
    usual = {"loss_box_reg", "classification", "loss"}
    assert share(UNIFIED.curve, "imitation", usual) == [(5, 0.25), (10, 0.25)]
    drawing = loss_shares(NOTHING, {"base": (BASE,), "step-wise": CHAIN})
    assert drawing is not None
    assert drawing.lines == (
        ("step-wise", "training 3", "imitation", 5, 0.25), ("step-wise", "training 3", "imitation", 10, 0.25),
        ("step-wise", "training 3", "transfer", 5, 0.5), ("step-wise", "training 3", "transfer", 10, 0.0),
    )  # fmt: skip
    assert loss_shares(NOTHING, {"base": (BASE,), "expert": (BASE, EXPERT)}) is None


PRETRAINING = Training(
    1,
    (4, 100, 20),
    {
        4: {"holistic": 3.0, "local": 1.0, "loss": 4.0, "shown/local_alignment": 0.5, "shown/local_uniformity": -1.0,
            "shown/momentum": 0.99},
        8: {"holistic": 1.0, "local": 1.0, "loss": 2.0, "shown/local_alignment": 0.25, "shown/local_uniformity": -2.0,
            "shown/momentum": 1.0},
    },
    True,
)  # fmt: skip
DETECTOR = Training(2, (4, 100, 20), BASE.curve, False)


def test_a_pre_training_has_shares_of_all_its_losses_and_none_of_what_is_shown() -> None:
    drawing = loss_shares(NOTHING, {"2DRCL": (PRETRAINING, DETECTOR), "step-wise": CHAIN})
    assert drawing is not None
    of = {line[2:4]: line[-1] for line in drawing.lines if line[0] == "2DRCL"}
    assert of == {("holistic", 4): 0.75, ("holistic", 8): 0.5, ("local", 4): 0.25, ("local", 8): 0.5}
    (axes,) = drawing.figure.axes
    assert axes.get_ylabel().endswith("(pre-training: of all)")


def test_the_embeddings_of_a_pre_training() -> None:
    drawing = embeddings(NOTHING, {"2DRCL": (PRETRAINING, DETECTOR), "step-wise": CHAIN})
    assert drawing is not None
    assert drawing.lines == (
        ("2DRCL", "training 1", "local_alignment", 4, 0.5), ("2DRCL", "training 1", "local_alignment", 8, 0.25),
        ("2DRCL", "training 1", "local_uniformity", 4, -1.0), ("2DRCL", "training 1", "local_uniformity", 8, -2.0),
    )  # fmt: skip
    assert [len(axes.lines) for axes in drawing.figure.axes] == [1, 1]
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()] == ["2DRCL: local"]
    assert embeddings(NOTHING, {"step-wise": CHAIN}) is None


def test_trainings_of_a_store(smoke: Undisturbed) -> None:
    store = Store(smoke.root)
    model = smoke.plan.stages[key_of(smoke.plan, "x2")]
    first, second = trainings(store, model)
    counts = json.loads((store.output(model.inputs["train"].key) / "counts.json").read_text())["instances"]
    assert first.counts == second.counts == tuple(counts)
    assert (first.number, second.number, first.beside) == (1, 2, False)
    assert list(first.curve) == list(range(1, STEPS + 1))
    assert {"loss", "classification", "loss_box_reg"} <= first.curve[1].keys()
    assert "lr" not in first.curve[1]


@pytest.mark.parametrize("kind", ["counts", "losses"])
def test_rows_without_them_say_why_there_is_no_figure(kind: str, smoke: Undisturbed, tmp_path: Path) -> None:
    rows = load(Store(smoke.root), smoke.plan)
    wanted = [Figure.model_validate({"kind": kind, "rows": ["baseline"]})]
    written, lacking = draw(rows, tmp_path, wanted, suite="smoke")
    assert written == []
    why = {"counts": "trained on chosen annotations", "losses": "a loss beside the detector's"}[kind]
    assert why in lacking[0]


class Asked(tuple[Training, ...]):
    """A row's trainings, which know whether anybody looked at them."""

    seen = False

    def __iter__(self) -> Iterator[Training]:
        self.seen = True
        return super().__iter__()


def test_whoever_draws_trainings_gets_them_read() -> None:
    asking = set()
    for name, kind in KINDS.items():
        chains = [Asked(CHAIN), Asked(CHAIN)]
        rows = [replace(made(f"row {i}", AP=1.0, AP1=1.0), trainings=chain) for i, chain in enumerate(chains)]
        kind.draw(Scene(rows), Figure.model_validate({"kind": name, "x": "x" if name == "sweep" else None}), ())
        if any(chain.seen for chain in chains):
            asking.add(name)
    assert asking == NEED_TRAININGS
