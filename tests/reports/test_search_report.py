"""The report of a search: its text, trials.csv, which figures there are, of searches made by hand."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from made_records import made
from made_searches import (
    BETA,
    EDGES,
    LR,
    conditional,
    found_of,
    on_val,
    one_dimension,
    records,
    space_of,
    trial,
    two_objectives,
    view_of,
    with_rungs,
)

from bench.errors import UserError, cell_text
from bench.search.view import MARK, Trial, View
from bench.spec import SEARCH_FIGURES
from bench.suite.search import Dimension
from reports.load import RowResult
from reports.search.report import TITLES, write_search
from reports.search.searched import Searched
from reports.search.text import gain_sentences
from reports.write import Written


def write(view: View, folder: Path, finals: list[RowResult] | None = None, heading: str = "made: a title") -> Written:
    return write_search(
        view, records(view), finals or [], folder, heading, untouched=view.untouched(),
        importances={"beta": 0.75, "schedule.lr": 0.25}, edges=EDGES,
    )  # fmt: skip


def test_a_suite_refuses_the_names_that_a_search_draws() -> None:
    assert set(TITLES) == set(SEARCH_FIGURES)


# -- text

GOLDEN = """\
made: a title

Search
  search          made-0123456789ab
  searched: beta  0.5 to 32, log
  rows            BAGS
  objective       AP
  sampler         random, seed 0, 8 trials a round
  trials          4: 4 complete
  measured on     `tune`, 356 of the training images (20 %, division seed 0), by models trained on the other
                  1,427, seed 0; no trial was measured on val
  spent           0.25 h
  winner          trial 2: beta=2.0; AP 24.5 on tune

Gain on val: BAGS (searched) against BAGS, untouched
  metric        BAGS  BAGS (searched)  gain      interval  n
  AP      22.0 ± 2.6       24.0 ± 3.6  +2.0  -0.5 to +4.5  3
  AP1              -                -     -             -  0
  AP2              -                -     -             -  0
  AP3              -                -     -             -  0
  AP4              -                -     -             -  0
  AP +2.0 (95 % interval over 3 seeds -0.5 to +4.5): not distinguishable from zero
  interval: 95 %, Student's, of the differences paired by seed; n: seeds that both rows have
  each interval stands by itself: of 20 without a true difference, about one excludes zero

Optimism: what was chosen by, beside what is reported
  row              trial  metric  on tune      on val  difference
  BAGS (searched)      2      AP     24.5  24.0 ± 3.6        +0.5
  BAGS                 0      AP     23.0  22.0 ± 2.6        +1.0
  the best of 4 complete trials was chosen by its number on tune: the luck of the best is in it; val has
    chosen nothing
  the images differ too, and trials train on fewer: compare the winner's difference with the default's

Protocol of the trials
"""


def finals() -> list[RowResult]:
    return [*on_val("BAGS", (20.0, 21.0, 25.0)), *on_val("BAGS (searched)", (21.0, 23.0, 28.0))]


def test_the_text_of_a_search(tmp_path: Path) -> None:
    written = write(one_dimension(), tmp_path, finals())
    text = (tmp_path / "search.txt").read_text()
    assert text[: text.index(GOLDEN[-23:]) + 23] == GOLDEN
    assert "protocol: data glyphs" in text  # of the trials' records
    assert [path.name for path in written.files[:3]] == ["search.txt", "search.md", "trials.csv"]
    markdown = (tmp_path / "search.md").read_text()
    assert "| AP | 22.0 ± 2.6 | 24.0 ± 3.6 | +2.0 | -0.5 to +4.5 | 3 |" in markdown
    assert markdown.startswith("# made: a title\n\n## Search\n")
    assert MARK not in text + markdown + (tmp_path / "trials.csv").read_text()


def test_several_finals_have_a_table_and_a_sentence_each() -> None:
    view = two_objectives()
    assert view.untouched() == {f"BAGS (trial {n})": "BAGS" for n in (1, 0, 2)}
    rows = [made(label, seed, key=f"{label}{seed}", AP=20.0 + seed * i, AP1=8.0, AP4=30.0)
            for i, label in enumerate(["BAGS", *view.untouched()]) for seed in (0, 1)]  # fmt: skip
    found = Searched(view, records(view), rows, "made", view.untouched(), {}, EDGES)
    sentences = gain_sentences(found)
    assert len(sentences) == 7
    assert sentences[0].startswith("BAGS (trial 1) against BAGS on val: AP1 0.0 (95 % interval over 2 seeds")
    assert sentences[-1].startswith("each of these 6 intervals stands by itself")
    assert [(f.label, f.default, f.trial.number) for f in found.compared()] == [
        ("BAGS (trial 1)", "BAGS", 1), ("BAGS (trial 0)", "BAGS", 0), ("BAGS (trial 2)", "BAGS", 2)
    ]  # fmt: skip


def test_a_final_row_without_a_result_has_dashes(tmp_path: Path) -> None:
    write(one_dimension(), tmp_path, on_val("BAGS", (20.0, 21.0)))
    text = (tmp_path / "search.txt").read_text()
    assert "  AP      20.5 ± 0.7                -     -         -  0\n" in text
    assert "AP -: no seed has both rows on the same val" in text
    assert "  BAGS (searched)      2      AP     24.5           -           -\n" in text


def test_the_default_is_a_trial_where_one_has_its_settings() -> None:
    view = one_dimension()
    assert found_of(view).default_trial("BAGS") is view.trials[0]
    other = view_of([trial(0, {"schedule.lr": 0.02}, 20.0)], space_of({"schedule.lr": LR}))
    assert found_of(other).default_trial("BAGS") is None  # the rate is the suite's: nobody can tell
    flag = view_of([trial(0, {"others": 1}, 20.0)], space_of({"others": Dimension(choices=(0, 1))}))
    assert Searched(flag, [], [], "", {}, {}, EDGES).default_trial("BAGS") is None  # 1 is not true


def test_trials_csv_has_every_digit_and_no_formula(tmp_path: Path) -> None:
    space = space_of({"beta": Dimension(choices=("n", "all", 0.1 + 0.2)), "others": Dimension(choices=(True, False))})
    trials = [
        trial(0, {"beta": 0.1 + 0.2, "others": True}, 1 / 3, rungs={100: 1 / 7}),
        trial(1, {"beta": "n"}, state="failed", why="=cmd|' /C calc'!A0\nsecond"),
        trial(2, {"beta": "all", "others": False}, state="pruned", rungs={100: 2.0}, bracket=1),
    ]
    write(view_of(trials, space, pruner="median", rungs=(100,)), tmp_path)
    with (tmp_path / "trials.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert lines[0] == {
        "number": "0", "state": "complete", "row": "BAGS", "beta": "0.30000000000000004", "others": "true",
        "AP on tune": "0.3333333333333333", "AP at 100": "0.14285714285714285", "bracket": "", "why": "",
    }  # fmt: skip
    assert lines[1]["why"] == "'=cmd|' /C calc'!A0\\nsecond"
    assert lines[1]["others"] == ""
    assert (lines[2]["state"], lines[2]["AP on tune"], lines[2]["bracket"]) == ("pruned", "", "1")
    assert [cell_text(text) for text in ("-1", "@x", "a=b", "+1")] == ["'-1", "'@x", "a=b", "'+1"]


# -- little, and nothing


def stems(written: Written) -> set[str]:
    return {path.stem for path in written.files if path.suffix == ".png"}


def test_one_trial_alone(tmp_path: Path) -> None:
    view = view_of([trial(0, {"beta": 4.0}, 22.0)], space_of({"beta": BETA}))
    written = write(view, tmp_path, [*on_val("BAGS", (20.0,)), *on_val("BAGS (searched)", (21.0,))])
    assert stems(written) == {"history", "slice", "curve_beta"}
    assert "AP +1.0: one seed, no interval" in (tmp_path / "search.txt").read_text()
    assert "-: no trial is known to have the settings of the untouched row" in (tmp_path / "search.txt").read_text()


def test_no_trial_is_complete(tmp_path: Path) -> None:
    trials: list[Trial] = [
        trial(0, {"beta": 4.0}, state="failed", why="it broke"),
        trial(1, {"beta": 1.0}, state="running"),
    ]
    for number, of in enumerate((trials, [])):
        written = write(view_of(of, space_of({"beta": BETA})), tmp_path / str(number))
        assert [path.name for path in written.files] == ["search.txt", "search.md", "trials.csv"]
        assert written.lacking == (
            "no figure history: no trial has a value",
            "no figure slice: no trial is complete",
            "no figure contour: no trial is complete",
            "no figure importance: there is one dimension",
            "no figure pareto: the search has one objective",
            "no figure intermediate: the search has no rungs",
            "no figure curve_beta: no trial is complete",
        )
    text = (tmp_path / "0" / "search.txt").read_text()
    assert "trials          2: 1 failed, 1 running" in text
    assert "no trial is complete: there is no winner yet\n  failed: it broke" in text


@pytest.mark.parametrize("make", [one_dimension, conditional, with_rungs, two_objectives])
def test_every_figure_is_written_as_png_svg_and_csv(tmp_path: Path, make: object) -> None:
    assert callable(make)
    written = write(make(), tmp_path)
    figures = [path for path in written.files if path.name not in ("search.txt", "search.md", "trials.csv")]
    assert {path.suffix for path in figures} == {".png", ".svg", ".csv"}
    assert all(path.stat().st_size > 20 for path in written.files)
    names = stems(written) | {line.split()[2].rstrip(":") for line in written.lacking}
    assert {"history", "slice", "contour", "importance", "pareto", "intermediate"} < names


def svg_text(path: Path) -> str:
    """The text of a figure: matplotlib keeps it, line by line, as comments beside the drawn glyphs."""
    return " ".join(re.findall(r"<!-- (.*?) -->", path.read_text()))


def test_a_search_on_val_is_marked_everywhere(tmp_path: Path) -> None:
    view = one_dimension(tune_on="val")
    assert view.untouched() == {"BAGS (searched on val)": "BAGS"}
    real = [*on_val("BAGS", (20.0, 21.0, 25.0)), *on_val("BAGS (searched on val)", (21.0, 22.1, 25.9))]
    written = write(view, tmp_path, real)
    text = (tmp_path / "search.txt").read_text()
    titles = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert len(titles) == 6
    assert all(MARK in title for title in titles[1:])
    assert "AP +1.0 (95 % interval over 3 seeds +0.8 to +1.2): searched on val" in text
    assert "real" not in text
    assert "tune" not in text
    assert (tmp_path / "search.md").read_text().count(MARK) >= 6
    (sentence,) = gain_sentences(written.found)
    assert sentence.endswith(MARK)
    for path in written.files:
        if path.suffix == ".csv":
            head, *lines = path.read_text().splitlines()
            assert head.endswith(",note")
            assert lines
            assert all(line.endswith(MARK) for line in lines)
        if path.suffix == ".svg":
            assert MARK in svg_text(path), path
            assert "tune" not in svg_text(path)
    assert stems(written) == {"history", "slice", "curve_beta"}


def test_labels_that_no_formula_is_made_of_are_text(tmp_path: Path) -> None:
    view = conditional()
    write(view, tmp_path, heading=r"of $\frac$ and | $x_")
    assert r"of $\frac$ and | $x_" in svg_text(tmp_path / "history.svg")
    assert r"# of \$\\frac\$ and \| \$x_" in (tmp_path / "search.md").read_text()


def test_a_folder_that_cannot_be_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write(one_dimension(), tmp_path / "taken")
