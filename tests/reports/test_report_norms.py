"""Weight norms over classes sorted by training instances, read back from their Axes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from made_records import COUNTS, made

from reports.figures.canvas import save
from reports.figures.norms import default_rows, weight_norms
from reports.figures.scene import Scene
from reports.load import RowResult

NORMS = {"baseline": [0.4, 1.5, 0.7, 1.1, 0.3, 1.0, 2.0], "BAGS": [0.8, 0.9, 0.8, 0.9, 0.8, 0.9, 1.2]}


def results() -> list[RowResult]:
    return [made(label, seed, norms=NORMS.get(label), AP=1.0) for label in (*NORMS, "NCM-fc") for seed in (0, 1)]


def test_norms_are_sorted_by_descending_instances_with_background_first(tmp_path: Path) -> None:
    drawing = weight_norms(Scene(results()))
    assert drawing is not None
    with save(drawing, tmp_path / "norms")[-1].open() as file:
        lines = [line for line in csv.DictReader(file) if line["row"] == "baseline"]
    assert [line["rank"] for line in lines] == [str(i) for i in range(7)]
    assert (lines[0]["class"], lines[0]["instances"], lines[0]["norm"]) == ("background", "", "2")
    assert [int(line["instances"]) for line in lines[1:]] == sorted(COUNTS, reverse=True)
    assert [float(line["norm"]) for line in lines[1:]] == [1.5, 1.1, 1.0, 0.7, 0.4, 0.3]
    assert [float(line["relative_rank"]) for line in lines[1:]] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert "".join(line["class"] for line in lines[1:]) == "bdfcae"


def test_a_line_a_row_and_the_bin_edges() -> None:
    drawing = weight_norms(Scene(results()))
    assert drawing is not None
    (axes,) = drawing.figure.axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert [label.split(",")[0] for label in lines] == ["baseline", "BAGS"]  # NCM-fc has no weights
    first = next(iter(lines.values()))
    assert list(first.get_ydata()) == [1.5, 1.1, 1.0, 0.7, 0.4, 0.3]
    assert list(first.get_xdata()) == [1, 2, 3, 4, 5, 6]
    marks = [list(line.get_ydata()) for line in axes.lines if list(line.get_xdata()) == [0]]
    assert marks == [[2.0], [1.2]]
    edges = [
        line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--" and line.get_xdata()[0] % 1 == 0.5
    ]
    assert edges == [1.5, 3.5, 4.5]  # 1 class with 1000+, 2 with 100-999, 1 with 10-99, 2 with 1-9
    assert [text.get_text() for text in axes.texts] == ["1000+", "100-999", "10-99", "1-9"]
    assert "norm" in axes.get_ylabel()


def test_spearman_by_hand_and_where_it_is_not_defined() -> None:
    # counts 5 2000 50 300 1 150 have ranks 2 6 3 5 1 4; norms .4 1.5 1.1 .7 .3 1. have 2 6 5 3 1 4:
    # d^2 = 4 + 4, rho = 1 - 6 * 8 / (6 * 35)
    swapped = made("swapped", norms=[0.4, 1.5, 1.1, 0.7, 0.3, 1.0, 2.0])
    flat = made("flat", norms=NORMS["baseline"], counts=(7,) * 6)
    drawing = weight_norms(Scene([swapped, flat]))
    assert drawing is not None
    found = {line[0]: line[-1] for line in drawing.lines}
    assert found == {"swapped": pytest.approx(1 - 48 / 210), "flat": None}
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert [label.split()[-1] for label in legend] == ["0.77", "-"]
    assert "bins of swapped" in drawing.figure.axes[0].get_xlabel()  # flat's counts have other edges


def test_rows_with_other_class_counts_are_stretched_onto_one_axis() -> None:
    few = made("few", counts=(5000, 100, 10), norms=[3.0, 2.0, 1.0, 0.5])
    drawing = weight_norms(Scene([made("many", norms=NORMS["baseline"]), few]))
    assert drawing is not None
    (axes,) = drawing.figure.axes
    many, three = (line for line in axes.lines if not line.get_label().startswith("_"))
    assert list(many.get_xdata()) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert list(three.get_xdata()) == [0, 0.5, 1]
    assert list(three.get_ydata()) == [3.0, 2.0, 1.0]
    edges = [line.get_xdata()[0] for line in axes.lines if line.get_color() == "0.45"]
    assert edges == pytest.approx([0.1, 0.5, 0.7])  # of the row named first: behind ranks 1, 3 and 4 of 6
    assert axes.get_xlabel().startswith("relative rank")
    assert "6 and 3 classes" in axes.get_xlabel()
    assert axes.get_xticklabels()[0].get_text() == "bg"


def test_the_rows_of_the_papers_figure_else_six_that_have_norms() -> None:
    others = [made(f"head {i}", norms=NORMS["BAGS"]) for i in range(9)]
    figure3 = [made(label, norms=NORMS["BAGS"]) for label in ("BAGS", "re-weight-cls", "RFS", "baseline")]
    assert default_rows([*others, *figure3]) == ["baseline", "RFS", "re-weight-cls", "BAGS"]
    assert default_rows([made("NCM-fc"), *others]) == [f"head {i}" for i in range(6)]


def test_ones_own_rows_are_drawn_beside_the_baseline_and_the_caption_names_those_that_are_not() -> None:
    own = [made(f"mine {i}", norms=NORMS["BAGS"]) for i in range(8)]
    rows = [*own, made("baseline", norms=NORMS["baseline"])]
    assert default_rows(rows) == ["baseline", *(f"mine {i}" for i in range(5))]
    drawing = weight_norms(Scene(rows, caption="suite x."))
    assert drawing is not None
    texts = " ".join(text.get_text() for text in drawing.figure.texts).replace("\n", " ")
    assert "Not drawn: mine 5, mine 6, mine 7." in texts


def test_no_norms_no_figure() -> None:
    assert weight_norms(Scene([made("NCM-fc", AP=1.0)])) is None
