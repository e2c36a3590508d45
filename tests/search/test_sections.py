"""What a `search:` section may say: every mistake is one message, with its line and what is legal."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli.open import open_suite
from bench.errors import UserError
from bench.suite.search import Dimension, Space, dimension_text

ROWS = """preset: cpu
rows:
  baseline: {method: baseline}
  BAGS: {method: bags, beta: 8}
  tau-norm: {method: tau_norm}
search:
  rows: [BAGS, tau-norm]
"""


def opened(folder: Path, section: str, rows: str = ROWS) -> Space:
    path = folder / "s.yaml"
    path.write_text(rows + section)
    space = open_suite(path).space
    assert space is not None
    return space


# (what stands in the section, what the message must hold). Line 8 is the first line of the section's own text.
BAD = {
    "no space": ("  trials: 4\n", ["s.yaml:6 search.space", "missing"]),
    "empty space": ("  space: {}\n  trials: 4\n", ["s.yaml:6 search", "space is empty"]),
    "unknown word": ("  space: {beta: 1:8}\n  trails: 4\n", ["s.yaml:9 search.trails", "Did you mean 'trials'?"]),
    "unknown setting": ("  space: {bta: 1:8}\n  trials: 4\n", ["s.yaml:8 search.space.bta", "Did you mean 'beta'?"]),
    "a setting of a row that is not searched": (
        "  space: {keep_classifier: [true, false]}\n  trials: 4\n", ["search.space.keep_classifier", "bags, tau_norm"]
    ),
    "unknown row": ("  space: {tau: {low: 0, high: 1, when: {row: tau}}}\n  trials: 4\n", ["no row 'tau'", "tau-norm"]),
    "unknown dimension in when": (
        "  space: {tau: {low: 0, high: 1, when: {x: 1}}}\n  trials: 4\n", ["search.space.tau.when", "no dimension 'x'"]
    ),
    "a value that a choice never has": (
        "  space: {background: [scaled, kept], tau: {low: 0, high: 1, when: {background: gone}}}\n  trials: 4\n",
        ["search.space.tau.when", "no trial could use 'tau'", "scaled, kept"],
    ),
    "when over a range": (
        "  space: {beta: 1:8, tau: {low: 0, high: 1, when: {beta: 2}}}\n  trials: 4\n", ["'beta' is a range"]
    ),
    "a circle": (
        "  space:\n    background: {choices: [scaled, kept], when: {tau: 0}}\n"
        "    tau: {choices: [0, 1], when: {background: kept}}\n  trials: 4\n", ["depend on each other"],
    ),
    "a setting that no trial could use": (
        "  space: {beta: {low: 1, high: 8, when: {row: tau-norm}}}\n  trials: 4\n", ["no trial could use 'beta'"]
    ),
    "low above high": ("  space: {beta: 8:1}\n  trials: 4\n", ["s.yaml:8 search.space.beta", "low must be below high"]),
    "log from zero": ("  space: {beta: 0:8:log}\n  trials: 4\n", ["log: true needs a low above 0"]),
    "log and step": ("  space: {beta: 1:8:log:1}\n  trials: 4\n", ["log and step exclude each other"]),
    "a step beyond the range": ("  space: {beta: 1:8:9}\n  trials: 4\n", ["step 9 is larger than the range"]),
    "whole numbers with a fraction": ("  space: {beta: 1:8.5:int}\n  trials: 4\n", ["needs whole numbers"]),
    "a range and choices": (
        "  space: {beta: {low: 1, high: 8, choices: [1, 2]}}\n  trials: 4\n", ["choices, or a range", "not both"]
    ),
    "half a range": ("  space: {beta: {low: 1}}\n  trials: 4\n", ["low and high, or choices"]),
    "a choice twice": ("  space: {background: [scaled, scaled]}\n  trials: 4\n", ["a choice is there twice"]),
    "no dimension at all": ("  space: {beta: 1:b}\n  trials: 4\n", ["search.space.beta", "LOW:HIGH"]),
    "out of the setting's range": (
        "  space: {tau: 0:2}\n  trials: 4\n", ["s.yaml:8 search.space.tau", "less than or equal to 1, got 2.0"]
    ),
    "of another type": (
        "  space: {schedule.steps: 100:900}\n  trials: 4\n", ["search.space.schedule.steps", "valid integer"]
    ),
    "an illegal choice": ("  space: {background: [scaled, none]}\n  trials: 4\n", ["'scaled' or 'kept'", "'none'"]),
    "unknown setting of the schedule": (
        "  space: {schedule.rate: 0.1:1}\n  trials: 4\n", ["no schedule setting 'rate'", "lr"]
    ),
    "the data": ("  space: {data.classes: 10:80:int}\n  trials: 4\n", ["'data' cannot be searched"]),
    "row by hand": ("  space: {row: [BAGS]}\n  trials: 4\n", ["`row` is a dimension by itself"]),
    "unknown label": ("  space: {beta: 1:8}\n  trials: 4\n", ["s.yaml:7 search.rows", "no row 'NCM'"]),
    "unknown metric": (
        "  space: {beta: 1:8}\n  trials: 4\n  objective: mAP\n", ["s.yaml:10 search.objective", "metric 'mAP'", "AP1"]
    ),
    "a bin that there is not": ("  space: {beta: 1:8}\n  trials: 4\n  objective: AP5\n", ["no metric 'AP5'", "AP4"]),
    "an objective twice": ("  space: {beta: 1:8}\n  trials: 4\n  objective: [AP, AP]\n", ["different metrics"]),
    "unknown sampler": ("  space: {beta: 1:8}\n  trials: 4\n  sampler: bayes\n", ["'tpe'", "'bayes'"]),
    "no budget": ("  space: {beta: 1:8}\n", ["needs a budget: trials (--trials 16), hours"]),
    "no trials": ("  space: {beta: 1:8}\n  trials: 0\n", ["s.yaml:9 search.trials", "greater than or equal to 1"]),
    "a grid without a step": ("  space: {beta: 1:8}\n  sampler: grid\n", ["a grid needs a step", "'beta'"]),
    "a grid of a million": (
        "  space: {beta: 1:8:0.001, tau: 0:1:0.001, schedule.lr: 0.1:1:0.0001}\n  sampler: grid\n  rows: []\n",
        ["more than 10,000 points"],
    ),
    "cmaes of choices": ("  space: {background: [scaled, kept]}\n  trials: 4\n  sampler: cmaes\n", ["two ranges"]),
    "cmaes of two objectives": (
        "  space: {beta: 1:8}\n  trials: 4\n  sampler: cmaes\n  objective: [AP1, AP4]\n", ["cmaes has one objective"]
    ),
    "a pruner of two objectives": (
        "  space: {beta: 1:8}\n  trials: 4\n  pruner: median\n  rungs: [9]\n  objective: [AP1, AP4]\n", ["one"]
    ),
    "a pruner without rungs": ("  space: {beta: 1:8}\n  trials: 4\n  pruner: hyperband\n", ["needs rungs"]),
    "rungs without a pruner": ("  space: {beta: 1:8}\n  trials: 4\n  rungs: [100]\n", ["pruner none has no rungs"]),
    "rungs that fall": (
        "  space: {beta: 1:8}\n  trials: 4\n  pruner: median\n  rungs: [300, 100]\n", ["rungs must ascend"]
    ),
    "a rung after the end": (
        "  space: {schedule.steps: 100:900:int}\n  trials: 4\n  pruner: median\n  rungs: [100]\n",
        ["search.rungs", "100 is not before the end"],
    ),
    "wilcoxon of one seed": ("  space: {beta: 1:8}\n  trials: 4\n  pruner: wilcoxon\n", ["compares over seeds"]),
    "a round too small": (
        "  space: {beta: 1:8}\n  trials: 4\n  pruner: hyperband\n  rungs: [9]\n  round: 2\n", ["at least reduction"]
    ),
    "all of the images": ("  space: {beta: 1:8}\n  trials: 4\n  tune: 1\n", ["s.yaml:10 search.tune", "less than 1"]),
    "another split": ("  space: {beta: 1:8}\n  trials: 4\n  tune_on: test\n", ["search.tune_on", "'train'", "'val'"]),
    "a number of thousands of digits": (f"  space: {{beta: 1:{'9' * 4000}}}\n  trials: 4\n", ["search.space.beta"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_message(name: str, tmp_path: Path) -> None:
    section, holds = BAD[name]
    searched = "[NCM]" if name == "unknown label" else "[tau-norm]" if "scaled" in section else "[BAGS, tau-norm]"
    rows = ROWS.replace("[BAGS, tau-norm]", searched)
    if "rows: []" in section:
        rows, section = rows.replace("  rows: [BAGS, tau-norm]\n", ""), section.replace("  rows: []\n", "")
    with pytest.raises(UserError) as caught:
        opened(tmp_path, section, rows)
    text = str(caught.value)
    assert "s.yaml" in text
    for part in holds:
        assert part in text
    assert len(text) < 2000


def test_twenty_kinds_and_more() -> None:
    assert len(BAD) >= 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5:32:log", {"low": 0.5, "high": 32.0, "log": True}),
        ("100:1337:int", {"low": 100.0, "high": 1337.0, "int": True}),
        ("0:1:0.025", {"low": 0.0, "high": 1.0, "step": 0.025}),
        ("a,b", {"choices": ["a", "b"]}),
        ("1,2.5,true,null", {"choices": [1, 2.5, True, None]}),
        ("scaled", {"choices": ["scaled"]}),
    ],
)
def test_the_short_form(text: str, expected: dict[str, object]) -> None:
    assert dimension_text(text) == expected


def test_values_of_a_step_are_those_that_one_would_write() -> None:
    values = Dimension(low=0, high=1, step=0.025).values()
    assert values is not None
    assert len(values) == 41
    assert values[:4] == (0.0, 0.025, 0.05, 0.075)
    assert values[12] == 0.3  # 12 * 0.025 is 0.30000000000000004
    assert values[-1] == 1.0
    assert Dimension(low=2, high=9, step=3, int=True).values() == (2, 5, 8)
    assert Dimension(low=0, high=1).values() is None


def test_points_of_a_conditional_grid(tmp_path: Path) -> None:
    space = opened(
        tmp_path,
        "  space: {beta: [4, 8], tau: 0:1:0.5, background: {choices: [scaled, kept], when: {row: tau-norm}}}\n"
        "  sampler: grid\n",
    )
    found = list(space.points() or ())
    assert found == [
        {"row": "BAGS", "beta": 4}, {"row": "BAGS", "beta": 8},
        {"row": "tau-norm", "tau": 0.0, "background": "scaled"}, {"row": "tau-norm", "tau": 0.0, "background": "kept"},
        {"row": "tau-norm", "tau": 0.5, "background": "scaled"}, {"row": "tau-norm", "tau": 0.5, "background": "kept"},
        {"row": "tau-norm", "tau": 1.0, "background": "scaled"}, {"row": "tau-norm", "tau": 1.0, "background": "kept"},
    ]  # fmt: skip


def test_a_trial_is_its_row_with_other_settings(tmp_path: Path) -> None:
    space = opened(tmp_path, "  space: {beta: 1:8, schedule.lr: 0.001:0.1:log, tau: 0:1}\n  trials: 4\n")
    row = space.row("trial 3", {"row": "BAGS", "beta": 2.5, "schedule.lr": 0.01})
    assert (row.label, row.method.name, row.settings["beta"]) == ("trial 3", "bags", 2.5)
    assert row.schedule == {"lr": 0.01}
    other = space.row("trial 4", {"row": "tau-norm", "tau": 0.25, "schedule.lr": 0.01})
    assert other.settings["tau"] == 0.25
    assert space.rows["BAGS"].settings["beta"] == 8


def test_the_search_is_in_no_key(tmp_path: Path) -> None:
    """A suite with a search plans the stages of the one without."""
    from bench.plan import planning

    def keys(section: str) -> set[str]:
        path = tmp_path / "s.yaml"
        path.write_text(ROWS.split("search:")[0] + section)
        return set(planning.make(open_suite(path)).stages)

    assert keys("") == keys("search: {space: {beta: 1:8}, trials: 3}\n")
