"""`plan --cluster` beside what lands in a real Slurm: as many jobs, the same dependencies, the same requests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench.launch import submitted
from tests.cluster.conftest import HOLD, SETTINGS, Queue
from tests.cluster.slurm_up import Slurm
from tests.conftest import TINY, Bench

ROWS = """\
  cls-retrain: {method: cls_retrain}
  tau-norm: {method: tau_norm, tau: 1.0}
  RFS: {method: rfs, cluster: {time_min: 20, stages: {evaluate: {time_min: 25}}}}
"""
MORE = "  x2: {method: x2}\n"
WORDS = ("--cluster", "cluster.yaml", "--seeds", "0,1", "--set", "data.seed=0")
Units = tuple[tuple[str, ...], ...]


def units(value: Any) -> Units:
    return tuple(tuple(unit) for unit in value)


def said(call: Bench, *words: str) -> dict[str, Any]:
    ran = call("plan", "tiny.yaml", *WORDS, *words, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)["submissions"]
    return found


def in_slurm(slurm: Slurm, root: Path, queue: Queue) -> dict[Units, tuple[set[Units], str, str]]:
    """What each queued job makes -> (what those make that it waits for, its time limit, its CPUs), as Slurm has it."""
    notes = {job: submitted.read(root, job) for job in queue()}
    made = {job: note.units for job, note in notes.items() if note is not None}
    assert len(made) == len(notes)
    found = {}
    for job, mine in made.items():
        one = slurm.command("scontrol", "--oneliner", "show", "job", job)
        fields = dict(word.split("=", 1) for word in one.split() if "=" in word)
        ids = re.findall(r"afterok:(\d+(?:_\d+)?)", fields["Dependency"])
        found[mine] = {made[name] for name in ids}, fields["TimeLimit"], fields["NumCPUs"]
    return found


def test_the_jobs_that_plan_announces_are_those_that_land_in_slurm(
    slurm: Slurm, queue: Queue, call: Bench, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY + ROWS)
    (tmp_path / "cluster.yaml").write_text(SETTINGS + "cpus: 2\n" + HOLD)
    announced = said(call)["jobs"]
    assert not (tmp_path / "store").exists()
    of = {one["number"]: units(one["units"]) for one in announced}
    text = call("plan", "tiny.yaml", *WORDS).out
    assert f"{len(announced)} jobs to submit to cluster.yaml: " in text
    assert "30 min, 2 CPUs, hold=True" in text
    assert f"start it: python -m bench run tiny.yaml {' '.join(WORDS)}" in text

    assert call("run", "tiny.yaml", *WORDS, "--detach").code == 0
    expected = {
        of[one["number"]]: (
            {of[number] for number in one["after"]},
            f"00:{one['asks']['time_min']}:00",
            str(one["asks"]["cpus"]),
        )
        for one in announced
    }
    assert {limit for _, limit, _ in expected.values()} == {"00:30:00", "00:25:00"}
    assert any(len(after) == 1 for after, _, _ in expected.values())
    assert in_slurm(slurm, tmp_path / "store", queue) == expected
    arrays = re.search(r"alike ones in (\d+) arrays?", text)
    assert arrays is not None
    assert int(arrays[1]) == len({job.split("_")[0] for job in queue() if "_" in job})

    before = set(queue())
    again = said(call)
    assert again["jobs"] == []
    assert {one["id"] for one in again["queued"]} == before
    assert f"{len(before)} jobs in the queue: " in call("plan", "tiny.yaml", *WORDS).out

    (tmp_path / "tiny.yaml").write_text(TINY + ROWS + MORE)  # a row that starts from what is queued
    more = said(call)["jobs"]
    assert {name for one in more for name in one["queued"]} <= before
    assert any(one["queued"] for one in more)
    assert call("run", "tiny.yaml", *WORDS, "--detach").code == 0
    assert len(queue()) == len(before) + len(more)
    landed = in_slurm(slurm, tmp_path / "store", queue)
    made = {job: note.units for job in before if (note := submitted.read(tmp_path / "store", job)) is not None}
    of = {one["number"]: units(one["units"]) for one in more}
    for one in more:
        wanted = {of[number] for number in one["after"]} | {made[name] for name in one["queued"]}
        assert landed[units(one["units"])][0] == wanted
