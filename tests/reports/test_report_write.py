"""The folder of a report: every table, and the figures that the suite asks for, by name."""

from __future__ import annotations

import csv
import functools
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from made_page import result
from made_records import made

from bench.errors import UserError, printable
from bench.spec import FIGURES, Figure
from reports.figures.kinds import KINDS, names
from reports.load import RowResult
from reports.write import write

NORMS = [0.4, 1.5, 0.7, 1.1, 0.3, 1.0, 2.0]
TABLES = {
    "table.txt", "table.md", "table.tex", "table_protocol.tex", "table.csv", "table.json", "table.parquet",
    "results.csv", "results.parquet", "per_class.csv",
}  # fmt: skip


def results() -> list[RowResult]:
    rows = [made("baseline", seed, norms=NORMS, AP=20.0 + seed, AP1=5.0) for seed in (0, 1)]
    return rows + [made(f"BAGS {b}", settings={"beta": b}, method="bags", AP=21.0 + b) for b in (1, 8)]


def files(stem: str) -> set[str]:
    return {f"{stem}.{suffix}" for suffix in ("png", "svg", "csv")}


def test_write_leaves_every_form(tmp_path: Path) -> None:
    out = tmp_path / "new" / "report"
    written = write(results(), out, "table1", "bags_table1", order=["baseline"])
    assert {path.name for path in written.files} == TABLES | files("ap_by_bin") | files("weight_norms")
    assert not written.lacking
    assert "ap_by_bin.png .svg .csv" in written.spoken()
    assert all(path.stat().st_size > 100 for path in written.files)
    assert (out / "ap_by_bin.png").read_bytes().startswith(b"\x89PNG")
    again = write(results(), tmp_path / "again", "table1", "bags_table1", order=["baseline"])
    text = {path.name: path.read_bytes() for path in again.files if path.suffix != ".svg"}
    assert all((out / name).read_bytes() == content for name, content in text.items())


def test_parquet_has_names_as_they_are_and_types(tmp_path: Path) -> None:
    write([made("=1+1", seed, AP=20.0 + seed, AP1=None) for seed in (0, 1)], tmp_path, "t", skipped={"gone": "failed"})
    table = pd.read_parquet(tmp_path / "table.parquet").set_index("row")
    assert list(table.index) == ["=1+1", "gone"]
    assert table.loc["=1+1", ["seeds", "AP", "AP_n", "AP1_n"]].tolist() == ["0 1", 20.5, 2, 0]
    assert table.loc["=1+1", "AP_sd"] == pytest.approx(0.5**0.5, abs=1e-6)
    assert math.isnan(table.loc["=1+1", "AP1"])
    assert table.loc["gone", "skipped"] == "failed"
    assert (table["AP1"].dtype, table["AP_n"].dtype) == ("float64", "int64")
    long = pd.read_parquet(tmp_path / "results.parquet").set_index(["row", "seed", "metric"])["value"]
    assert long["=1+1", 1, "AP"] == 21
    assert long.dtype == "float64"


def test_the_kinds_are_those_that_a_suite_may_name() -> None:
    assert set(KINDS) == set(FIGURES)


ODD = (r"$\frac$", "costs $5", r"a_{$\beta$}", r"\$x$", "[red]x[/]", "<&>")


def test_labels_and_titles_that_no_formula_is_made_of_are_text(tmp_path: Path) -> None:
    """Read back from the SVG, which keeps the text of the table beside the drawn glyphs only as comments."""
    rows = [made(label, settings={"beta": i}, norms=NORMS, AP=21.0 + i, AP1=3.0) for i, label in enumerate(ODD)]
    title = r"of $\frac$ and $"
    wanted = (
        *(Figure(kind=kind, title=title) for kind in ("bins", "norms", "bars")),
        Figure(kind="sweep", title=title, x="beta", by="method"),
    )
    written = write(rows, tmp_path, r"s: $\frac{1}$", wanted=wanted)
    assert {"ap_by_bin.svg", "weight_norms.svg", "bars.svg", "sweep_beta.svg"} <= {path.name for path in written.files}
    drawn = "".join(path.read_text() for path in tmp_path.glob("*.svg"))
    for text in (*ODD[:4], title):
        assert f"<!-- {text} -->" in drawn, text


NEED_MORE = {
    "sweep", "linear_probe", "reconstructions", "attention", "embeddings", "contact_sheet", "calibration", "cost",
    "counts", "curves", "gain", "losses", "recall",
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(set(FIGURES) - NEED_MORE))
def test_names_on_an_axis_are_text_too(kind: str, tmp_path: Path) -> None:
    """A name at a tick, as rows have it in rankings and errors; and the names of classes."""
    odd = {r"a $\frac$ b": r"a $\frac$ b", "a\x1b[31mb": r"a\x1b[31mb", "c\u202ed": r"c\u202ed"}
    classes = [*odd, "elk", "fox", "gnu"]
    rows = [result(label, seed, classes) for label in ("baseline", *odd) for seed in (1, 2)]
    written = write(rows, tmp_path, "s", wanted=(Figure(kind=kind),), order=["baseline", *odd])
    assert not written.lacking
    (drawn,) = [path.read_text() for path in written.files if path.suffix == ".svg"]
    assert not {"\x1b", "\u202e"} & set(drawn)
    assert all(name in drawn for name in odd.values())


@pytest.mark.parametrize("odd", [r"a $\frac$ b", "a\x1b[31mb", "c\u202ed", "two\nlines"])
def test_ticks_with_names_are_text(odd: str) -> None:
    from reports.figures import canvas

    figure, (axes, *_) = canvas.blank(3, 2)
    axes.set_yticks([0, 1], [odd, ""])
    axes.set_title(odd)
    canvas.finish(figure, {}, "", None)
    svg = canvas.image_of(canvas.Drawing(figure, (), ()), "svg").decode()
    shown = printable(odd, keep="\n").split("\n")
    assert all(svg.count(f"<!-- {line} -->") == 2 for line in shown)


def test_ticks_that_are_no_text_and_categories() -> None:
    from reports.figures import canvas

    figure, (left, right) = canvas.blank(5, 2, 1, 2)
    left.set_xticks([0, 1, 2], [10, None, 2.5])
    right.bar([r"a $\frac$ b", "c\x1b[31m"], [1, 2])
    canvas.finish(figure, {}, "", None)
    svg = canvas.image_of(canvas.Drawing(figure, (), ()), "svg").decode()
    for text in ("10", "2.5", r"a $\frac$ b", r"c\x1b[31m"):
        assert f"<!-- {text} -->" in svg


def test_a_formatter_of_somebodys_own_is_left_alone() -> None:
    from matplotlib.ticker import FuncFormatter

    from reports.figures import canvas

    figure, (axes, *_) = canvas.blank(3, 2)
    axes.plot([0, 1], [0, 1])
    axes.xaxis.set_major_formatter(
        FuncFormatter(functools.partial(lambda unit, x, _: rf"${x:g}\,\mathrm{{{unit}}}$", "s"))
    )
    canvas.finish(figure, {}, "", None)
    figure.canvas.draw()
    assert axes.get_xticklabels()[0].get_parse_math()


def test_ticks_that_count_decades_stay_powers_of_ten() -> None:
    from reports.figures import canvas

    figure, (axes, *_) = canvas.blank(3, 2)
    axes.set_xscale("log")
    axes.plot([1, 1000], [1, 2], label="a $b")
    canvas.finish(figure, canvas.handles(axes), "", None)
    figure.canvas.draw()
    assert r"$\mathdefault{10^{2}}$" in [text.get_text() for text in axes.get_xticklabels()]
    assert all(text.get_parse_math() for text in axes.get_xticklabels())
    assert not figure.legends[0].get_texts()[0].get_parse_math()


def test_a_suite_says_which_figures(tmp_path: Path) -> None:
    wanted = (
        Figure(kind="sweep", x="beta", metrics=("AP",), rows=("baseline", "BAGS 1", "BAGS 8")),
        Figure(kind="sweep", x="beta", metrics=("AP1",)),
        Figure(kind="sweep", x="schedule.lr"),
        Figure(kind="bars", metrics=("AP",), rows=("BAGS 8", "gone")),
        Figure(kind="norms", rows=("BAGS 1",)),
        Figure(kind="bins", rows=("gone",)),
    )
    written = write(results(), tmp_path, "s", wanted=wanted)
    assert {path.name for path in written.files} - TABLES == files("sweep_beta") | files("sweep_beta_2") | files("bars")
    assert written.lacking == (
        "no figure sweep_schedule_lr: no row with a result has the setting schedule.lr",
        "no figure weight_norms: no row has weights of one row per class",
        "no figure ap_by_bin: none of its rows has a result",
    )
    with (tmp_path / "sweep_beta.csv").open() as file:
        lines = [(line["row"], line["beta"], line["mean"], line["n"]) for line in csv.DictReader(file)]
    assert lines == [("baseline", "", "20.5", "2"), ("BAGS 1", "1", "22", "1"), ("BAGS 8", "8", "29", "1")]
    with (tmp_path / "sweep_beta_2.csv").open() as file:
        assert [(line["mean"], line["n"]) for line in csv.DictReader(file)] == [("", "0"), ("", "0")]


def test_names_are_unique_and_the_first_keeps_its_name() -> None:
    sweeps = [Figure(kind="sweep", x=x) for x in ("beta", "beta_2", "beta", "beta")]
    assert names(sweeps) == ["sweep_beta", "sweep_beta_2", "sweep_beta_3", "sweep_beta_4"]
    assert names([Figure(kind="bars"), Figure(kind="bins"), Figure(kind="bars")]) == ["bars", "ap_by_bin", "bars_2"]


def test_files_of_the_caller_lie_beside_the_tables(tmp_path: Path) -> None:
    written = write(results(), tmp_path, "table1", beside={"suite.yaml": "rows: {}\n"})
    assert (tmp_path / "suite.yaml").read_text() == "rows: {}\n"
    assert (
        "table.txt .md .tex .csv .json .parquet, table_protocol.tex, results.csv .parquet, per_class.csv, suite.yaml, "
        in written.spoken()
    )


def test_labels_are_text_in_every_csv(tmp_path: Path) -> None:
    """A spreadsheet that opens one must not compute what a label says."""
    rows = [made(label, settings={"beta": i}, norms=NORMS, AP=20.0) for i, label in enumerate(("=1+1", "@b", "-c"))]
    wanted = [Figure(kind="bins"), Figure(kind="norms"), Figure(kind="bars"), Figure(kind="sweep", x="beta")]
    written = write(rows, tmp_path, "s", wanted=wanted, skipped={"+d": "=why"}, order=["=1+1"])
    files = [path for path in written.files if path.suffix == ".csv"]
    assert len(files) == 7
    for file in files:
        cells = [cell for line in csv.reader(file.open()) for cell in line]
        assert not [cell for cell in cells if cell.startswith(("=", "@", "+", "-"))], file
        assert "'=1+1" in cells, file


def test_write_without_any_result_gives_tables_and_reasons(tmp_path: Path) -> None:
    written = write([], tmp_path, "table1", order=["baseline"], skipped={"baseline": "it failed"})
    assert {path.name for path in written.files} == TABLES
    assert "* baseline: it failed" in (tmp_path / "table.txt").read_text()


def test_write_into_a_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write([], tmp_path / "taken", "table1")


def test_tables_import_no_plotting() -> None:
    heavy = ("matplotlib", "seaborn", "scipy", "torch", "rich")
    script = f"import sys, reports.write; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
