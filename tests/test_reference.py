"""What users read of settings: the terminal, docs/settings.md and editors say the same of every one."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from bench.spec import FolderData, GlyphsData, Schedule, Section
from bench.suite import reference, schema
from bench.suite.clusters import Cluster
from bench.suite.sections import Sections
from tests.conftest import ROOT, Bench


class Kiln(Section):
    """A section of this file."""

    heat: Annotated[float, Field(ge=0.0, le=1300.0)] = 900.0
    """Degrees, over
    two lines."""
    glaze: str | None = None
    rack: Schedule = Schedule()


def test_a_setting_by_hand() -> None:
    assert reference.described(Kiln) == {"heat": "Degrees, over two lines."}
    (schedule,) = [group for group in reference.of_suite() if group.path == "schedule"]
    rate = next(one for one in schedule.settings if one.name == "schedule.lr")
    assert rate == reference.Setting("schedule.lr", "0.02", "number > 0", "Learning rate.")
    drops = next(one for one in schedule.settings if one.name == "schedule.drops")
    assert (drops.default, drops.legal) == ("[0.666667, 0.916667]", "[number 0 to 1]")
    clip = next(one for one in schedule.settings if one.name == "schedule.clip")
    assert (clip.default, clip.legal) == ("35", "number > 0 or null")
    data = [group for group in reference.of_suite() if group.path == "data"]
    assert [group.title for group in data] == ["data: GlyphsData", "data: FolderData"]
    path = next(one for one in data[1].settings if one.name == "data.path")
    assert path.default == "", "it has none"


def test_every_setting_is_explained() -> None:
    groups = [*reference.of_suite(), *reference.of_cluster()]
    silent = [one.name for group in groups for one in group.settings if not one.text]
    assert not silent
    named = {one.name for group in groups for one in group.settings}
    assert named > {"seeds", "schedule.lr", "detector.rpn.nms", "machine.threads", "data.classes", "time_min"}
    assert len(named) > 100


def test_all_sections_of_a_suite_are_found() -> None:
    found = {one.__name__ for one in reference.sections_in(Sections)}
    data = {"GlyphsData", "FolderData"}
    detector = {"TwoStage", "Rpn", "Roi", "SetPrediction", "Detr", "Start"}
    assert found == {
        *data,
        *detector,
        "Input",
        "Inference",
        "Schedule",
        "Rates",
        "Machine",
        "Cost",
        "Figure",
        "Search",
        "Dimension",
    }


def test_the_page_is_what_the_sections_say() -> None:
    """`python -m bench settings --markdown > docs/settings.md` after a change of the sections."""
    assert (ROOT / "docs" / "settings.md").read_text() == reference.markdown()


@pytest.mark.parametrize(("made", "model"), [(schema.of_suite, Sections), (schema.of_cluster, Cluster)])
def test_editors_show_the_same_words(made: object, model: type[BaseModel]) -> None:
    assert callable(made)
    document = made()
    for one in (model, *reference.sections_in(model)):
        place = document if one is model else document["$defs"][one.__name__]
        for name, text in reference.described(one).items():
            if "$ref" not in place["properties"][name] and name != "stages":
                assert place["properties"][name]["description"] == text, (one.__name__, name)
    assert document["properties"]["stages"]["description"] == reference.described(model)["stages"]
    assert "description" in json.dumps(document)


def test_sections_and_settings_are_asked_for_by_name(call: Bench) -> None:
    said = call("settings", "detector.rpn")
    assert said.code == 0
    assert (
        "detector.rpn.nms = 0.7  number 0 to 1\n      IoU from which NMS drops the lower-scored proposal.\n" in said.out
    )
    assert "detector.roi" not in said.out
    one = call("settings", "schedule.lr")
    assert one.out.splitlines()[1:] == ["  schedule.lr = 0.02  number > 0", "      Learning rate."]
    assert "schedule.steps" in call("settings").out
    assert "max_retries = 3" in call("settings", "--cluster").out
    assert call("settings", "--markdown").out == reference.markdown()


@pytest.mark.parametrize(
    ("name", "guess"), [("schedule.lrr", "schedule.lr"), ("inputs", "input"), ("data.clases", "data.classes")]
)
def test_a_mistyped_name_is_answered(name: str, guess: str, call: Bench) -> None:
    said = call("settings", name)
    assert said.code == 2
    assert said.err.startswith(f"error: settings: no section or setting '{name}'. Did you mean '{guess}'?")


def test_a_method_s_settings_are_explained_where_they_are_listed(call: Bench) -> None:
    said = call("methods", "bags")
    assert "  others = True    boolean\n      An others entry in every group.\n" in said.out


def test_texts_are_of_the_class_not_of_its_file() -> None:
    """Two sections of one file have a field of the same name."""
    assert reference.described(GlyphsData)["name"] != reference.described(FolderData)["name"]
