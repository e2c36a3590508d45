"""The contact sheet: the same images for all rows, what is drawn of a row, and what is said where nothing can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.spec import Figure
from reports.figures.contact_sheet import MOST, contact_sheet
from reports.figures.kinds import draw
from reports.figures.scene import Scene
from reports.sheets import with_sheets
from tests.reports.made_images import made_store


def test_as_many_of_the_best_as_an_image_has_boxes(tmp_path: Path) -> None:
    store, rows, stages = made_store(tmp_path)
    drawing = contact_sheet(Scene(with_sheets(store, stages, rows)))
    assert drawing is not None
    assert drawing.lines == (
        ("baseline", 1, 7, "a.jpg", "true positive", "cat", 0.8999999761581421, "cat"),  # float32 in the store
        ("baseline", 1, 7, "a.jpg", "duplicate", "cat", 0.800000011920929, "cat"),
        ("BAGS", 1, 7, "a.jpg", "true positive", "dog", 0.8500000238418579, "dog"),
        ("BAGS", 1, 7, "a.jpg", "missed box", "cat", None, None),
        ("baseline", 1, 3, "b.jpg", "missed box", "elk", None, None),
        ("BAGS", 1, 3, "b.jpg", "missed box", "elk", None, None),
    )
    axes = drawing.figure.axes
    assert [one.get_title() for one in axes[:3]] == ["true boxes", "baseline", "BAGS"]
    assert len(axes) == 3 * 3
    assert [axes[i].get_ylabel() for i in (0, 3, 6)] == ["cat (5)", "elk (50)", "no box"]
    # Each box is drawn twice, on a white edge: two boxes; a hit and a duplicate; a hit and a missed box.
    assert [len(one.patches) for one in axes[:3]] == [4, 4, 4]
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()] == [
        "box", "true positive", "duplicate", "missed box",
    ]  # fmt: skip
    assert "Not drawn" not in str(drawing.figure.get_label())


def test_the_first_seed_of_each_row_and_the_first_rows(tmp_path: Path) -> None:
    store, rows, stages = made_store(tmp_path)
    later = replace(rows[0], record=rows[0].record.model_copy(update={"seed": 2}))
    found = with_sheets(store, stages, [later, *rows])
    assert [row.sheet is not None for row in found] == [False, True, True]
    many = [replace(found[1], record=found[1].record.model_copy(update={"row": f"row {i}"})) for i in range(MOST + 2)]
    drawing = contact_sheet(Scene(many))
    assert drawing is not None
    assert len({line[0] for line in drawing.lines}) == MOST
    assert str(drawing.figure.get_label()).endswith(f"Not drawn: row {MOST}, row {MOST + 1}.")
    named = contact_sheet(Scene(many), labels=[row.record.row for row in many])
    assert named is not None
    assert len({line[0] for line in named.lines}) == MOST + 2


def test_images_that_are_gone_are_said(tmp_path: Path) -> None:
    """In the report's words, and without the figure."""
    store, rows, stages = made_store(tmp_path)
    val = stages[rows[0].record.evaluate_key].inputs["val"]
    (store.output(val.key) / "pixels.npy").unlink()
    found = with_sheets(store, stages, rows)
    assert [row.sheet for row in found] == [None, None]
    drawn, lacking = draw(found, tmp_path, [Figure(kind="contact_sheet")], suite="mine")
    assert not drawn
    (said,) = lacking
    assert said.startswith("no figure contact_sheet: its val images cannot be read")


def test_the_files(tmp_path: Path) -> None:
    store, rows, stages = made_store(tmp_path / "store", names=("$a$", "=1+1", "<b>"))
    (one,), lacking = draw(with_sheets(store, stages, rows), tmp_path, [Figure(kind="contact_sheet")], suite="mine")
    assert not lacking
    assert {path.name for path in one.files} == {f"contact_sheet.{suffix}" for suffix in ("png", "svg", "csv")}
    assert ",'=1+1," in (tmp_path / "contact_sheet.csv").read_text()
    assert "$a$" in (tmp_path / "contact_sheet.svg").read_text()
