"""The page of a search: what was gained first, every trial as a line to be sorted, the figures over the trials."""

from __future__ import annotations

import csv
import io
from base64 import b64decode
from pathlib import Path

import pytest
from made_page import Reader, made_page, read
from made_searches import EDGES, conditional, on_val, one_dimension, records, space_of, trial, view_of, with_rungs

from bench.search.view import MARK, View
from bench.suite.search import Dimension
from reports.page.render import render
from reports.search.report import write_search


def page_of(view: View, folder: Path, *names: str) -> Reader:
    """With two rows on val, of these names."""
    default, found = names or ("BAGS", "BAGS (searched)")
    finals = [*on_val(default, (20.0, 21.0, 25.0)), *on_val(found, (21.0, 22.1, 25.9))]
    written = write_search(
        view, records(view), finals, folder / "out", "made: a title", untouched=view.untouched(), importances={},
        edges=EDGES,
    )  # fmt: skip
    return read(render(made_page(folder / "page", search=written)))


def lines(reader: Reader, grid: str) -> list[list[tuple[str, str | None]]]:
    """Text and value of each cell of a table's body."""
    start = next(i for i, one in enumerate(reader.elements) if one.tag == "table" and one.attributes.get("id") == grid)
    found: list[list[tuple[str, str | None]]] = []
    for element in reader.elements[start + 1 :]:
        if element.tag == "table":
            break
        if "tbody" in element.inside and element.tag == "tr":
            found.append([])
        elif "tbody" in element.inside and element.tag in ("th", "td"):
            found[-1].append((element.text.strip(), element.attributes.get("data-v")))
    return found


def test_the_gain_is_said_first_and_every_trial_is_there(tmp_path: Path) -> None:
    reader = page_of(one_dimension(), tmp_path)
    first = next(one.text for one in reader.all("p") if "main" in one.inside)
    assert first.startswith("BAGS (searched) against BAGS on val: AP +1.0 (95 % interval over 3 seeds +0.8 to +1.2)")
    assert [one.text for one in reader.all("a") if "nav" in one.inside][:3] == ["Summary", "Search", "Results"]
    assert lines(reader, "trials") == [
        [("0", None), ("8", "8"), ("complete", None), ("23.0", "23")],
        [("1", None), ("0.5", "0.5"), ("complete", None), ("20.0", "20")],
        [("2", None), ("2", "2"), ("complete", None), ("24.5", "24.5")],
        [("3", None), ("32", "32"), ("complete", None), ("22.2", "22.25")],
    ]
    titles = [one.text for one in reader.all("h3")]
    assert titles[:4] == [
        "Search", "Gain on val: BAGS (searched) against BAGS, untouched",
        "Optimism: what was chosen by, beside what is reported", "Protocol of the trials",
    ]  # fmt: skip
    assert {"Trials in their order", "Metrics over beta"} <= set(titles)
    ids = {one.attributes["id"] for one in reader.elements if "id" in one.attributes}
    assert {"figure-history", "figure-curve_beta", "search-1", "search-3"} <= ids
    gain = lines(reader, "search-2")[0]
    assert gain[0] == ("AP", None)
    assert gain[3] == ("+1.0", "")


def test_its_csv_is_that_of_the_report(tmp_path: Path) -> None:
    reader = page_of(conditional(), tmp_path)
    (link,) = [one for one in reader.all("a") if one.attributes.get("download") == "trials.csv"]
    text = b64decode(link.attributes["href"].split(",")[1]).decode()
    assert text == (tmp_path / "out" / "trials.csv").read_text()
    failed = lines(reader, "trials")[0]
    head, *_ = csv.reader(io.StringIO(text))
    assert head[:3] == ["number", "state", "row"]
    assert [cell for cell, _ in failed] == ["0", "BAGS", "1", "-", "-", "-", "-", "failed", "-"]


def test_trials_that_ended_early_have_their_last_rung(tmp_path: Path) -> None:
    reader = page_of(with_rungs(), tmp_path)
    assert [line[-2:] for line in lines(reader, "trials")] == [
        [("24.0", "24"), ("21.0 at 300", "21")], [("-", ""), ("11.0 at 100", "11")],
        [("23.0", "23"), ("20.0 at 300", "20")], [("-", ""), ("17.0 at 300", "17")],
        [("-", ""), ("13.0 at 100", "13")],
    ]  # fmt: skip


def test_without_a_trial_there_is_no_table(tmp_path: Path) -> None:
    view = view_of([], space_of({"beta": Dimension(low=1, high=2)}))
    reader = page_of(view, tmp_path)
    assert "no trial is complete: there is no winner yet" in [one.text for one in reader.all("li")]
    assert not [one for one in reader.all("table") if one.attributes.get("id") == "trials"]


def test_a_search_on_val_is_marked(tmp_path: Path) -> None:
    reader = page_of(one_dimension(tune_on="val"), tmp_path, "BAGS", "BAGS (searched on val)")
    captions = [one.text for one in reader.all("caption") if one.attributes["id"] == "trials-caption"]
    assert MARK in captions[0]
    assert MARK in next(one.text for one in reader.all("p") if "main" in one.inside)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "=1+1", "a\x1b[31mb", "\u202eabc"])
def test_choices_come_out_as_text(name: str, tmp_path: Path) -> None:
    space = space_of({"trainable": Dimension(choices=(name, "head"))})
    tried = [trial(0, {"trainable": name}, state="failed", why=name), trial(1, {"trainable": "head"}, 20.0)]
    view = view_of(tried, space)
    reader = page_of(view, tmp_path)
    assert len(reader.all("script")) == 1
    assert lines(reader, "trials")[0][1][0].endswith(name[-1])
    assert not {"\x1b", "\u202e"} & set("".join(one.text for one in reader.elements))
