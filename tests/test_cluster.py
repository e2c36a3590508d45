"""Where jobs run: what a cluster's file may say, what one job asks for in the end, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli.open import config_text, open_suite
from bench.errors import UserError
from bench.plan import planning
from bench.suite import clusters
from bench.suite.clusters import CLUSTERS, Cluster, Resources, joined
from tests.conftest import TINY, Bench, Write

SLURM = """\
kind: slurm
partition: gpu
time_min: 600
gpus: 1
cpus: 8
mem_gb: 32
sbatch: {constraint: a100}
stages:
  train: {time_min: 1200}
  evaluate: {gpus: 0, cpus: 2, partition: cpu}
"""


def read(tmp_path: Path, text: str) -> Cluster:
    (tmp_path / "mine.yaml").write_text(text)
    return clusters.read(str(tmp_path / "mine.yaml"))


def test_every_cluster_that_is_shipped_can_be_read() -> None:
    found = {path.stem: clusters.read(path.stem) for path in CLUSTERS.glob("*.yaml")}
    assert {name: cluster.kind for name, cluster in found.items()} == {
        "local": "local",
        "debug": "debug",
        "slurm": "slurm",
        "slurm_gpu": "slurm",
    }
    assert found["slurm_gpu"].of({"evaluate"}).gpus == 0 < found["slurm_gpu"].of({"train"}).gpus
    assert found["local"].max_retries == 0  # what is killed on this machine was killed by somebody


def test_a_kind_of_stage_asks_for_its_own(tmp_path: Path) -> None:
    cluster = read(tmp_path, SLURM)
    assert cluster.of({"predict"}) == Resources(
        partition="gpu", time_min=600, gpus=1, cpus=8, mem_gb=32, sbatch={"constraint": "a100"}
    )
    alone = cluster.of({"evaluate"})
    assert (alone.gpus, alone.cpus, alone.partition, alone.mem_gb) == (0, 2, "cpu", 32)


def test_what_rides_in_a_job_does_not_make_it_ask_for_less(tmp_path: Path) -> None:
    """Training, prediction and evaluation in one job: a GPU, and the longest limit."""
    asked = read(tmp_path, SLURM).of({"train", "predict", "evaluate"})
    assert (asked.gpus, asked.cpus, asked.time_min, asked.partition) == (1, 8, 1200, "gpu")


def test_a_row_has_the_last_word(tmp_path: Path) -> None:
    cluster = read(tmp_path, SLURM)
    row = {"time_min": 30, "sbatch": {"hold": True}, "stages": {"train": {"mem_gb": 64}}}
    asked = cluster.of({"train"}, row)
    assert (asked.time_min, asked.mem_gb, asked.sbatch) == (30, 64, {"constraint": "a100", "hold": True})
    assert cluster.of({"predict"}, row).mem_gb == 32


def test_joined_takes_memory_where_only_one_names_it() -> None:
    assert joined([Resources(), Resources(mem_gb=4, cpus=2)]).mem_gb == 4
    assert joined([Resources(), Resources()]).mem_gb is None


def test_where_a_row_runs_is_no_part_of_what_it_is(write: Write) -> None:
    """Neither in a key nor in the record; still in `--show-config`."""
    plain = open_suite(write(TINY))
    moved = open_suite(write(TINY.replace("beta: 8}", "beta: 8, cluster: {gpus: 2, time_min: 90}}")))
    assert list(planning.make(plain).stages) == list(planning.make(moved).stages)
    assert moved.rows[1].cluster == {"gpus": 2, "time_min": 90}
    assert moved.rows[1].settings == plain.rows[1].settings
    again = open_suite(write(config_text(moved), "again.yaml"))
    assert again.rows[1].cluster == moved.rows[1].cluster


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gpus: 1\n", "gpuss: 1\n", r"mine\.yaml:4 .*no setting 'gpuss'. Did you mean 'gpus'\?"),
        ("time_min: 600", "time_min: 0", r"mine\.yaml:3 time_min: .*greater than or equal to 1, got 0"),
        ("kind: slurm", "kind: lsf", r"mine\.yaml:1 kind: .*'local', 'slurm' or 'debug', got 'lsf'"),
        ("evaluate: {gpus: 0,", "evaluate: {gpu: 0,", r"mine\.yaml:10 stages\.evaluate.*no cluster setting 'gpu'"),
        (
            "  train:",
            "  trian:",
            r"mine\.yaml:9 stages: no kind of stage 'trian'. Did you mean 'train'\? Legal: data, ",
        ),
        ("time_min: 600", "time_min: 1", r"signal_delay_s must be less than time_min \(1 min\)"),
    ],
    ids=["setting", "value", "kind", "setting of a stage", "stage", "told too early"],
)
def test_an_error_names_the_line_and_what_is_legal(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert SLURM.count(old) == 1
    with pytest.raises(UserError, match=message):
        read(tmp_path, SLURM.replace(old, new))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{gpu: 1}", "no cluster setting of a row 'gpu'. Did you mean 'gpus'"),
        ("{max_retries: 1}", "no cluster setting of a row 'max_retries'"),
        ("{gpus: -1}", "gpus: input should be greater than or equal to 0"),
        ("3", "cluster must be a mapping"),
        ("{stages: {trian: {gpus: 1}}}", "no kind of stage 'trian'. Did you mean 'train'"),
        ("{stages: {train: {gpu: 1}}}", "no cluster setting 'gpu'"),
    ],
)
def test_a_row_that_asks_for_what_there_is_not(write: Write, section: str, message: str) -> None:
    text = TINY.replace("beta: 8}", f"beta: 8, cluster: {section}}}")
    with pytest.raises(UserError, match=rf"tiny\.yaml:11 rows\.BAGS\.cluster.*{message}"):
        open_suite(write(text))


def test_an_unknown_cluster(write: Write, call: Bench) -> None:
    ran = call("run", write(), "--cluster", "slrum")
    assert ran.code == 2
    assert "--cluster: no cluster 'slrum'. Did you mean 'slurm'? Legal: debug, local, slurm" in ran.err


def test_a_driver_of_this_machine_cannot_leave(write: Write, call: Bench, tmp_path: Path) -> None:
    ran = call("run", write(), "--detach")
    assert ran.code == 2
    assert "jobs of kind local end with their driver" in ran.err
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_the_same_suite_in_this_process(write: Write, bench: Bench, tmp_path: Path) -> None:
    """--cluster debug: no job files, and the same table."""
    ran = bench("run", write(), "--cluster", "debug", "--only", "baseline", timeout=1200)
    assert ran.code == 0, ran.err
    assert "baseline" in ran.out
    assert not (tmp_path / "cache" / "longtail-bench" / "jobs").exists()
