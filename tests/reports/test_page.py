"""The page of a report, read without a browser: well-formed, closed to the network, escaped, and with the numbers."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import printable
from reports.page import render as pages
from reports.page.content import class_grid
from reports.page.images import Browser, Class
from reports.page.render import Page, render
from tests.conftest import Bench, Write
from tests.made_stores import finish_any
from tests.reports.made_page import ERRORS, Reader, made_page, read, result
from tests.reports.made_records import made_more

HOSTILE = (
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\" onclick='x' y=\"", "&lt;b&amp;",
    "{{ 7*7 }}", "=1+1", "\x1b[31mred", "a\u202eb", "]]><!--", "שלום", "x\ny", "'; DROP",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return made_page(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def reader(page: Page) -> Reader:
    return read(render(page))


def cells(reader: Reader, grid: str) -> list[list[tuple[str, str | None]]]:
    """(text, value it is sorted by) of each cell of a table, header first."""
    start = next(i for i, one in enumerate(reader.elements) if one.attributes.get("id") == grid)
    found: list[list[tuple[str, str | None]]] = []
    for element in reader.elements[start + 1 :]:
        if element.tag == "table":
            break
        if element.tag == "tr":
            found.append([])
        if element.tag in ("td", "th") and found:
            found[-1].append((element.text, element.attributes.get("data-v")))
    return found


def test_names_are_unique_and_links_lead_somewhere(reader: Reader) -> None:
    ids = [element.attributes["id"] for element in reader.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    named = {"aria-labelledby", "for"}
    wanted = {value for one in reader.elements for name, value in one.attributes.items() if name in named}
    addresses = [one.attributes["href"] for one in reader.elements if "href" in one.attributes]
    wanted |= {address[1:] for address in addresses if address.startswith("#")}
    values = [value for one in reader.elements for value in one.attributes.values()]
    wanted |= {name for value in values for name in re.findall(r"url\(#([^)]*)\)", value)}
    assert len(wanted) > 50
    assert wanted <= set(ids)
    contents = [one.attributes["href"][1:] for one in reader.all("a") if "nav" in one.inside]
    headings = [one.attributes["id"] for one in reader.all("h2")]
    assert contents == headings
    assert headings == [
        "summary", "results", "differences", "errors", "figures", "classes", "plan", "conditions", "lineage", "commands"
    ]  # fmt: skip


def test_nothing_is_fetched_and_only_what_is_ours_runs(reader: Reader) -> None:
    (policy,) = (one.attributes["content"] for one in reader.all("meta") if "http-equiv" in one.attributes)
    (style,), (script,) = reader.all("style"), reader.all("script")
    digests = [base64.b64encode(hashlib.sha256(one.text.encode()).digest()).decode() for one in (style, script)]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    names = {name for one in reader.elements for name in one.attributes}
    assert not {name for name in names if name.startswith("on") or name in ("style", "srcset", "action", "ping")}
    places = [one.attributes[name] for one in reader.elements for name in ("src", "href") if name in one.attributes]
    assert all(place.startswith(("#", "data:text/csv", "data:image/png;base64,", "data:,")) for place in places)
    assert not re.search(r"url\((?!#)|@import|https?:", style.text + script.text)
    order = [one.tag for one in reader.elements]
    assert reader.elements.index(style) > order.index("meta") + 1, "the policy stands before what it is about"


@pytest.mark.parametrize("name", HOSTILE)
def test_names_come_out_as_text(page: Page, name: str) -> None:
    """As label, class, title, note, command, and in figures and graphs."""
    grid = replace(page.table, lines=((pages.Entry(name), *page.table.lines[0][1:]), *page.table.lines[1:]))
    one = replace(page.chains[0].boxes[0], name=name)
    bad = replace(
        page, title=name, summary=(name,), table=grid, difference_notes=(name,), conditions=(name,), made_by=(name,),
        figures=(replace(page.figures[0], title=name, caption=name),),
        chains=(replace(page.chains[0], row=name, boxes=(one, *page.chains[0].boxes[1:])),),
    )  # fmt: skip
    text = render(bad)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    found, plain = read(text), read(render(page))
    assert {one.tag for one in found.elements} <= {one.tag for one in plain.elements}
    assert len(found.all("script")) == 1
    shown = printable(name)
    for tag in ("title", "h1", "p", "li", "code", "figcaption"):
        assert any(shown in one.text for one in found.all(tag)), tag
    assert any(one.text == shown for one in found.all("th"))
    assert any(shown in one.attributes.get("aria-label", "") for one in found.all("svg"))


def test_hostile_labels_and_classes_of_a_whole_report(tmp_path: Path) -> None:
    """Through rows, table, figures and their CSV files."""
    names = HOSTILE[:6]
    rows = [result(label, 1, names) for label in ("baseline", "BAGS", *names)]
    found = read(render(made_page(tmp_path, rows, title=names[0])))
    assert len(found.all("script")) == 1
    heads = [one.text for one in found.all("th")]
    assert all(heads.count(printable(name)) >= 2 for name in names)  # of the table, and of the classes
    files = [one.attributes["href"] for one in found.all("a") if "download" in one.attributes]
    texts = [base64.b64decode(address.partition("base64,")[2]).decode() for address in files]
    assert any(",'=1+1" in text or "\n'=1+1" in text for text in texts)
    assert not any(re.search("(^|,)=1", text, re.MULTILINE) for text in texts)


def test_the_table_is_sorted_by_values(reader: Reader) -> None:
    head, *lines = cells(reader, "table")
    names = [text for text, _ in head]
    assert names[:6] == ["row", "seeds", "AP", "AP50", "AP1", "AP4"]
    bags = next(line for line in lines if line[0][0] == "BAGS")
    assert dict(zip(names, bags, strict=True))["AP"] == ("23.0 ± 0.0", "23")
    assert dict(zip(names, bags, strict=True))["AP50"] == ("35.2 ± 0.0", "35.25")
    assert dict(zip(names, bags, strict=True))["ΔAP1"] == ("+10.0 ± 0.0", "10")
    assert dict(zip(names, bags, strict=True))["ΔAP control"] == ("+2.0 ± 0.0", "2")
    assert next(line for line in lines if line[0][0] == "cls-retrain")[3] == ("-", "")
    _, *differences = cells(reader, "intervals")
    first = next(line for line in differences if [cell[0] for cell in line[:3]] == ["BAGS", "AP1", "baseline"])
    assert first[3] == ("+10.0", "10")
    assert first[-1] == ("certain", None)
    assert first[5][0] == "<0.001"
    _, *kinds = cells(reader, "error-kinds")
    found = {(line[0][0], line[1][0]): line[2:] for line in kinds}
    assert found["BAGS", "all classes"][0] == ("25.0", "25")
    assert found["BAGS", "1-9 training instances"][5] == ("-", "")


def test_classes_are_means_over_seeds(reader: Reader) -> None:
    head, *lines = cells(reader, "per-class")
    assert [text for text, _ in head] == ["class", "instances", "bin", "baseline", "BAGS", "cls-retrain"]
    assert lines[0] == [("cat", None), ("5", "5"), ("AP1: 1-9", None), *[("11.5", "11.5")] * 3]
    assert lines[1][:3] == [("dog", None), ("2,000", "2000"), ("AP4: 1000+", None)]
    assert lines[2][3:] == [("-", "")] * 3


def test_names_lead_to_their_images(tmp_path: Path, page: Page) -> None:
    """Of classes and of rows, where the image browser has them; and there is no such link without it."""
    browser = Browser("mine", (10, 100, 1000), runs={"BAGS": [(1, 0, 0)]}, classes={Class(2, "dog", 4, "f"): 0})
    found = read(render(made_page(tmp_path, browser=browser)))
    links = [(one.text, one.attributes["href"]) for one in found.all("a") if "images.html" in one.attributes["href"]]
    assert [text for text, address in links if address == "images.html"] == [
        "images with boxes and detections",
        "images",
    ]
    assert ("dog", "images.html#class=0") in links
    assert [address for text, address in links if text == "BAGS"] == [
        "images.html#row=0", "images.html#row=0&bin=1", "images.html#row=0&bin=4",
    ]  # fmt: skip
    assert len(links) == 2 + 1 + 3
    assert "images.html" not in render(page)


def test_classes_whose_counts_follow_the_seed_say_so() -> None:
    first, second = result("baseline", 1), result("baseline", 2)
    classes = second.record.per_class
    assert classes is not None
    other = classes.model_copy(update={"instance_counts": (15, *classes.instance_counts[1:])})
    rows = [first, replace(second, record=second.record.model_copy(update={"per_class": other}))]
    grid = class_grid(rows, ())
    assert grid is not None
    assert [one.text for one in grid.lines[0]] == ["cat", "5-15", "AP1: 1-9 or AP2: 10-99", "11.5"]
    assert grid.lines[0][1].value == 10.0


def test_headers_are_buttons_and_tables_have_names(reader: Reader) -> None:
    heads = [one for one in reader.all("th") if "thead" in one.inside]
    buttons = [one for one in reader.all("button") if "thead" in one.inside]
    assert len(heads) == len(buttons) > 40
    assert all("disabled" in one.attributes and one.attributes["type"] == "button" for one in buttons), "for no script"
    assert {one.attributes["scope"] for one in heads} == {"col"}
    assert len(reader.all("caption")) == len(reader.all("table"))
    assert len(reader.all("main")) == len(reader.all("nav")) == len(reader.all("h1")) == 1
    assert all("hidden" in one.attributes for one in reader.all("div") if one.attributes.get("class") == "controls")
    drawings = reader.all("svg")
    assert len(drawings) == 4 + 3  # forest, bins, norms, errors; three lineages
    assert all(one.attributes["aria-label"] and one.attributes["role"] == "img" for one in drawings)


def test_a_screen_reader_meets_one_landmark_and_hears_a_caption_once(reader: Reader) -> None:
    boxes = [one for one in reader.all("div") if one.attributes.get("class") == "box"]
    assert [one.attributes["role"] for one in boxes].count("region") == 1
    assert {one.attributes["role"] for one in boxes} == {"region", "group"}
    assert all(one.attributes.get("aria-label") or one.attributes.get("aria-labelledby") for one in boxes)
    bins = next(one for one in reader.all("svg") if one.attributes["aria-label"] == "AP by training instances")
    (said,) = [one for one in reader.all("span") if one.attributes.get("id") == bins.attributes["aria-describedby"]]
    assert "One run a row" in said.text or "Mean over seeds" in said.text


def test_what_columns_mean_is_text(reader: Reader) -> None:
    told = [one.text for one in reader.all("p") if one.text.startswith("Columns: ")]
    assert told[0].startswith("Columns: AP = all classes; AP1 = 1-9 training instances; AP4 = 1000+ training instances")
    assert "ΔAP1" not in told[0]
    assert any("class = the right place, the wrong class; " in one for one in told)


def test_errors_are_told_of_all_groups_and_directions(tmp_path: Path) -> None:
    """Of 7 errors of class 4 stay in the bin and 3 go to a more frequent one; of r/c/f where all rows have them."""
    rare = replace(ERRORS, groups={**ERRORS.groups, "APr": ERRORS.groups["AP1"]})
    rows = [replace(result("baseline", seed), errors=rare) for seed in (1, 2)]
    head, *lines = cells(read(render(made_page(tmp_path, rows))), "error-kinds")
    assert [text for text, _ in head[-4:]] == ["unfound", "class, same bin", "class, more frequent", "class, rarer"]
    of = {line[1][0]: [text for text, _ in line[-4:]] for line in lines}
    assert list(of) == ["all classes", "1-9 training instances", "1000+ training instances", "rare"]
    assert of["rare"] == ["1", "4", "3", "0"]


def test_what_predictions_say_beside_ap(tmp_path: Path, reader: Reader) -> None:
    """No image has more than 200 proposals: AR@1000 repeats AR@300. A row without has no line; none, no table."""
    ours = [replace(result("BAGS", seed), more=made_more(reached=0.6 + seed / 100, most=200)) for seed in (1, 2)]
    found = read(render(made_page(tmp_path, [*ours, result("baseline", 1)])))
    head, *lines = cells(found, "beside")
    assert [text for text, _ in head] == ["row", "AP_fixed", "AP_pool", "ECE", "AR@100", "AR@300"]
    (line,) = lines
    assert [text for text, _ in line] == ["BAGS", "50.0 ± 0.0", "25.0 ± 0.0", "6.2 ± 0.0", "61.5 ± 0.7", "61.5 ± 0.7"]
    assert float(line[4][1] or "") == pytest.approx(61.5)
    assert any("AP_pool = AP of one precision-recall curve of all classes, by score" in p.text for p in found.all("p"))
    assert not any(one.attributes.get("id") == "beside" for one in reader.elements)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, page: Page) -> None:
    again = made_page(tmp_path / "again")
    assert render(replace(again, commands=page.commands)) == render(page)  # a command names the folder of the store
    assert again.forest is not None
    assert page.forest is not None
    assert again.forest.svg == page.forest.svg


def test_every_number_has_its_command(reader: Reader, page: Page) -> None:
    _, *lines = cells(reader, "makes")
    assert [(line[0][0], line[1][0], line[2][0]) for line in lines[2:4]] == [
        ("BAGS", "1", "23.0"),
        ("BAGS", "2", "23.0"),
    ]
    words = shlex.split(lines[3][3][0])
    assert words[:4] == ["python", "-m", "bench", "run"]
    assert words[-4:] == ["--only", "BAGS", "--seeds", "2"]
    steps = page.chains[1].seeds[1][1]
    assert steps[-1].what == "evaluate BAGS"
    why = shlex.split(lines[3][4][0])
    assert why[3] == "why"
    assert why[-1].startswith(steps[-1].key)


def test_lineage_and_cost(reader: Reader, page: Page) -> None:
    bags = next(chain for chain in page.chains if chain.row == "BAGS")
    assert [(box.kind, box.name) for box in bags.boxes] == [
        ("data", "train"), ("train", "baseline"), ("train", "BAGS"), ("predict", "BAGS"), ("evaluate", "BAGS")
    ]  # fmt: skip
    # By hand, of each seed: 2 data, 3 trainings, 3 predictions, 3 evaluations, of 1.5 s each; unshared 5 + 6 + 6.
    assert page.cost == (
        "22 stages, 22 of them done; 6 serve more than one row, and without sharing there would be 34.",
        "Measured: 33 s in all (data 6 s, train 9 s, predict 9 s, evaluate 9 s). Each row by itself would have taken "
        "51 s, without what one pass saves.",
    )
    _, first, second, *_ = cells(reader, "stages")
    assert [text for text, _ in (*first[:1], *first[2:6])] == [
        "data train",
        "baseline, BAGS, cls-retrain",
        "done",
        "3",
        "1.5",
    ]
    assert second[0][0] == "train baseline"


def test_what_there_is_not_is_said(tmp_path: Path) -> None:
    found = read(render(made_page(tmp_path, [])))
    text = found.all("main")[0].text
    for sentence in ("No row has a number yet.", "There are no intervals", "The report has no figure.",
                     "They were not counted", "No row has AP by class."):  # fmt: skip
        assert sentence in text


def test_the_command_line_writes_it(call: Bench, write: Write, tmp_path: Path) -> None:
    finish_any(tmp_path / "store", write(), seeds="1-2")
    said = call("report", write(), "--html", "--seeds", "1-2", "--set", "title=a <b> c", "--out", "out")
    assert said.code == 0, said.err
    assert "report.html" in said.out
    found = read((tmp_path / "out" / "report.html").read_text())
    assert found.all("h1")[0].text == "tiny: a <b> c"
    _, *lines = cells(found, "makes")
    words = shlex.split(lines[3][3][0])
    assert words[-6:] == ["--set", "title=a <b> c", "--only", "BAGS", "--seeds", "2"]
    shown = call("plan", *words[4:], "--json")
    assert shown.code == 0, shown.err
    assert '"evaluate"' in shown.out
    why = shlex.split(lines[3][4][0])
    explained = call("why", *why[4:])
    assert explained.code == 0, explained.err
    assert explained.out.startswith(f"evaluate {why[-1]}")
    refused = call("report", write(), "--html", "--json")
    assert refused.code == 2
    assert "--json writes no report" in refused.err
    plain = call("report", write(), "--seeds", "1-2", "--out", "plain")
    assert plain.code == 0
    assert (tmp_path / "plain" / "table.md").exists()
    assert not (tmp_path / "plain" / "report.html").exists()
