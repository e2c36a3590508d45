"""Two sources side by side: hand-made numbers and draws, what differs in words, and what is not claimed."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_records import made, made_draws

from bench.errors import UserError
from bench.stage import Stage
from bench.store.store import Store
from reports.compare.comparison import Comparison, compare
from reports.compare.protocols import Differing
from reports.compare.render import files_of, to_json, to_markdown, to_text
from reports.compare.sides import Side, SourceTable, pairs
from reports.load import RowResult
from tests.conftest import Bench, Write
from tests.made_stores import TWO_SEEDS, VALUES, a_plan, finish

Z = 1.959963984540054  # of a normal interval of 95 %
NAMES = ("a.zip", "b.zip")


def stages(rate: float = 0.06, engine: str = "torchvision", *, patched: bool = False) -> Stage:
    val = Stage("data", {"split": "val", "data": {"size": 64}})
    train = Stage("train", {"schedule": {"lr": rate}, "engine": {"name": engine}})
    model = Stage("patch", {"patch": None}, {"model": train}) if patched else train
    return Stage(
        "evaluate", {"bins": [10]}, {"predict": Stage("predict", {}, {"model": model, "val": val}), "val": val}
    )


def drawn(result: RowResult, *points: float, images: int = 90) -> RowResult:
    val = result.record.protocol.val_digest
    return replace(result, draws=made_draws({"AP": np.array(points)}, {"AP": images}, val))


def side(*rows: RowResult, evaluate: Stage | None = None) -> Side:
    return Side(rows, tuple(dict.fromkeys(row.record.row for row in rows)), {"e" * 64: evaluate or stages()})


def texts(found: Comparison) -> list[str]:
    return [f"{one.group}: {one}" for one in found.differing]


def test_a_difference_with_its_interval_by_hand() -> None:
    """Differences of 5 and 7 on two draws: 6 with a standard error of sqrt 2. Of two rows the smaller p doubles."""
    a = side(drawn(made("BAGS", AP=20.0), 19.0, 21.0), drawn(made("RFS", AP=20.0), 10.0, 30.0))
    b = side(drawn(made("BAGS", AP=26.0), 24.0, 28.0), drawn(made("RFS", AP=21.0), 14.0, 28.0))
    found = compare(NAMES, a, b)
    bags, rfs = (pair.difference["AP"] for pair in found.pairs)
    assert bags.cell.mean == 6.0
    assert bags.interval is not None
    assert (bags.interval.low, bags.interval.high) == (
        pytest.approx(6 - Z * math.sqrt(2), 1e-6), pytest.approx(6 + Z * math.sqrt(2), 1e-6),
    )  # fmt: skip
    assert bags.interval.p == pytest.approx(math.erfc(6 / math.sqrt(2) / math.sqrt(2)), 1e-6)
    assert bags.holm == pytest.approx(2 * bags.interval.p, 1e-9)
    assert (bags.certain, rfs.certain) == (True, False)
    text = to_text(found)
    assert "+6.0 [+3.2, +8.8]!" in text
    assert "+1.0 [-7.3, +9.3]" in text  # differences of 4 and -2: a standard error of sqrt 18
    legend = " ".join(text.split())
    assert "where there are several, else for these models" in legend
    assert "Holm's correction over at most 2 rows; each metric by itself, at 5 %" in legend
    assert "| BAGS | 20.0 | 26.0 | **+6.0** [+3.2, +8.8] |" in to_markdown(found)
    lines = list(csv.DictReader(io.StringIO(files_of(found)["compare.csv"])))
    assert [(line["row"], line["metric"], line["a"], line["b"], line["difference"]) for line in lines] == [
        ("BAGS", "AP", "20.0", "26.0", "6.0"), ("RFS", "AP", "20.0", "21.0", "1.0"),
    ]  # fmt: skip
    assert float(lines[0]["low"]) == pytest.approx(6 - Z * math.sqrt(2), 1e-6)
    plain = json.loads(files_of(found)["compare.json"])
    assert (plain["a"], plain["b"], plain["rows"][0]["seeds"]) == ("a.zip", "b.zip", {"a": [0], "b": [0], "both": [0]})
    assert plain["rows"][1]["metrics"]["AP"]["difference"]["mean"] == 1.0


def test_paired_by_the_seeds_of_both() -> None:
    a = side(*(made("BAGS", seed, AP=20.0 + seed) for seed in (0, 1, 2)))
    b = side(*(made("BAGS", seed, AP=30.0 + 3 * seed) for seed in (1, 2, 3)))
    found = compare(NAMES, a, b)
    (pair,) = found.pairs
    assert pair.seeds == ((0, 1, 2), (1, 2, 3), (1, 2))
    assert (pair.a["AP"].mean, pair.b["AP"].mean) == (21.0, 36.0)
    assert pair.difference["AP"].cell.mean == 13.0  # (33 - 21 + 36 - 22) / 2
    assert "seeds: A 0, 1, 2, B 1, 2, 3; a difference is over the seeds that a row has in both" in found.notes


@pytest.mark.parametrize(
    ("of_b", "why", "said"),
    [
        ({"protocol": {"val_digest": "d" * 64}}, "no difference: evaluated on another val",
         "protocol: val digest: A bbbbbbbbbbbb, B dddddddddddd"),
        ({"protocol": {"engine": "detr"}}, "no difference: numbers of two engines are different experiments",
         "protocol: engine: A torchvision, B detr"),
        ({"seed": 5}, "no difference: no seed in common", ""),
    ],
)  # fmt: skip
def test_both_numbers_stand_there_but_no_difference(of_b: dict[str, object], why: str, said: str) -> None:
    a = side(drawn(made("BAGS", AP=20.0), 19.0, 21.0))
    b = side(drawn(made("BAGS", AP=26.0, **of_b), 24.0, 28.0))  # type: ignore[arg-type]
    found = compare(NAMES, a, b)
    (pair,) = found.pairs
    assert (pair.a["AP"].mean, pair.b["AP"].mean, dict(pair.difference), pair.why) == (20.0, 26.0, {}, why)
    assert said in (texts(found) or [""])
    text = to_text(found)
    assert f"BAGS: {why}" in text
    assert "[" not in text.split("row ")[1]
    entry = to_json(found)["rows"][0]
    assert (entry["why"], entry["metrics"]["AP"]["difference"]) == (why, None)


def test_bins_of_other_classes_are_not_subtracted() -> None:
    a, b = side(made("BAGS", AP=20.0, AP1=1.0)), side(made("BAGS", AP=22.0, AP1=3.0, counts=(5, 2000, 50, 300, 1, 9)))
    (pair,) = compare(NAMES, a, b).pairs
    assert {name: one.cell.mean for name, one in pair.difference.items()} == {"AP": 2.0}
    assert "no difference of bins" in pair.why


def test_what_differs_in_words() -> None:
    """The setting says which stage it is of; rows are named where it is not so of all."""
    old = {"commit": "a" * 40, "host": "one", "packages": {"torch": "2.14"}}
    new = {"commit": "b" * 40, "host": "one", "packages": {"torch": "2.15"}}
    a = side(made("baseline", AP=20.0, environment=old), made("BAGS", AP=21.0, environment=old), evaluate=stages(0.06))
    b = side(
        made("baseline", AP=20.0, environment=new), made("BAGS", AP=21.0, environment={**new, "host": "two"}),
        evaluate=stages(0.02, patched=True),
    )  # fmt: skip
    assert texts(compare(NAMES, a, b)) == [
        "settings: train: schedule.lr: A 0.06, B 0.02",
        "settings: patch: A -, B there",
        "ran with: commit: A aaaaaaaaaaaa, B bbbbbbbbbbbb",
        "ran with: torch: A 2.14, B 2.15",
        "ran with: host: A one, B two (BAGS)",
    ]
    assert "nothing differs in protocol, settings, versions or machine" in to_text(compare(NAMES, a, a))


def test_a_version_of_the_code_that_only_the_key_shows() -> None:
    """A stage that was stored by another version of its kind has its settings and another key."""
    older = stages()
    vars(older.inputs["predict"].inputs["model"])["key"] = "0" * 64
    found = texts(compare(NAMES, side(made("BAGS", AP=20.0), evaluate=older), side(made("BAGS", AP=20.0))))
    new = stages().inputs["predict"].inputs["model"].key[:12]
    assert found == [f"settings: train: version of this kind of stage, by its key: A 000000000000, B {new}"]


def trained(*steps: int) -> Stage:
    """An evaluation of a model of trainings one after the other."""
    model: Stage | None = None
    for length in steps:
        model = Stage("train", {"schedule": {"steps": length}}, {"init": model} if model else {})
    assert model is not None
    return Stage("evaluate", {}, {"predict": Stage("predict", {}, {"model": model})})


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ((330,), (60, 20), ["train 1: schedule.steps: A 330, B 60", "train 2: A -, B there"]),
        ((60,), (60, 20), ["train 2: A -, B there"]),
        ((60, 20), (60,), ["train 2: A there, B -"]),
        ((330, 60, 20), (60, 20), ["train 1: schedule.steps: A 330, B 60", "train 2: schedule.steps: A 60, B 20",
                                   "train 3: A there, B -"]),
        ((330,), (60,), ["train: schedule.steps: A 330, B 60"]),
    ],
)  # fmt: skip
def test_trainings_are_paired_whatever_their_number(a: tuple[int, ...], b: tuple[int, ...], said: list[str]) -> None:
    found = compare(NAMES, side(made("X", AP=1.0), evaluate=trained(*a)), side(made("X", AP=1.0), evaluate=trained(*b)))
    assert texts(found) == [f"settings: {line}" for line in said]


def test_a_stage_of_both_is_paired_with_itself() -> None:
    """Of an ensemble's trainings one is in both sides, at another place: the other two are what differs."""

    def ensemble(*steps: int) -> Stage:
        models = {f"model{i}": Stage("train", {"schedule": {"steps": length}}) for i, length in enumerate(steps)}
        return Stage("evaluate", {}, {"predict": Stage("predict", {}, models)})

    a, b = (side(made("X", AP=1.0), evaluate=ensemble(*steps)) for steps in ((60, 330), (90, 60)))
    assert texts(compare(NAMES, a, b)) == ["settings: train 2 (1 of B): schedule.steps: A 330, B 90"]

    c = side(made("X", AP=1.0), evaluate=ensemble(330, 60))
    (one,) = texts(compare(NAMES, a, c))
    assert one.startswith("settings: the order in which its stages are used, by key: A ")


def test_which_seeds_differ() -> None:
    """Of two commits in A and one in B: which row and seed ran with which."""

    def results(*commits: str) -> list[RowResult]:
        cells = [("baseline", 0), ("baseline", 1), ("BAGS", 0), ("BAGS", 1)]
        return [
            made(label, seed, AP=1.0, environment={"commit": commit * 40})
            for (label, seed), commit in zip(cells, commits, strict=True)
        ]

    def said(*commits: str) -> list[str]:
        return texts(compare(NAMES, side(*results(*commits)), side(*results(*"ffff"))))

    a, b, z = "a" * 12, "b" * 12, "f" * 12
    assert said(*"aaaa") == [f"ran with: commit: A {a}, B {z}"]
    assert said(*"abab") == [f"ran with: commit: A {a}, B {z} (seed 0); A {b}, B {z} (seed 1)"]
    assert said(*"aaab") == [f"ran with: commit: A {a}, B {z} (baseline, BAGS seed 0); A {b}, B {z} (BAGS seed 1)"]
    assert said(*"aabb") == [f"ran with: commit: A {a}, B {z} (baseline); A {b}, B {z} (BAGS)"]
    assert said(*"fffa") == [f"ran with: commit: A {a}, B {z} (BAGS seed 1)"]


def test_digests_that_begin_alike_are_shown_apart() -> None:
    ours, theirs = (made("BAGS", AP=1.0, protocol={"val_digest": "b" * 60 + end}) for end in ("0000", "1111"))
    (one,) = compare(NAMES, side(ours), side(theirs)).differing
    assert one == Differing("protocol", "val digest", ((repr("b" * 60 + "0000"), repr("b" * 60 + "1111"), ()),))


def test_one_key_with_other_numbers_is_named() -> None:
    a, b = (
        side(made("baseline", AP=20.0), made("BAGS", AP=21.0)),
        side(made("baseline", AP=20.0), made("BAGS", AP=21.5)),
    )
    (note, seeds) = compare(NAMES, a, b).notes
    assert note.startswith("2 of the 2 results that both have are of the same stages")
    assert note.endswith("other numbers for BAGS seed 0: two runs of one experiment, see what they ran with")
    assert seeds == "seeds 0 in both"
    assert compare(NAMES, a, a).notes[0].endswith("with the same numbers")


def test_rows_of_one_side_alone() -> None:
    found = compare(NAMES, side(made("baseline", AP=20.0)), side(made("BAGS", AP=None, key="f" * 64)))
    assert [(pair.row, pair.why) for pair in found.pairs] == [("baseline", "only in A"), ("BAGS", "only in B")]
    assert found.notes[-2:] == ("rows only in A: baseline", "rows only in B: BAGS")
    assert "| BAGS | - | - | - |" in to_markdown(found)
    renamed = compare(NAMES, side(made("base", AP=20.0)), side(made("baseline", AP=20.0)))
    assert renamed.notes[-1] == "under other labels, by their keys: base of A is baseline of B"


def named(*names: str) -> list[SourceTable]:
    return [SourceTable(name, name.split("-")[0], lambda: side()) for name in names]


def test_which_tables_are_compared() -> None:
    def chosen(ours: list[SourceTable], theirs: list[SourceTable]) -> list[tuple[str, str]]:
        return [(a.name, b.name) for a, b in pairs(ours, theirs, NAMES)]

    assert chosen(named("one"), named("other")) == [("one", "other")]
    assert chosen(named("detr", "table1"), named("smoke", "table1", "detr")) == [("detr", "detr"), ("table1", "table1")]
    assert chosen(named("detr-123456"), named("smoke", "detr-654321")) == [("detr-123456", "detr-654321")]
    with pytest.raises(UserError, match=r"which tables are meant is not clear.*b.zip: detr-1, detr-2"):
        pairs(named("detr"), named("detr-1", "detr-2"), NAMES)
    with pytest.raises(UserError, match="no suite of one name is in both"):
        pairs(named("detr"), named("smoke", "table1"), NAMES)


def test_the_command_on_an_export_a_store_and_a_suite(write: Write, call: Bench, tmp_path: Path) -> None:
    """A store of another commit with a better BAGS, beside the export of the first: by folder, by note, by suite."""
    suite = write(TWO_SEEDS)
    plan = a_plan(suite)
    finish(tmp_path / "store", plan)
    assert call("export", suite, "a.zip").code == 0
    better = {
        name: {**values, "AP": (values["AP"] or 0) + 2.0 * (name[0] == "BAGS")} for name, values in VALUES.items()
    }
    finish(tmp_path / "other", plan, better, {"commit": "d" * 40, "host": "a", "packages": {"torch": "2.14"}})
    for b in (["other"], ["other/roots/tiny.json"], [suite, "--store", "other"]):
        said = call("report", "a.zip", b[0], "--compare", *b[1:], "--out", "out")
        assert said.code == 0, said.err
        assert "commit: A cccccccccccc, B dddddddddddd" in said.out
        assert "other numbers for BAGS seed 0, BAGS seed 1: two runs of one experiment" in " ".join(said.out.split())
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "compare.csv",
            "compare.json",
            "compare.md",
        ]
        plain = json.loads(call("report", "a.zip", b[0], "--compare", *b[1:], "--json").out)
        rows = {row["row"]: row["metrics"]["AP"] for row in plain["rows"]}
        assert (rows["baseline"]["difference"]["mean"], rows["BAGS"]["difference"]["mean"]) == (0.0, 2.0)
        assert (rows["BAGS"]["a"]["mean"], rows["BAGS"]["b"]["mean"]) == (24.5, 26.5)
    Store(tmp_path / "other").register_root("older", "/a/older.yaml", [])  # before its rows were noted
    said = call("report", "a.zip", "other", "--compare")
    assert said.code == 0, said.err
    assert "other: left out, since which rows they have was not noted: older\n" in said.err
    said = call("report", "a.zip", "other/roots/older.json", "--compare")
    assert said.code == 2
    assert "which rows suite older has was not noted" in said.err
    said = call("report", suite, "a.zip", "--compare", "--seeds", "1")
    assert "seeds: A 1, B 0, 1" in said.out


def test_why_a_difference_has_no_interval_is_said() -> None:
    """B's rows are A's, draw by draw; AP1 is shown by 12 images."""
    row = drawn(made("BAGS", AP=20.0, AP1=1.0), 19.0, 21.0)
    thin = replace(
        row, draws=made_draws({"AP": np.array([19.0, 21.0]), "AP1": np.array([0.0, 2.0])}, {"AP": 99, "AP1": 12}, "v")
    )
    text = " ".join(to_text(compare(NAMES, side(thin), side(thin))).split())
    assert "BAGS: no interval where the difference is the same whichever val images are drawn" in text
    assert "val images show a class of it: AP1 (12 images)" in text
