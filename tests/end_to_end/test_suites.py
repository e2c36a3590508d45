"""Every suite of the house, cut down to seconds, down to the table and the figures that it ends in."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from rich.console import Console
from tiny_suite import ROOT, bring

from bench.cli import report
from bench.cli.open import open_suite
from bench.engines.facts import ENGINES
from bench.plan import planning
from bench.store.store import Store

SETS = (
    "data.classes=8", "data.size=64", "data.max_instances=30", "data.val_instances=2", "input.min_size=64",
    "input.max_size=64", "schedule.steps=12", "schedule.batch=4", "schedule.lr=0.02", "schedule.warmup=3",
    "stages.second={steps: 3, lr: 0.01}", "stages.classifier_only={steps: 4, lr: 0.01}",
    "stages.tune={steps: 3, lr: 1e-3}", "test.bins=[5, 15, 25]",
)  # fmt: skip
# Rows of each suite, and the figures that it names (without them: AP by bin, and weight norms).
USUAL = ["ap_by_bin", "error_costs", "weight_norms"]
# No ranking: two images of a class are too few to be drawn again.
TABLE1 = sorted((*USUAL, "head_and_tail", "confusion_of_bins", "recall", "calibration", "cost_and_gain"))
ENDS = {
    "table1": (15, TABLE1),
    "table4": (7, ["bars"]),
    "table5": (5, ["bars"]),
    "figure1": (2, ["weight_norms"]),
    "figure3": (4, ["weight_norms"]),
    "figure4": (13, ["sweep_beta"]),
    "figure5_left": (19, ["sweep_beta"]),
    "figure5_right": (14, ["bars", "sweep_tau"]),
    "head_schedule": (46, ["sweep_schedule_lr"]),
    "choices": (25, ["bars"]),
    "second_stage": (7, ["sweep_schedule_steps"]),
    "stepwise": (8, ["ap_by_bin", "class_counts", "losses"]),
    "stepwise_components": (5, USUAL),
    "stepwise_transfer": (7, USUAL),
    "stepwise_exemplars": (10, USUAL),
    "stepwise_division": (7, USUAL),
    "stepwise_memory": (5, USUAL),
    "stepwise_rfs": (5, USUAL),
    "simltd": (6, USUAL),
    "drcl": (8, ["ap_by_bin", "attention", "embeddings", "linear_probe", "losses", "reconstructions"]),
    "drcl_ablation": (11, ["ap_by_bin", "linear_probe", "reconstructions"]),
    "drcl_cost": (9, ["cost"]),
    "drcl_rebalancing": (7, USUAL),
    "detr": (10, ["ap_by_bin", "confusion_of_bins", "error_costs", "head_and_tail"]),
    "stepwise_detr": (7, ["ap_by_bin", "error_costs", "losses"]),
    "engines": (10, ["ap_by_bin", "error_costs", "head_and_tail"]),
}
ABSENT = ENGINES["detectron2"].absent()  # why its rows are skipped here
CHAINS = ("expert", "unified", "tail", "few", "pretrain")  # names of schedules that recipes of chains use
COMMON = ("data.max_instances=400", "data.objects=3")  # classes in more than 100 images, where a chain divides them


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store, as a user has it: whichever suite comes first trains the baseline of all."""
    return tmp_path_factory.mktemp("suites") / "store"


def test_all_suites_are_here() -> None:
    searches = {path.stem for path in (ROOT / "suites").glob("search_*.yaml")}  # tests/search
    named = {path.stem for path in (ROOT / "suites").glob("*.yaml")} - {"smoke"} - searches
    assert named == set(ENDS)


@pytest.mark.parametrize("name", ENDS)
def test_a_suite_runs_to_its_table_and_figures(
    name: str, root: Path, tmp_path: Path, surroundings: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "suites" / f"{name}.yaml").read_text()
    text = re.sub(r"schedule\.steps: \[[^]]*\]", "schedule.steps: [2, 4]", text)
    text = re.sub(r"({method: .*schedule: {steps: )\d+", r"\g<1>5", text)  # a row's own length
    (tmp_path / f"{name}.yaml").write_text(text)
    sets = [one for one in SETS if one.split(".")[0] != "stages" or "stages:" in text]
    if any(f"  {chain}: " in text for chain in CHAINS):
        sets += [*COMMON, *(f"stages.{chain}.steps=3" for chain in CHAINS if f"\n  {chain}: " in text)]
    if "preset: cpu-detr" in text:
        sets.append("detector.start.steps=4")
    suite = open_suite(tmp_path / f"{name}.yaml", sets=sets)
    outcomes = bring(suite, root)
    assert {outcome.state for outcome in outcomes.values()} <= {"done"}, outcomes
    rows, figures = ENDS[name]
    if name == "head_schedule":
        rows -= 15  # two lengths in place of three
    table = report.to_json(suite, root)
    assert len(table) == rows
    skipped = {row["row"] for row in table if "skipped" in row}
    assert skipped == (
        {row.label for row in suite.rows if row.label.endswith(" d2")} if name == "engines" and ABSENT else set()
    )
    assert all(row["metrics"]["AP"]["mean"] is not None for row in table if row["row"] not in skipped)
    report.report(suite, root, Console(), tmp_path / "report")
    drawn = sorted(path.stem for path in (tmp_path / "report").glob("*.png"))
    assert drawn == figures, capsys.readouterr().out
    for stem in drawn:
        assert (tmp_path / "report" / f"{stem}.svg").stat().st_size > 1000
        with (tmp_path / "report" / f"{stem}.csv").open() as file:
            assert len(list(csv.reader(file))) > 2
    plan, store = planning.make(suite), Store(root)
    assert all(store.done(key) is not None for key in plan.stages)
