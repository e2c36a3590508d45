"""Suites: layers, overrides, and messages that blame a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.cli.open import config_text, open_suite
from bench.errors import UserError
from bench.plan import planning
from bench.stage import walk
from bench.suite.layers import merge
from bench.suite.suite import Source, Suite, load
from tests.conftest import ROOT, TINY, Write, line_of

PRESET_LR = 0.06  # of suites/_presets/cpu.yaml
SOURCE = Source(lambda data, split: "0", lambda name: 1)


def keys(suite: Suite) -> dict[str, str]:
    """Row label -> key of the stage that gives its numbers."""
    return {row.label: row.evaluate.key for row in planning.make(suite).rows if row.evaluate is not None}


def test_the_file_overrides_its_preset_value_by_value(write: Write) -> None:
    suite = open_suite(write())
    assert suite.sections.schedule.steps == 3
    assert suite.sections.schedule.nesterov is True  # of the preset, not the default
    assert suite.sections.detector.trunk == "small"
    assert [row.label for row in suite.rows] == ["baseline", "BAGS"]
    assert suite.name == "tiny"


def test_a_preset_of_the_command_line_replaces_the_sections_that_it_defines(write: Write) -> None:
    suite = open_suite(write(), preset="cpu")
    assert (suite.sections.schedule.steps, suite.sections.schedule.lr) == (900, PRESET_LR)
    assert suite.sections.data.model_dump()["classes"] == 80
    assert [row.label for row in suite.rows] == ["baseline", "BAGS"]
    assert len(suite.notes) == 1
    for section in ("data", "input", "schedule", "stages", "test"):
        assert section in suite.notes[0]


def test_set_comes_last(write: Write) -> None:
    sets = ["schedule.lr=1e-3", "rows.BAGS.beta=4", "test.bins=[2, 4]", "machine={threads: 2}", "seeds=[5, 6]"]
    suite = open_suite(write(), preset="cpu", sets=sets)
    assert suite.sections.schedule.lr == 1e-3
    assert suite.rows[1].settings["beta"] == 4
    assert suite.sections.test.bins == (2, 4)
    assert suite.sections.machine.threads == 2
    assert suite.sections.seeds == (5, 6)


def test_set_can_add_a_section_and_fill_an_empty_one(write: Write) -> None:
    text = TINY.replace("{method: baseline}", "{method: baseline, schedule: }")
    suite = open_suite(write(text), sets=["rows.baseline.schedule.steps=7", "cost.predict=2"])
    assert suite.rows[0].schedule == {"steps": 7}
    assert suite.sections.cost.predict == 2


def test_data_of_the_command_line_keeps_the_names_below_the_folder(write: Write, tmp_path: Path) -> None:
    text = TINY.replace("{classes: 4, size: 64, objects: 4, object_px: [10, 24], max_instances: 24, val_instances: 2}",
                        "{name: coco, path: old, val: val.json}")  # fmt: skip
    assert text != TINY
    suite = open_suite(write(text), data=str(tmp_path), sets=["data.train=other.json"])
    expected = {"name": "lvis", "path": str(tmp_path), "val": "val.json", "train": "other.json", "images": "images"}
    assert suite.sections.data.model_dump() == expected | {"exif": "ignore", "negatives": "required"}


def test_data_of_another_name_replaces_the_preset_s(write: Write) -> None:
    assert merge({"data": {"name": "glyphs", "classes": 9}}, {"data": {"name": "lvis", "path": "x"}}) == {
        "data": {"name": "lvis", "path": "x"}
    }
    assert merge({"data": {"name": "glyphs", "classes": 9}}, {"data": {"size": 64}}) == {
        "data": {"name": "glyphs", "classes": 9, "size": 64}
    }


def test_seeds_of_the_command_line(write: Write) -> None:
    assert open_suite(write(), seeds="3, 1,2").sections.seeds == (3, 1, 2)


def test_a_row_s_schedule_changes_its_last_training_alone(write: Write) -> None:
    plain_rows = TINY + "  longer: {method: bags, schedule: {steps: 5, lr: 0.5}}\n"
    plan = planning.make(open_suite(write(plain_rows)))
    rows = {row.label: row.evaluate for row in plan.rows}
    assert rows["longer"] is not None
    trained = [stage for stage in walk(rows["longer"]) if stage.kind == "train"]
    assert [(s.spec["schedule"]["steps"], s.spec["schedule"]["lr"]) for s in trained] == [(3, 0.01), (5, 0.5)]
    base = [stage for stage in walk(rows["baseline"]) if stage.kind == "train"] if rows["baseline"] else []
    assert trained[0] == base[0]


@pytest.mark.parametrize(
    ("old", "new", "sets", "length"),
    [
        ("steps: 3", "epochs: 2", [], (None, 2)),  # in place of the preset's steps
        ("steps: 3", "steps: 3", ["schedule.epochs=2"], (None, 2)),
        ("steps: 3", "epochs: 2", ["schedule.steps=7"], (7, None)),
        ("preset: cpu\n", "", ["schedule.epochs=2"], (None, 2)),  # in place of the default's steps
    ],
)
def test_epochs_and_steps_take_each_other_s_place(
    write: Write, old: str, new: str, sets: list[str], length: tuple[int | None, int | None]
) -> None:
    schedule = open_suite(write(TINY.replace(old, new)), sets=sets).sections.schedule
    assert (schedule.steps, schedule.epochs) == length


def test_epochs_of_a_later_stage(write: Write) -> None:
    suite = open_suite(write(TINY.replace("{steps: 2, lr: 0.01}", "{epochs: 1}")))
    chosen = suite.schedule_named("classifier_only")
    assert (chosen.steps, chosen.epochs) == (None, 1)
    assert suite.schedule_changed(chosen, {"steps": 9}).epochs is None


@pytest.mark.parametrize(
    ("old", "new", "sets", "workers"),
    [
        ("", "", [], "auto"),
        ("input: {", "input: {workers: 2, ", [], 2),
        ("seeds: [0]", "seeds: [0]\nmachine: {workers: 3}", [], 3),
        ("input: {", "input: {workers: 2, ", ["input.workers=5"], 5),
        ("input: {", "input: {workers: 2, ", ["machine.workers=auto"], "auto"),
        ("seeds: [0]", "seeds: [0]\nmachine: {workers: 3}", ["input.workers=0"], 0),
        ("", "", ["input={min_size: 64, max_size: 64, workers: 4}"], 4),
    ],
)
def test_workers_of_the_input_are_the_machine_s(
    write: Write, old: str, new: str, sets: list[str], workers: int | str
) -> None:
    """The setting has moved; the last word counts, under whichever name, and what is not named keeps its value."""
    suite = open_suite(write(TINY.replace(old, new)), sets=sets)
    assert suite.sections.machine.workers == workers
    assert (suite.sections.machine.channels_last, suite.sections.input.min_size) == (True, 64)  # of preset and file
    assert "workers" not in suite.sections.input.model_dump()
    assert "workers" in config_text(suite)


@pytest.mark.parametrize(("value", "what"), [("-1", "greater than or equal to 0"), ("x", "valid integer")])
@pytest.mark.parametrize("line", ["input: {workers: VALUE, ", "machine: {workers: VALUE}\ninput: {"])
def test_a_bad_number_of_workers_is_blamed_on_its_line(write: Write, value: str, what: str, line: str) -> None:
    text = TINY.replace("input: {", line.replace("VALUE", value))
    with pytest.raises(UserError) as error:
        open_suite(write(text))
    assert f"tiny.yaml:{line_of(text, 'workers')} machine.workers" in error.value.where
    assert what in error.value.what
    assert repr(value if value == "x" else int(value)) in error.value.what
    assert "auto" in error.value.allowed


def test_workers_in_both_places_are_refused(write: Write) -> None:
    text = TINY.replace("input: {", "machine: {threads: 1, workers: 2}\ninput: {workers: 2, ")
    with pytest.raises(UserError, match=r"input\.workers and machine\.workers are the same setting") as error:
        open_suite(write(text))
    assert error.value.where.endswith(f"tiny.yaml:{line_of(text, 'input: {')}")


# -- keys


SAME: list[tuple[str, str]] = [
    ("lr: 0.01, warmup", "lr: 1e-2, warmup"),
    ("beta: 8", "beta: 8.0"),
    (", beta: 8", ""),  # the default
    ("steps: 3, batch: 4", "batch: 4, steps: 3"),
    ("checkpoint_every: 1", "checkpoint_every: 2"),
    ("seeds: [0]", "seeds: [0]\nmachine: {threads: 2}\ntitle: another\ncost: {train_step: 3}"),
    ("preset: cpu", "preset: cpu\ndetector: {roi: {beta: 1}}"),  # by hand what the preset says
    ("input: {", "input: {workers: 2, "),
    ("seeds: [0]", "seeds: [0]\nmachine: {workers: 4}"),
]
OTHER: list[tuple[str, str]] = [
    ("lr: 0.01, warmup", "lr: 0.02, warmup"),
    ("batch: 4", "batch: 5"),
    ("seeds: [0]", "seeds: [1]"),
    ("seeds: [0]", "seeds: [0]\nmachine: {precision: bfloat16}"),
    ("objects: 4", "objects: 5"),
    ("min_size: 64", "min_size: 48"),
    ("preset: cpu", "preset: cpu\ndetector: {roi: {width: 64}}"),
    ("[5, 10, 20]", "[5, 10]"),
]


@pytest.mark.parametrize(("old", "new"), SAME)
def test_the_same_experiment_in_other_words_has_the_same_keys(write: Write, old: str, new: str) -> None:
    assert TINY.count(old) == 1
    changed = open_suite(write(TINY.replace(old, new)))
    assert keys(changed) == keys(open_suite(write(TINY, "plain.yaml")))


@pytest.mark.parametrize(("old", "new"), OTHER)
def test_another_experiment_has_other_keys(write: Write, old: str, new: str) -> None:
    assert TINY.count(old) == 1
    changed = keys(open_suite(write(TINY.replace(old, new))))
    before = keys(open_suite(write(TINY, "plain.yaml")))
    assert all(changed[label] != before[label] for label in before)


def test_a_preset_and_the_same_values_by_hand_have_the_same_keys(write: Write) -> None:
    preset = (ROOT / "suites" / "_presets" / "cpu.yaml").read_text()
    rows = "seeds: [0]\nrows:\n  baseline: {method: baseline}\n  BAGS: {method: bags}\n"
    by_hand = open_suite(write(preset + rows, "hand.yaml"))
    assert keys(by_hand) == keys(open_suite(write("preset: cpu\n" + rows)))


def test_a_val_setting_leaves_training_alone(write: Write) -> None:
    one = planning.make(open_suite(write()))
    two = planning.make(open_suite(write(TINY.replace("val_instances: 2", "val_instances: 3"), "b.yaml")))
    shared = [one.stages[key].kind for key in one.stages if key in two.stages]
    assert shared == ["data", "train", "train"]


CONFIGS = {
    "tiny": TINY,
    "inf": TINY.replace("beta: 8", "beta: .inf, edges: [3, 9], schedule: {epochs: 2}"),
    "epochs": TINY.replace("steps: 3", "epochs: 2"),
    "table1": (ROOT / "suites" / "table1.yaml").read_text(),
    "smoke": (ROOT / "suites" / "smoke.yaml").read_text(),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_shown_configuration_can_be_run_again(write: Write, name: str) -> None:
    suite = open_suite(write(CONFIGS[name]))
    again = open_suite(write(config_text(suite), "shown.yaml"))
    assert keys(again) == keys(suite)
    assert again.sections == suite.sections
    assert config_text(again) == config_text(suite)


# -- messages


Case = tuple[str, str, str, str]  # what is replaced, by what, the word whose line is blamed, the message

MESSAGES: list[Case] = [
    ("method: bags", "method: bag", "BAGS:", r"rows\.BAGS: no method 'bag'\. Did you mean 'bags'\? Legal: .*baseline"),
    ("beta: 8", "bta: 8", "BAGS:",
     r"rows\.BAGS: no setting 'bta'\. Did you mean 'beta'\? Legal: beta, .*data, detector, cluster, against, each"),
    ("beta: 8", "beta: many", "BAGS:", r"rows\.BAGS\.beta: .*valid number.*got 'many'"),
    ("beta: 8", "beta: -1", "BAGS:", r"rows\.BAGS\.beta: .*greater than or equal to 0, got -1"),
    ("beta: 8", "edges: [9, 3]", "BAGS:", r"rows\.BAGS\.edges: must ascend, e\.g\. \[10, 100, 1000\], got \[9, 3\]"),
    ("method: bags, beta: 8", "method: rfs, rounding: floor", "BAGS:",
     r"rows\.BAGS\.rounding: .*'stochastic', 'ceil' or 'bags', got 'floor'"),
    ("method: bags, beta: 8", "method: rfs, t: {image: 3}", "BAGS:",
     r"rows\.BAGS\.t\.image: no setting 'image'\. Did you mean 'images'\? Legal: images"),
    ("method: bags, beta: 8", "method: reweight, clip: [1]", "BAGS:",
     r"rows\.BAGS\.clip\.1: value number 2 is missing"),
    ("method: bags, beta: 8", "beta: 8", "BAGS:", r"rows\.BAGS: a row needs a method. Legal: \{method: NAME"),
    ("{method: baseline}", "3", "baseline:", r"rows\.baseline: a row needs a method"),
    ("beta: 8", "schedule: {stps: 2}", "BAGS:", r"rows\.BAGS: no schedule setting 'stps'\. Did you mean 'steps'\?"),
    ("beta: 8", "schedule: {lr: 0}", "BAGS:", r"rows\.BAGS: lr: input should be greater than 0, got 0"),
    ("beta: 8", "schedule: 5", "BAGS:", r"rows\.BAGS: schedule must be a mapping"),
    ("lr: 0.01, warmup", "learn: 0.01, warmup", "schedule:",
     r"schedule\.learn: no setting 'learn'\. Did you mean 'lr'\?"),
    ("steps: 3", "steps: three", "schedule:", r"schedule\.steps: .*valid integer.*got 'three'"),
    ("steps: 3", "steps: 10000000000", "schedule:", r"schedule\.steps: .*less than or equal to 1000000000"),
    ("lr: 0.01, warmup", "lr: .inf, warmup", "schedule:", r"schedule\.lr: input should be a finite number, got inf"),
    ("seeds: [0]", "seeds: [9223372036854775807, 9223372036854775808]", "seeds", r"'9223372036854775808' is too large"),
    ("seeds: [0]", "title: " + "x" * 5000, "title", r"title: .*at most 500 characters, got 'x+ \.\.\. "),
    ("steps: 3", "steps: 0", "schedule:", r"schedule\.steps: .*greater than or equal to 1, got 0"),
    ("steps: 3", "steps: 3, epochs: 1", "schedule:", r"schedule: give either steps or epochs$"),
    ("steps: 3", "decay: square", "schedule:", r"schedule\.decay: .*'linear' or 'none', got 'square'"),
    ("{steps: 2, lr: 0.01}", "{stps: 2}", "classifier_only", r"stages\.classifier_only: no schedule setting 'stps'"),
    ("{steps: 2, lr: 0.01}", "3", "classifier_only", r"stages\.classifier_only: must be a mapping, got 3"),
    ("[5, 10, 20]", "[20, 5]", "test:", r"test\.bins: must ascend, e\.g\. \[10, 100, 1000\], got \[20, 5\]"),
    ("[5, 10, 20]", "[0, 5]", "test:", r"test\.bins\.0: .*greater than or equal to 1, got 0"),
    ("seeds: [0]", "seedz: [0]", "seedz", r"seedz: no setting 'seedz'\. Did you mean 'seeds'\? Legal: .*schedule"),
    ("seeds: [0]", "seeds: 3", "seeds", r"seeds: input should be a list, got 3"),
    ("seeds: [0]", "seeds: []", "seeds", r"seeds must be different integers, at least one"),
    ("seeds: [0]", "seeds: [1, 1]", "seeds", r"seeds must be different integers"),
    ("seeds: [0]", "seeds: [-1]", "seeds", r"seeds\.0: .*greater than or equal to 0, got -1"),
    ("classes: 4", "clases: 4", "data:", r"data\.clases: no setting 'clases'\. Did you mean 'classes'\?.* objects"),
    ("classes: 4", "name: glyph", "data:",
     r"data\.name: no data set 'glyph'\. Did you mean 'glyphs'\? Legal: coco, glyphs"),
    ("classes: 4", "seed: never", "data:", r"data\.seed: .*valid integer.*got 'never'\. Legal: 'follow'"),
    ("{classes: 4", "{name: lvis, trian: x}\nx: {a: 1", "data:",
     r"data\.trian: no setting 'trian'\. .* Legal: exif, images, name"),
    ("{min_size: 64, max_size: 64}", "5", "input:", r"input: must be a mapping, got 5"),
    ("preset: cpu", "preset: cpo", "preset", r"no preset 'cpo'\. Did you mean 'cpu'\? Legal: .*cpu"),
    ("preset: cpu", "preset: [cpu]", "preset", r"no preset '\['cpu'\]'"),
    ("preset: cpu", "preset: cpu\ndetector: {engine: torchvison}", "detector",
     r"detector\.engine: no engine 'torchvison'\. Did you mean 'torchvision'\?"),
    ("preset: cpu", "preset: cpu\ndetector: {trunk: smal}", "detector",
     r"detector\.trunk: no trunk 'smal'\. Did you mean 'small'\? Legal: .*resnet50_fpn"),
    ("preset: cpu", "preset: cpu\ndetector: {rpn: {levels: ['7']}}", "detector",
     r"detector\.rpn\.levels: no feature map"),
    ("preset: cpu", "preset: cpu\ndetector: {weights: none.pth}", "detector",
     r"detector\.weights none\.pth: no such weights"),
    ("preset: cpu", "preset: cpu\nmethods_path: 3", "methods_path", r"methods_path: not a path: 3"),
    ("seeds: [0]", "seeds: [0]\ncompare_with: bags_tabl1", "compare_with",
     r"compare_with: no published table 'bags_tabl1'\. Did you mean 'bags_table1'\?"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "message"), MESSAGES, ids=[c[1] for c in MESSAGES])
def test_an_error_names_the_line_and_what_is_legal(write: Write, old: str, new: str, line: str, message: str) -> None:
    assert TINY.count(old) == 1
    text = TINY.replace(old, new)
    with pytest.raises(UserError, match=rf"tiny\.yaml:{line_of(text, line)}[ :].*{message}"):
        planning.make(open_suite(write(text)))


@pytest.mark.parametrize("rows", ["", "rows: {}\n", "rows: [1]\n", "rows:\n"])
def test_a_suite_needs_rows(write: Write, rows: str) -> None:
    with pytest.raises(UserError, match=r"tiny\.yaml:\d+: a suite needs rows\. Legal: rows: \{label"):
        open_suite(write(TINY.split("rows:")[0] + rows))


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"preset": "cpo"}, r"--preset: no preset 'cpo'\. Did you mean 'cpu'\?"),
    ({"only": "baseline,BAG"}, r"--only .*: no row 'BAG'\. Did you mean 'BAGS'\? Legal: BAGS, baseline"),
    ({"seeds": "1,x"}, r"--seeds: 'x' is not a seed. Legal: non-negative integers"),
    ({"seeds": "-1"}, r"--seeds: '-1' is not a seed"),
    ({"sets": ["schedule.steps"]}, r"--set: 'schedule\.steps' is not key=value\. Legal: e\.g\."),
    ({"sets": ["=3"]}, r"--set: '=3' is not key=value"),
    ({"sets": ["schedule.steps=[3"]}, r"--set: '\[3' is not a YAML value"),
    ({"sets": ["seeds.a=3"]}, r"--set seeds\.a=3: 'seeds' is a value, not a section"),
    ({"sets": ["rows.BGS.beta=4"]}, r"--set rows\.BGS\.beta=4: no row 'BGS'\. Did you mean 'BAGS'\?"),
    ({"sets": ["rows.BAGS.bta=4"]}, r"--set rows\.BAGS: no setting 'bta'\. Did you mean 'beta'\?"),
    ({"sets": ["rows=3"]}, r"--set: a suite needs rows"),
    ({"sets": ["rows.BAGS=3"]}, r"--set rows\.BAGS: a row needs a method"),
    ({"sets": ["schedule..lr=3"]}, r"schedule\.: no setting ''"),
    ({"sets": ["data=3"], "data": "nowhere"}, r"data: must be a mapping, got 3"),
    ({"data": "nowhere"}, r"--data: no such folder nowhere"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=[str(next(iter(o[0].values()))) for o in OPTIONS])
def test_an_error_in_an_option_names_the_option(write: Write, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        planning.make(open_suite(write(), **options))


def test_data_of_the_command_line_over_a_section_that_is_none(write: Write, tmp_path: Path) -> None:
    suite = open_suite(write("data:\nrows: {a: {method: baseline}}\n"), data=str(tmp_path))
    assert suite.sections.data.model_dump()["path"] == str(tmp_path)


def test_a_bare_weights_name_is_found_beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In $BENCH_WEIGHTS, then in `weights` beside the data or one above; the key holds the content, not the place."""
    monkeypatch.delenv("BENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-cache"))
    suite = tmp_path / "s.yaml"
    suite.write_text(
        "detector: {weights: w.pth, trunk: mobilenet_v2_fpn}\n"
        f"data: {{name: lvis, path: {tmp_path / 'sets' / 'birds'}}}\n"
        "rows: {a: {method: baseline}}\n"
    )

    def opened() -> Suite:
        return load(suite, source=SOURCE)

    with pytest.raises(UserError, match=r"s\.yaml:1 detector\.weights w\.pth: no such weights file; looked in"):
        opened().train_spec()
    digests = []
    for folder in (tmp_path / "weights", tmp_path / "sets" / "weights", tmp_path / "mine"):
        folder.mkdir(parents=True)
        (folder / "w.pth").write_bytes(b"the same")
        if folder.name == "mine":
            monkeypatch.setenv("BENCH_WEIGHTS", str(folder))
        spec, aside = opened().train_spec()
        digests.append(spec["weights"])
        assert aside["weights_path"] == str(folder / "w.pth"), "the nearer place wins"
    assert len(set(digests)) == 1


def test_frozen_norm_without_weights_is_noted(tmp_path: Path) -> None:
    suite = tmp_path / "s.yaml"
    suite.write_text("detector: {trunk: resnet18_fpn}\nrows: {a: {method: baseline}}\n")
    notes = load(suite, source=SOURCE).notes
    assert any("detector.norm is frozen" in note for note in notes)


def test_tune_is_a_hundredth_of_the_rate_unless_the_suite_says(write: Write) -> None:
    """BAGS' released configurations: lr 0.01 for 12 epochs, then 1e-4 for 10, x 0.1 after 7."""
    tail = TINY.replace("preset: cpu\n", "") + "  tail: {method: finetune_tail}\n"
    suite = open_suite(write(tail), sets=["schedule.epochs=12"])
    tune = suite.schedule_named("tune")
    assert (tune.epochs, tune.lr, tune.decay, tune.drops) == (10, 0.01 / 100, "steps", (0.7,))
    said = open_suite(write(tail), sets=["stages.tune={lr: 0.5}"]).schedule_named("tune")
    assert (said.lr, said.steps) == (0.5, 3)


@pytest.mark.parametrize("label", ["N=4", "lr 0.2", "rows.a=b.c", "beta {beta}"])
def test_set_reaches_a_row_whatever_its_label(write: Write, label: str) -> None:
    each = ", each: {beta: [1, 2]}" if "{" in label else ""
    text = TINY + f'  "{label}": {{method: bags{each}}}\n'
    suite = open_suite(write(text), sets=[f"rows.{label}.edges=[3, 9]"])
    assert next(row.settings["edges"] for row in suite.rows if row.label not in ("baseline", "BAGS")) == (3, 9)
    with pytest.raises(UserError, match="no row 'nowhere'"):
        open_suite(write(text), sets=["rows.nowhere.edges=[3, 9]"])


STAGED = '''
"""Two trainings, each under a schedule of its own name."""

from typing import ClassVar

from bench.method import Builder, Method
from bench.stage import Stage


class Staged(Method):
    """Train long, then end at a low rate."""

    name: ClassVar[str] = "staged"

    def plan(self, b: Builder) -> Stage:
        return b.train(init=b.train(schedule="pretrain"), keep_classifier=True, schedule="ending")
'''


def staged(write: Write, stages: str) -> Path:
    (write("", "staged.py")).write_text(STAGED)
    text = TINY.replace("  classifier_only: {steps: 2, lr: 0.01}", stages) + "  staged: {method: staged}\n"
    return write(text + "methods_path: staged.py\n")


def test_a_recipe_names_its_own_schedules(write: Write) -> None:
    plan = planning.make(open_suite(staged(write, "  pretrain: {steps: 7}\n  ending: {lr: 0.001}")))
    last = next(row.evaluate for row in plan.rows if row.label == "staged").inputs["predict"].inputs["model"]  # type: ignore[union-attr]
    first = last.inputs["init"]
    assert [(s.spec["schedule"]["steps"], s.spec["schedule"]["lr"]) for s in (first, last)] == [(7, 0.01), (3, 0.001)]


def test_a_row_changes_the_last_of_them_alone(write: Write) -> None:
    path = staged(write, "  pretrain: {steps: 7}\n  ending: {lr: 0.001}")
    suite = open_suite(path, sets=["rows.staged.schedule={steps: 5, checkpoint_every: 2}"], only="staged")
    row = planning.make(suite).rows[0]
    assert row.evaluate is not None
    last = row.evaluate.inputs["predict"].inputs["model"]
    assert (last.spec["schedule"]["steps"], last.spec["schedule"]["lr"]) == (5, 0.001)
    assert (last.not_in_key["checkpoint_every"], last.inputs["init"].not_in_key["checkpoint_every"]) == (2, 1)
    assert last.inputs["init"].spec["schedule"]["steps"] == 7


def test_a_schedule_that_no_recipe_asks_for_is_refused(write: Write) -> None:
    path = staged(write, "  pretrian: {steps: 7}")
    line = line_of(path.read_text(), "pretrian")
    words = rf"tiny\.yaml:{line} stages: no schedule 'pretrian'. Did you mean 'pretrain'\? Legal: classifier_only, end"
    with pytest.raises(UserError, match=words):
        planning.make(open_suite(path))
    kept = staged(write, "  pretrain: {steps: 7}")  # the row that asks for it is left out: it is legal all the same
    assert planning.make(open_suite(kept, only="baseline")).rows
