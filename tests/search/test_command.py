"""`bench search` as a user types it: quick answers in this process, whole searches in their own."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from bench.cli import trials as shown
from bench.cli import waste
from bench.cli.open import open_suite
from bench.search import plans
from bench.search.pruning import predicted_steps
from bench.store.store import Store
from benchmarks import search_cost
from tests.conftest import ROOT, Bench
from tests.search import tiny


def test_help_teaches(call: Bench) -> None:
    ran = call("search", "--help")
    for part in ("TRAINING images", "val, which is", "--set-space", "--status", "bench search suites/search_tau.yaml"):
        assert part in ran.out


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (["search"], ["which search?", "--from SUITE --row LABEL"]),
        (["search", "t.yaml", "--from", "t.yaml"], ["exclude each other"]),
        (["search", "--from", "t.yaml"], ["nothing to search", "--set-space SETTING=VALUES"]),
        (["search", "--from", "t.yaml", "--set-space", "beta"], ["'beta' is not SETTING=VALUES", "beta=0.5:32:log"]),
        (["search", "--from", "t.yaml", "--set-space", "beta=1:x"], ["'beta=1:x' is no dimension"]),
        (["search", "--from", "t.yaml", "--row", "BAG", "--set-space", "beta=1:8", "--trials", "3"],
         ["--row (t.yaml)", "no row 'BAG'", "'BAGS'"]),
        (["search", "--from", "t.yaml", "--row", "BAGS", "--set-space", "bta=1:8", "--trials", "3"],
         ["no setting 'bta'", "'beta'"]),
        (["search", "--from", "t.yaml", "--row", "BAGS", "--set-space", "beta=1:8"], ["needs a budget"]),
        (["search", "--from", "t.yaml", "--row", "BAGS", "--set-space", "beta=1:8", "--trials", "3", "--sampler", "x"],
         ["search.sampler", "'tpe'"]),
        (["search", "t.yaml"], ["no section `search`", "--from t.yaml"]),
        (["search", "gone.yaml"], ["gone.yaml", "no such file"]),
        (["run", "s.yaml"], ["this suite is a search", "python -m bench search s.yaml", "--set search=null"]),
        (["search", "s.yaml", "--status"], ["no such store"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message(words: list[str], holds: list[str], call: Bench, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(tiny.SUITE)
    (tmp_path / "t.yaml").write_text(tiny.SUITE.split("search:")[0])
    ran = call(*words)
    assert ran.code == 2
    assert "Traceback" not in ran.err
    for part in holds:
        assert part in " ".join(ran.err.split()), ran.err
    assert not (tmp_path / "store").exists()


def test_status_of_a_search_that_was_not_begun(call: Bench, tmp_path: Path) -> None:
    path = tiny.written(tmp_path)
    (tmp_path / "store").mkdir()
    for option in ("--status", "--best"):
        ran = call("search", path, option)
        assert ran.code == 2
        assert "this search has no trial yet" in ran.err
        assert f"begin it: python -m bench search {path}" in ran.err
    assert not list((tmp_path / "store").iterdir()), "only looked at"


def test_the_plan_says_rounds_cost_and_final_rows(call: Bench) -> None:
    ran = call("plan", ROOT / "suites" / "search_bags_beta.yaml", "--jobs", "2")
    assert ran.code == 0
    assert "search_bags_beta: qmc over beta; 16 trials, 16 a round" in ran.out
    assert "80 % of the training images and measured on the other 20 % (tune, seed 0); val chooses nothing" in ran.out
    assert "trials: 1 round, about" in ran.out
    assert "trainings: 2 in" in ran.out  # the trunk, and one pass for sixteen heads
    assert "(rows run singly: 32 in" in ran.out
    assert "final rows, on all training images and val:" in ran.out
    assert "search_bags_beta: 4 rows x 1 seed" in ran.out
    found = json.loads(call("plan", ROOT / "suites" / "search_bags_beta.yaml", "--json").out)
    assert (found["trials_left"], found["rounds_left"]) == (16, 1)
    assert found["finals"]["stages"]


def test_a_search_on_val_says_so_at_once(call: Bench, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(tiny.SUITE + "  tune_on: val\n")
    ran = call("plan", "s.yaml")
    assert "WARNING: searched on val" in ran.out


@pytest.mark.parametrize("name", ["search_tau", "search_bags_beta", "search_head"])
def test_final_rows_share_their_stages_with_table_1(name: str) -> None:
    """So that a search after Table 1 trains the winner alone."""
    table = {row.label: row for row in open_suite(ROOT / "suites" / "table1.yaml").rows}
    suite = open_suite(ROOT / "suites" / f"{name}.yaml")
    for label in ("baseline", "tau-norm", "cls-retrain", "BAGS"):
        row = next((row for row in suite.rows if row.label == label), None)
        if row is not None and name != "search_head":
            assert row.method == table[label].method
    assert suite.sections.schedule == open_suite(ROOT / "suites" / "table1.yaml").sections.schedule


# -- whole searches


@pytest.mark.slow
def test_a_search_from_a_row_writes_the_file_that_says_the_same(bench: Bench, tmp_path: Path) -> None:
    path = tiny.written(tmp_path, tiny.SUITE.split("search:")[0])
    ran = bench(
        "search", "--from", path, "--row", "BAGS", "--set-space", "beta=0.5:32:log", "--trials", "2",
        "--store", "store", "--seeds", "0", timeout=600,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    written = tmp_path / "search_tiny_BAGS.yaml"
    assert yaml.safe_load(written.read_text())["search"] == {
        "space": {"beta": {"low": 0.5, "high": 32.0, "log": True}}, "trials": 2,
    }  # fmt: skip
    again = bench("search", written, "--store", "store", timeout=600)
    assert again.code == 0
    assert "2 done" in again.out
    assert "train" not in [line.split()[0] for line in again.out.splitlines() if line.strip()]
    best = json.loads(bench("search", written, "--store", "store", "--best", "--json").out)
    assert best[0]["row"] == "BAGS"
    assert best[0]["settings"]["method"] == "bags"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A search that nobody disturbed, one job at a time: its suite, its store, its outcome."""
    folder = tmp_path_factory.mktemp("search")
    suite = tiny.written(folder)
    ended = tiny.search(suite, folder / "store", "--jobs", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "BAGS (searched)" in ended.stdout or "tau-norm (searched)" in ended.stdout
    return suite, folder / "store", tiny.outcome(suite, folder / "store")


@pytest.mark.slow
def test_four_jobs_at_a_time_find_the_same(whole: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    suite, _, expected = whole
    ended = tiny.search(suite, tmp_path / "store", "--jobs", "4")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert tiny.outcome(suite, tmp_path / "store") == expected
    assert [trial["state"] for trial in expected["trials"]] == ["complete"] * 6


@pytest.mark.slow
def test_optuna_opens_the_same_storage(whole: tuple[Path, Path, dict[str, Any]]) -> None:
    """As optuna-dashboard does."""
    suite, store, expected = whole
    name = plans.study_name(open_suite(suite))
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(store / "searches" / name / "journal.log"))
    )
    study = optuna.load_study(study_name=name, storage=storage)
    assert [trial.number for trial in study.trials] == list(range(6))
    assert study.best_trial.number == expected["best"][0]
    assert study.metric_names == ["AP"]


@pytest.mark.slow
def test_in_mlflow_a_search_is_a_run_and_its_trials_are_below_it(whole: tuple[Path, Path, dict[str, Any]]) -> None:
    _, store, expected = whole
    with sqlite3.connect(store / "mlflow.db") as database:
        rows = database.execute("select run_uuid, key, value from tags").fetchall()
        metrics = dict(database.execute("select run_uuid, value from metrics where key = 'tune AP'").fetchall())
    tags: dict[str, dict[str, str]] = {}
    for run, key, value in rows:
        tags.setdefault(run, {})[key] = value
    (top,) = [run for run, found in tags.items() if found.get("bench.what") == "search"]
    trials = {int(f["optuna.number"]): run for run, f in tags.items() if f.get("bench.what") == "trial"}
    assert sorted(trials) == list(range(6))
    for number, run in trials.items():
        assert tags[run]["mlflow.parentRunId"] == top
        assert tags[run]["optuna.state"] == "COMPLETE"
        assert metrics[run] == expected["trials"][number]["values"][0]
    assert tags[top]["mlflow.note.content"].startswith("best: trial ")


@pytest.mark.slow
def test_what_a_search_found_travels(whole: tuple[Path, Path, dict[str, Any]], bench: Bench, tmp_path: Path) -> None:
    """Its report and its page are in the zip, and the report of the zip has them where neither suite nor store is."""
    suite, store, _ = whole
    folder = store / "reports" / "tiny"
    ended = bench("export", suite, "found.zip", "--store", store)
    assert ended.code == 0, ended.err
    (tmp_path / "away").mkdir()
    (tmp_path / "found.zip").rename(tmp_path / "away" / "found.zip")
    ended = bench("report", "away/found.zip", "--out", "out")
    assert ended.code == 0, ended.err
    assert "as they were exported, in exported/: " in ended.out
    for name in ("search.md", "trials.csv", "history.svg"):
        assert (tmp_path / "out" / "exported" / name).read_bytes() == (folder / name).read_bytes(), name
    page = (tmp_path / "out" / "exported" / "report.html").read_text()
    assert page.count("<svg") >= 4
    assert '<h2 id="search">Search</h2>' in page
    assert "6 trials, measured on `tune`" in page.replace("&#34;", '"')


@pytest.mark.slow
def test_the_benchmark_counts_each_second_of_a_pass_once(whole: tuple[Path, Path, dict[str, Any]]) -> None:
    """What it adds up is what the jobs took, data and trunk apart from the trials."""
    suite, store, _ = whole
    found = search_cost.of_search(suite, store)
    assert found["trials"] == 6
    assert min(found["data_and_trunk"], found["train"], found["predict_and_evaluate"]) > 0
    opened = Store(store)
    keys = plans.all_keys(open_suite(suite), shown.seen(open_suite(suite), opened))
    whole_passes = sum(done.seconds for key in keys if (done := opened.done(key)) is not None)
    assert sum(found[name] for name in ("data_and_trunk", "train", "predict_and_evaluate")) <= whole_passes


@pytest.mark.slow
def test_gc_leaves_a_search_alone(whole: tuple[Path, Path, dict[str, Any]]) -> None:
    _, store, _ = whole
    assert not waste.look(Store(store)).waste


@pytest.mark.slow
def test_hyperband_trains_what_its_rungs_predict(tmp_path: Path) -> None:
    """A learning rate of the whole detector, three rungs: no step of a trial is trained twice."""
    suite = tiny.written(tmp_path, tiny.PRUNED)
    ended = tiny.search(suite, tmp_path / "store")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = tiny.outcome(suite, tmp_path / "store")
    states = [trial["state"] for trial in found["trials"]]
    assert states.count("pruned") == 8 - states.count("complete") > 0
    loaded = open_suite(suite)
    store = Store(tmp_path / "store")
    view = shown.seen(loaded, store)
    trained = 0.0
    for key in plans.all_keys(loaded, view):
        done = store.done(key)
        if done is not None and store.load(key)["kind"] == "train":
            steps = json.loads((store.output(key) / "train.json").read_text())["steps"]
            trained += steps * float(done.extra["part"])
    assert round(trained) == predicted_steps(8, [3, 9], 27, 3)
