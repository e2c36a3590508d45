"""A printed command does what it says: it is about the same table, in the same store, with every option that made it.

Each is run as `plan --show-config`, whose text is the configuration; what it starts is not run here.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from bench.tracking.track import SyncCount
from tests.conftest import TINY, Bench, Write

OPTIONS = (
    "--preset", "cpu", "--set", "schedule.lr=0.02", "--set", "title=a b 'c'", "--only", "BAGS", "--only", "base*",
    "--seeds", "1-5", "--seeds", "9",
)  # fmt: skip
UNKNOWN = TINY.replace("seeds: [0]", "seeds: [0]\ncost: {train_step: null}")  # so that `plan` names a measurement
COMMAND = re.compile(r"python -m bench (\w+) (.*?)(?: \(.*\))?$", re.MULTILINE)


def commands(text: str) -> list[tuple[str, list[str]]]:
    return [(verb, shlex.split(words)) for verb, words in COMMAND.findall(text)]


def configuration(call: Bench, words: list[str]) -> str:
    """What a command is about; a row or stage that it names is left out, as is what `plan` does not take."""
    suite, *rest = words
    if rest and not rest[0].startswith("--"):
        rest = rest[1:]
    if "--cluster" in rest:
        at = rest.index("--cluster")
        rest = rest[:at] + rest[at + 2 :]
    if "BAGS" in rest[-1:] and rest[-2:-1] != ["--only"]:
        rest = rest[:-1]
    shown = call("plan", suite, *rest, "--show-config")
    assert shown.code == 0, shown.err
    return shown.out


@pytest.mark.parametrize(
    ("verb", "least"),
    [(("plan",), 1), (("status",), 1), (("stop",), 1), (("retry",), 1), (("logs", "BAGS"), 1)],
)
def test_what_a_command_prints_is_about_the_same_table(
    call: Bench, write: Write, verb: tuple[str, ...], least: int
) -> None:
    """Preset, rows, seeds and settings as they were given, with quotes and all; and the same store."""
    suite = write()
    wanted = configuration(call, [str(suite), *OPTIONS])
    assert yaml.safe_load(wanted)["title"] == "a b 'c'"
    said = call(verb[0], suite, *verb[1:], "--store", "else where", *OPTIONS)
    assert said.code == 0, said.err
    found = commands(said.out)
    assert len(found) >= least, said.out
    for _, words in found:
        assert words[words.index("--store") + 1] == "else where"
        assert configuration(call, words) == wanted, words


def test_a_message_names_the_command_with_its_options(call: Bench, write: Write) -> None:
    said = call("why", write(), "BAG", *OPTIONS)
    (_, words), = commands(said.err)  # fmt: skip
    assert configuration(call, words) == configuration(call, [str(write()), *OPTIONS])


@pytest.mark.parametrize("verb", ["sync", "search"])
def test_the_command_that_goes_on_names_the_tracking_server(
    call: Bench, write: Write, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """It filled the store's own database instead. Its password is not shown."""
    Path("else where").mkdir()
    told: dict[str, str] = {}
    monkeypatch.setattr("bench.tracking.track.sync", lambda *_: SyncCount(notice="MLflow was not updated"))
    monkeypatch.setattr("bench.cli.search.search", lambda *_, again, **__: told.update(again=again) or 0)
    monkeypatch.setattr("bench.cli.search.plans.searched", lambda suite: None)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    uri = "postgresql://me:pass@127.0.0.1:9/x"
    said = call(verb, write(), "--store", "else where", "--seeds", "1", "--tracking-uri", uri)
    assert said.code == (2 if verb == "sync" else 0), said.err
    text = said.err if verb == "sync" else told["again"]
    ((found, words),) = commands(text)
    assert (found, words[1:]) == (
        verb, ["--store", "else where", "--seeds", "1", "--tracking-uri", "postgresql://***@127.0.0.1:9/x"],
    )  # fmt: skip


def test_the_measurement_that_plan_proposes_is_of_the_same_data_and_model(call: Bench, write: Write) -> None:
    """Only its rows, seeds and lengths are others."""
    suite = write(UNKNOWN)
    settings = ["--set", "data.objects=5", "--set", "detector.roi.width=64", "--store", "elsewhere"]
    line = next(line for line in call("plan", suite, *settings).out.splitlines() if "measure it first" in line)
    (_, words), = commands(line)  # fmt: skip
    assert words[words.index("--store") + 1] == "elsewhere"
    probe, whole = (yaml.safe_load(configuration(call, text)) for text in (words, [str(suite), *settings]))
    assert probe["data"] == whole["data"]
    assert probe["data"]["objects"] == 5
    assert probe["detector"] == whole["detector"]
    assert (probe["schedule"]["steps"], whole["schedule"]["steps"]) == (20, 3)


def test_own_data_leave_the_papers_columns_out(call: Bench, write: Write, tmp_path: Path) -> None:
    """They were measured on other data; who wants them says so."""
    suite = write(TINY + "compare_with: bags_table1\n")
    (tmp_path / "mine").mkdir()
    words = [str(suite), "--preset", "photo-cpu", "--set", "detector.weights=null", "--data", "mine"]
    assert "compare_with: null" in configuration(call, words)
    assert "compare_with: bags_table1" in configuration(call, [*words, "--set", "compare_with=bags_table1"])
    assert "compare_with: bags_table1" in configuration(call, [str(suite)])
