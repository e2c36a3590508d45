"""The figures, read back from their Axes; and everything `write` leaves behind."""

from __future__ import annotations

import csv
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from made_records import COUNTS, made

from bench.errors import UserError
from reports import plots
from reports.load import RowResult
from reports.write import write

NORMS = {"baseline": [0.4, 1.5, 0.7, 1.1, 0.3, 1.0, 2.0], "BAGS": [0.8, 0.9, 0.8, 0.9, 0.8, 0.9, 1.2]}


def results(labels: tuple[str, ...] = ("baseline", "BAGS", "NCM-fc"), seeds: int = 2) -> list[RowResult]:
    return [
        made(
            label,
            seed,
            norms=NORMS.get(label),
            AP=20.0 + r + seed,
            AP1=None if r == 2 else 5.0,
            AP2=1.0,
            AP3=2.0,
            AP4=50.0,
        )
        for r, label in enumerate(labels)
        for seed in range(seeds)
    ]


def test_bins_are_named_in_training_instances() -> None:
    assert plots.bin_names((10, 100, 1000)) == ["1-9", "10-99", "100-999", "1000+"]
    figure = plots.ap_by_bin(results(), caption="suite table1")
    (axes,) = figure.axes
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks[0] == "AP1: 1-9\ntraining instances"
    assert ticks[-1] == "AP: all classes"
    assert axes.get_ylabel() == "box AP (points)"
    assert figure.get_supxlabel() == "suite table1"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["baseline", "BAGS", "NCM-fc"]


def test_bars_are_the_means_and_a_missing_one_is_a_dash() -> None:
    (axes,) = plots.ap_by_bin(results()).axes
    bars = [container for container in axes.containers if hasattr(container, "patches")]
    heights = [[patch.get_height() for patch in container.patches] for container in bars]
    assert heights[0] == pytest.approx([5.0, 1.0, 2.0, 50.0, 20.5])
    assert heights[2] == pytest.approx([1.0, 2.0, 50.0, 22.5])  # no bar for AP1
    assert [text.get_text() for text in axes.texts] == ["-"]


def test_error_bars_are_one_sd_over_seeds() -> None:
    (axes,) = plots.ap_by_bin(results()).axes
    errors = [container for container in axes.containers if hasattr(container, "has_yerr") and container.has_yerr]
    (low, high) = errors[0].lines[2][0].get_segments()[-1][:, 1]
    assert (low, high) == pytest.approx((20.5 - 0.5**0.5, 20.5 + 0.5**0.5))
    (alone,) = plots.ap_by_bin(results(seeds=1)).axes
    assert not [c for c in alone.containers if getattr(c, "has_yerr", False)]


def test_fifteen_rows_stay_apart() -> None:
    figure = plots.ap_by_bin(results(tuple(f"row{i}" for i in range(15))))
    (axes,) = figure.axes
    bars = [container for container in axes.containers if hasattr(container, "patches")]
    looks = {(c.patches[0].get_facecolor(), c.patches[0].get_hatch()) for c in bars}
    assert len(looks) == 15
    edges = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for c in bars for patch in c.patches)
    assert all(right <= left + 1e-9 for (_, right), (left, _) in itertools.pairwise(edges))
    # Every bar is some pixels wide on paper.
    pixels = axes.transData.transform([(0, 0), (bars[0].patches[0].get_width(), 0)])
    assert pixels[1][0] - pixels[0][0] > 6


def test_norms_are_sorted_by_descending_instances_with_background_first(tmp_path: Path) -> None:
    with plots.write_norms(results(), ["baseline", "BAGS"], tmp_path / "norms.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["row"] == "baseline"]
    assert [line["rank"] for line in lines] == [str(i) for i in range(7)]
    assert lines[0] == {"row": "baseline", "rank": "0", "class": "background", "instances": "", "norm": "2"}
    assert [int(line["instances"]) for line in lines[1:]] == sorted(COUNTS, reverse=True)
    assert [float(line["norm"]) for line in lines[1:]] == [1.5, 1.1, 1.0, 0.7, 0.4, 0.3]
    assert "".join(line["class"] for line in lines[1:]) == "bdfcae"


def test_norm_figure_has_a_line_a_row_and_the_bin_edges() -> None:
    figure = plots.weight_norms(results())
    assert figure is not None
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["baseline", "BAGS"]  # NCM-fc has no weights
    assert list(lines["baseline"].get_ydata()) == [1.5, 1.1, 1.0, 0.7, 0.4, 0.3]
    assert list(lines["baseline"].get_xdata()) == [1, 2, 3, 4, 5, 6]
    marks = [list(line.get_ydata()) for line in axes.lines if list(line.get_xdata()) == [0]]
    assert marks == [[2.0], [1.2]]
    edges = [
        line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--" and line.get_xdata()[0] % 1 == 0.5
    ]
    assert edges == [1.5, 3.5, 4.5]  # 1 class with 1000+, 2 with 100-999, 1 with 10-99, 2 with 1-9
    assert [text.get_text() for text in axes.texts] == ["1000+", "100-999", "10-99", "1-9"]
    assert "norm" in axes.get_ylabel()


def test_no_norms_no_figure() -> None:
    assert plots.weight_norms([made("NCM-fc", AP=1.0)]) is None


def test_write_leaves_every_form(tmp_path: Path) -> None:
    written = write(results(), tmp_path / "new" / "report", "table1", "bags_table1", order=["baseline", "BAGS"])
    names = {path.name for path in written}
    assert names == {
        "table.txt", "table.md", "table.tex", "table.csv", "table.json",
        "ap_by_bin.png", "ap_by_bin.svg", "weight_norms.png", "weight_norms.svg", "weight_norms.csv",
    }  # fmt: skip
    assert all(path.stat().st_size > 100 for path in written)
    png = (tmp_path / "new" / "report" / "ap_by_bin.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    again = write(results(), tmp_path / "again", "table1", "bags_table1", order=["baseline", "BAGS"])
    text = {path.name: path.read_bytes() for path in again if path.suffix not in (".svg",)}
    assert all((tmp_path / "new" / "report" / name).read_bytes() == content for name, content in text.items())


def test_write_without_any_result_gives_tables_and_reasons(tmp_path: Path) -> None:
    written = write([], tmp_path, "table1", order=["baseline"], skipped={"baseline": "it failed"})
    assert {path.suffix for path in written} == {".txt", ".md", ".tex", ".csv", ".json"}
    assert "* baseline: it failed" in (tmp_path / "table.txt").read_text()


def test_write_into_a_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write([], tmp_path / "taken", "table1")


def test_tables_import_no_plotting() -> None:
    script = (
        "import sys, reports.write; sys.exit(any(m in sys.modules for m in ('matplotlib', 'seaborn', 'torch', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
