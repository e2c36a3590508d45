"""The table in its five forms: same cells, missing is '-', published figures apart."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from made_records import made

from bench.errors import UserError
from reports.footnotes import figure_caption
from reports.latex import to_latex, to_protocol
from reports.paper import names, published
from reports.render import format_cell, to_csv, to_markdown, to_text
from reports.stats import Cell
from reports.tables import Table, table, to_json

ORDER = ["baseline", "RFS", "BAGS", "DETR"]


def two_rows() -> Table:
    rows = [made("baseline", seed, AP=24.0 + seed, AP1=1.0, AP4=50.0, ACC=90.0, ACCbg=None) for seed in (0, 1)]
    rows += [made("BAGS", seed, AP=31.0 + 3 * seed, AP1=None if seed else 15.25, AP4=48.0) for seed in (0, 1)]
    skipped = {"DETR": "engine torchvision has no 'queries'"}
    return table(rows, suite="table_1", compare_with="bags_table1", order=ORDER, skipped=skipped)


def cells(text: str, row: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(row))
    return re.split(r" {2,}", line.strip())


def test_text_has_means_spreads_dashes_and_reasons() -> None:
    text = to_text(two_rows())
    assert max(map(len, text.splitlines())) <= 110
    assert cells(text, "baseline")[:4] == ["baseline", "24.5 ± 0.7", "1.0 ± 0.0", "50.0 ± 0.0"]
    assert cells(text, "BAGS")[:4] == ["BAGS", "32.5 ± 2.1", "15.2 (n=1)", "48.0 ± 0.0"]
    assert "+8.0 ± 1.4" in cells(text, "BAGS")
    assert cells(text, "RFS *")[1:4] == ["-", "-", "-"]
    assert "* RFS: no result yet" in text
    assert "* DETR: engine torchvision has no 'queries'" in text
    assert [line.split()[0] for line in text.splitlines()[4:8]] == ORDER
    assert "AP2" not in text.splitlines()[1].replace("paper", "")  # no row has it


def test_text_never_cuts_a_number() -> None:
    for width in (40, 80, 110, 120, 200):
        text = to_text(two_rows(), width)
        assert "…" not in text
        assert "24.5 ± 0.7" in text
    assert "not shown here" in to_text(two_rows(), 40)
    assert "paper" not in to_text(two_rows(), 40).splitlines()[1]


def test_one_seed_shows_no_spread_and_no_negative_zero() -> None:
    rows = [made("baseline", AP=10.0), made("x", AP=9.98)]
    text = to_text(table(rows, suite="s"))
    assert "±" not in text
    assert cells(text, "x") == ["x", "10.0", "0.0"]
    assert "one run a row, no spread known" in text


def test_published_figures_stand_apart_and_their_protocol_is_named() -> None:
    content = two_rows()
    bags = next(line for line in content.lines if line.row == "BAGS")
    assert bags.paper["AP"] == 25.96
    assert bags.own["AP"].mean == 32.5
    text = to_text(content)
    assert cells(text, "BAGS")[-1] == "29.90" or "25.96" in cells(text, "BAGS")
    assert "Measured under another protocol" in text
    assert "LVIS v0.5" in text
    markdown = to_markdown(content)
    head = next(line for line in markdown.splitlines() if line.startswith("| row"))
    assert "| paper AP | paper AP1 |" in head
    rows = list(csv.DictReader(io.StringIO(to_csv(content))))
    assert [row["paper_AP"] for row in rows] == ["20.98", "23.41", "25.96", ""]
    assert [row["AP"] for row in rows] == ["24.5", "", "32.5", ""]
    without = table([made("baseline", AP=1.0)], suite="s")
    assert "paper" not in to_text(without) + to_markdown(without) + to_latex(without) + to_csv(without)


def test_csv_keeps_digits_and_counts() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(two_rows()))))
    bags = rows[2]
    assert (bags["seeds"], bags["AP1"], bags["AP1_sd"], bags["AP1_n"]) == ("0 1", "15.25", "", "1")
    assert (bags["ACC"], bags["ACC_n"]) == ("", "0")
    assert (bags["delta_AP"], bags["delta_AP_n"]) == ("8.0", "2")
    assert rows[3]["skipped"] == "engine torchvision has no 'queries'"


def test_markdown_grid_is_rectangular() -> None:
    lines = [line for line in to_markdown(two_rows()).splitlines() if line.startswith("|")]
    first = lines[: lines.index(next(line for line in lines[1:] if line.startswith("| row")))]
    assert len({line.count("|") for line in first}) == 1
    assert "## Difference from baseline, paired by seed" in to_markdown(two_rows())


def test_footnotes_name_the_protocol_and_what_is_mixed() -> None:
    longer, both = {"1:base": 900, "2:second": 300}, {"python": "3.11.7", "packages": {"torch": "2.15"}}
    rows = [
        made("baseline", AP=1.0, protocol={"max_detections": 300}, environment={**both, "device": "cpu"}),
        made("BAGS", AP=1.0, protocol={"max_detections": 100, "steps": longer}, environment={**both, "device": "cuda"}),
    ]
    notes = "\n".join(table(rows, suite="s").footnotes)
    assert "by row: steps 1:base 900 (baseline); 1:base 900, 2:second 300 (BAGS)" in notes
    assert "train digest aaaaaaaaaaaa;" in notes
    assert "not one protocol: max detections 300 (baseline); 100 (BAGS)" in notes
    assert "mixes machines or versions: device cpu (baseline); cuda (BAGS)" in notes
    assert "torch 2.15" in notes
    assert "seeds 0" in notes
    assert "steps in epochs of all training images: 900 of 16 images 8.1" in notes  # 14,400 of 1,783 images
    uneven = table([made("a", 0, AP=1.0), made("a", 1, AP=1.0), made("b", 0, AP=1.0)], suite="s").footnotes
    assert any("seeds differ between rows (a 0, 1; b 0)" in note for note in uneven)


def test_thirty_nodes_are_not_all_named() -> None:
    rows = [made(f"row{i}", AP=1.0, environment={"host": f"n{i}", "cpu": "one"}) for i in range(30)]
    note = next(note for note in table(rows, suite="s").footnotes if "mixes machines" in note)
    assert note.startswith("mixes machines or versions: host n0 (row0); n1 (row1);")
    assert note.endswith("n4 (row4); and 25 more values")


def test_data_that_follow_the_seed_are_named_by_seed() -> None:
    rows = [made(row, seed, AP=1.0, protocol={"val_digest": f"{seed}" * 64}) for row in ("a", "b") for seed in (0, 1)]
    notes = table(rows, suite="s").footnotes
    assert "by seed: val digest 000000000000 (seed 0); 111111111111 (seed 1)" in notes


def test_json_has_none_for_what_is_missing() -> None:
    rows = [made("baseline", 0, AP=1.0, ACC=None), made("baseline", 1, AP=3.0, ACC=None)]
    content = json.loads(json.dumps(to_json(rows, order=ORDER, skipped={"DETR": "why"}), allow_nan=False))
    assert [entry["row"] for entry in content] == ORDER
    assert content[0]["metrics"]["AP"] == {"mean": 2.0, "sd": pytest.approx(2**0.5), "n": 2}
    assert content[0]["metrics"]["ACC"] == {"mean": None, "sd": None, "n": 0}
    assert content[0]["seeds"] == [0, 1]
    assert content[1]["metrics"] == {}
    assert content[3]["skipped"] == "why"


def test_a_fifth_bin_finds_its_place() -> None:
    metrics = table([made("a", protocol={"bins": (10, 100, 1000, 9000)}, AP=1.0, AP5=1.0, ACC5=1.0)], suite="s").metrics
    assert metrics.index("AP5") == metrics.index("AP4") + 1
    assert "ACC5" in metrics
    assert len(metrics) == len(set(metrics)) == 21


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(None, None, 0), "-"),
        (Cell(24.84, None, 1), "24.8"),
        (Cell(24.86, 0.44, 3), "24.9 ± 0.4"),
        (Cell(0.0, None, 1), "0.0"),
    ],
)
def test_a_cell_as_text(cell: Cell, text: str) -> None:
    assert format_cell(cell) == text


def test_published_table_is_whole_and_adds_up() -> None:
    bags = published("bags_table1")
    assert len(bags.rows) == 14
    assert bags.of("bags")["AP1"] == 11.33
    assert bags.of("no such row") == {}
    assert all("arXiv 2006.10408" in source for source in bags.sources.values())
    sizes = (67, 298, 284, 181)  # classes of LVIS v0.5 val in each bin: AP is the mean over classes, so of the bins
    for figures in bags.rows.values():
        pooled = sum(n * figures[f"AP{i}"] for i, n in enumerate(sizes, start=1)) / sum(sizes)
        assert pooled == pytest.approx(figures["AP"], abs=0.03)


def test_an_unknown_published_table_lists_what_exists() -> None:
    assert "bags_table1" in names()
    with pytest.raises(UserError, match="bags_table1") as caught:
        published("bags_tabel1")
    assert "Did you mean 'bags_table1'?" in str(caught.value)


def test_the_order_against_the_papers_stands_in_every_form() -> None:
    labels = ("baseline", "x2", "RFS", "BAGS", "focal", "own control")
    ap = (20.0, 21.0, 22.0, 23.0, 24.0, 25.0)  # the paper has focal last and else this order
    rows = [made(label, AP=value) for label, value in zip(labels, ap, strict=True)]
    content = table(rows, suite="s", compare_with="bags_table1")
    said = "Kendall tau-b +0.20"  # of 10 pairs 4 disagree
    for form in (to_text(content, 400), to_markdown(content), to_protocol(content)):
        assert said in form
        assert "over 5 rows" in form
        assert "focal 1 here, 5 there" in form
    entries = {entry["row"]: entry for entry in to_json(rows, compare_with="bags_table1")}
    assert entries["focal"]["order"]["AP"]["tau_b"] == pytest.approx(0.2)
    assert (entries["focal"]["order"]["AP"]["here"], entries["focal"]["order"]["AP"]["paper"]) == (1, 5)
    assert entries["focal"]["paper"]["AP"] == 11.12
    assert not {"order", "paper"} & set(entries["own control"])
    assert "Kendall" not in to_text(table(rows, suite="s"))
    assert "Kendall" not in to_text(table(rows[:2], suite="s", compare_with="bags_table1"))
    assert all("order" not in entry for entry in to_json(rows))


def test_a_row_on_other_data_has_no_difference_and_a_footnote() -> None:
    flat = {"val_digest": "f" * 64}
    rows = [made("baseline", 0, AP=10.0), made("flat", 0, AP=30.0, protocol=flat), made("x", 0, AP=12.0)]
    content = table(rows, suite="s")
    assert [cells(to_text(content), row)[2] for row in ("flat", "x")] == ["-", "+2.0"]
    assert "evaluated on other data than baseline, so without a difference from it: flat" in content.footnotes
    assert any(note.startswith("by row: val digest bbbbbbbbbbbb (baseline, x); ffff") for note in content.footnotes)


def test_data_that_follow_seed_and_row_are_named_by_both() -> None:
    rows = [
        made(row, seed, AP=1.0, protocol={"val_digest": f"{seed}{place}" * 32})
        for place, row in enumerate(("a", "b"))
        for seed in (0, 1)
    ]
    notes = table(rows, suite="s").footnotes
    assert any("000000000000 (a at seed 0); 101010101010 (a at seed 1)" in note for note in notes)


def test_many_rows_on_a_narrow_terminal_keep_ap_and_whole_labels() -> None:
    rows = [
        made(f"head of a long name with lr=0.{i:02} and more", seed, AP=20.0 + i, AP1=float(i), AP4=50.0)
        for i in range(24)
        for seed in (0, 1)
    ]
    rows += [made("baseline", seed, AP=20.0, AP1=0.0, AP4=50.0) for seed in (0, 1)]
    for width in (40, 60, 80, 110):
        text = to_text(table(rows, suite="s"), width)
        grid = text.splitlines()[: text.splitlines().index(next(t for t in text.splitlines() if "protocol" in t))]
        assert "AP" in grid[1]
        assert all(len(line) <= width for line in grid)
        assert all(f"{20 + i:.1f} ± 0.0" in text for i in range(24))
        assert len(re.findall("more", " ".join(grid))) == 24
    assert "seeds 0, 1;" in text


def test_a_table_of_a_search_says_what_it_was_measured_on() -> None:
    tuned = {"split": "tune", "train_images": 80, "val_images": 20, "counted_images": 100, "negatives": "none listed"}
    rows = [made(label, AP=1.0, protocol=tuned) for label in ("baseline", "BAGS")]
    notes = table(rows, suite="s").footnotes
    assert notes[0] == (
        "measured on `tune`, 20 of the 100 training images, by models trained on 80 others; up to 6 of 6 classes have "
        "no box in it; bins and the counts that methods use are those of all training images. These are numbers of "
        "a search: a result is measured on val"
    )
    assert notes[1].startswith("protocol: ")
    assert "split tune" in notes[1]
    assert "counted images 100" in notes[1]
    assert any(note.startswith("negatives none listed: no image of tune says") for note in notes)
    assert any(note.startswith("steps in epochs of the images trained on: 900 of 16 images 180.0") for note in notes)
    for text in (
        to_text(table(rows, suite="s")),
        to_markdown(table(rows, suite="s")),
        to_protocol(table(rows, suite="s")),
    ):
        assert "measured on" in " ".join(text.split())
    assert "measured on `tune`" in figure_caption(rows, "s", "AP by bin.")


def test_a_table_of_both_says_which_rows_are_a_search() -> None:
    rows = [made("baseline", AP=1.0), made("BAGS", AP=2.0, protocol={"split": "tune", "counted_images": 2000})]
    notes = table(rows, suite="s").footnotes
    assert any(note.startswith("BAGS: measured on `tune`, 115 of the 2000 training images") for note in notes)
    assert "not one protocol: split val (baseline); tune (BAGS)" in notes
    several = [made("a", seed, AP=1.0, protocol={"split": "tune", "counted_images": 90 + seed}) for seed in range(2)]
    (note,) = (note for note in table(several, suite="s").footnotes if "measured on" in note)
    assert "115 of the 90 training images" in note
    assert "115 of the 91 training images" in note
    assert not any("measured on" in note for note in table([made("a", AP=1.0)], suite="s").footnotes)


def test_what_a_method_wants_to_be_said_stands_in_every_form() -> None:
    rows = [made("baseline", AP=20.0), made("2DRCL", AP=21.0, mark="a reconstruction"), made("x2", AP=22.0)]
    one = table(rows, suite="drcl", order=["2DRCL", "baseline"])
    said = "† 2DRCL: a reconstruction"
    assert said in one.footnotes
    assert "2DRCL †" in to_text(one)
    assert "| 2DRCL † |" in to_markdown(one)
    assert r"2DRCL \textdagger{} &" in to_latex(one)
    first = next(csv.DictReader(io.StringIO(to_csv(one))))
    assert (first["row"], first["mark"]) == ("2DRCL", "a reconstruction")
    assert [entry.get("mark") for entry in to_json(rows)] == [None, "a reconstruction", None]
    assert "2DRCL: a reconstruction" in figure_caption(rows, "drcl", "One run a row.")
    plain = table(rows[::2], suite="drcl")
    assert "†" not in to_text(plain)
    assert "mark" not in to_csv(plain).splitlines()[0]


AGAINST = {"BAGS": "cls-retrain", "x2": "cls-retrain", "detr": "cls-retrain", "late": "missing"}


def with_a_control() -> Table:
    """BAGS beats its control by 1 and 5 at the seeds that both have; x2 lacks seed 1; detr is another engine's."""
    rows = [made("baseline", seed, AP=20.0, AP1=1.0, ACC=90.0) for seed in (0, 1, 2)]
    rows += [made("cls-retrain", seed, AP=24.0 + seed, AP1=4.0) for seed in (0, 1)]
    rows += [made("BAGS", seed, AP=25.0 + 5 * seed, AP1=9.0 if seed else None) for seed in (0, 1, 2)]
    rows += [made("x2", 0, AP=23.5, AP1=4.0), made("late", 0, AP=1.0)]
    rows += [made("detr", 0, AP=50.0, protocol={"engine": "detr"})]
    order = ["baseline", "x2", "BAGS", "cls-retrain"]
    return table(rows, suite="s", compare_with="bags_table1", order=order, against=AGAINST)


def test_differences_from_a_control_stand_beside_those_from_the_baseline() -> None:
    content = with_a_control()
    lines = {line.row: line for line in content.lines}
    cell = lines["BAGS"].cell("against", "AP")
    assert (cell.mean, cell.n) == (3.0, 2)  # of 1 and 5; seed 2 of BAGS has no partner
    assert cell.sd == pytest.approx(8**0.5)
    assert lines["BAGS"].cell("against", "AP1") == Cell(5.0, None, 1)
    assert lines["BAGS"].cell("delta", "AP").mean == 10.0  # of 5, 10 and 15
    assert lines["x2"].cell("against", "AP") == Cell(-0.5, None, 1)
    for label in ("baseline", "cls-retrain", "detr", "late"):
        assert lines[label].cell("against", "AP").mean is None
    assert content.controls == ("cls-retrain", "missing")
    assert set(content.footnotes) >= {
        "\u0394 control is the difference from cls-retrain, paired by seed: x2, BAGS",
        "no difference from missing, which has no result: late",
        "on another engine than cls-retrain, so without a difference from it: detr",
    }


def test_differences_from_a_control_stand_in_every_form() -> None:
    content = with_a_control()
    text = to_text(content, 200)
    head = [line.split() for line in text.splitlines()[1:3]]
    assert head[1][:6] == ["row", "AP", "AP1", "ACC", "ΔAP", "control"]
    assert cells(text, "BAGS")[4:6] == ["+10.0 ± 5.0", "+3.0 ± 2.8 (n=2)"]
    assert cells(text, "cls-retrain")[5] == "-"
    markdown = to_markdown(content)
    block = markdown.split("## Difference from the control of each row, paired by seed\n")[1]
    assert "| row | seeds | ΔAP control | ΔAP1 control |" in block
    assert "| BAGS | 3 | +3.0 ± 2.8 (n=2) | +5.0 (n=1) |" in block
    assert "ACC" not in block  # no pair has it
    assert "## Difference from baseline, paired by seed" in markdown
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO(to_csv(content)))}
    assert rows["BAGS"]["control"] == "cls-retrain"
    assert [rows["BAGS"][f"against_AP{end}"] for end in ("", "_n")] == ["3.0", "2"]
    assert (rows["baseline"]["control"], rows["baseline"]["against_AP"]) == ("", "")
    assert (rows["late"]["control"], rows["late"]["against_AP"], rows["late"]["against_AP_n"]) == ("missing", "", "0")
    one = [made("baseline", AP=1.0), made("a & b", AP=2.0), made("c", AP=4.0)]
    single = table(one, suite="s", against={"c": "a & b"})
    assert "## Difference from a & b, paired by seed" in to_markdown(single)
    assert r"\multicolumn{1}{c}{$\Delta$ a \& b}" in to_latex(single)


def test_without_a_control_nothing_is_said_of_one() -> None:
    content = two_rows()
    assert content.controls == ()
    for form in (to_text(content), to_markdown(content), to_latex(content), to_csv(content)):
        assert "control" not in form
        assert "against_" not in form


def test_json_has_the_differences_from_a_control() -> None:
    rows = [made("baseline", AP=20.0), made("x", AP=22.0), made("y", AP=25.0, AP1=None)]
    entries = {e["row"]: e for e in to_json(rows, against={"y": "x"})}
    delta = {"AP": {"mean": 3.0, "sd": None, "n": 1}, "AP1": {"mean": None, "sd": None, "n": 0}}
    assert entries["y"]["against"] == {"row": "x", "delta": delta}
    assert "against" not in entries["x"]


def test_a_control_on_other_data_is_not_subtracted() -> None:
    rows = [made("a", AP=1.0), made("b", AP=2.0, protocol={"val_digest": "f" * 64}), made("c", AP=3.0, counts=(1, 2))]
    content = table(rows, suite="s", against={"b": "a", "c": "a"})
    assert "evaluated on other data than a, so without a difference from it: b" in content.footnotes
    said = "\u0394 control is the difference from a, paired by seed (its bins hold other classes): c"
    assert said in content.footnotes
    assert [line.cell("against", "AP").mean for line in content.lines] == [None, None, 2.0]
