"""Rows that stand for many, and rows on data of their own."""

from __future__ import annotations

import numpy as np
import pytest

from bench.cli.open import open_suite
from bench.data.glyphs import instance_counts
from bench.errors import UserError
from bench.plan import planning
from bench.spec import GlyphsData
from bench.stage import walk
from tests.conftest import TINY, Write


def labels(write: Write, row: str) -> list[str]:
    return [row.label for row in open_suite(write(TINY + row)).rows][2:]


def test_each_makes_a_row_for_every_combination_in_order(write: Write) -> None:
    row = '  "B {beta} at {lr}": {method: bags, each: {beta: [1, 2.5], schedule.lr: [0.02, 0.2]}}\n'
    suite = open_suite(write(TINY + row))
    made = suite.rows[2:]
    assert [r.label for r in made] == ["B 1 at 0.02", "B 1 at 0.2", "B 2.5 at 0.02", "B 2.5 at 0.2"]
    assert [r.settings["beta"] for r in made] == [1, 1, 2.5, 2.5]
    assert [r.schedule for r in made] == [{"lr": 0.02}, {"lr": 0.2}, {"lr": 0.02}, {"lr": 0.2}]
    assert [r.settings["schedule"] for r in made] == [r.schedule for r in made]


def test_a_row_of_each_is_the_row_written_by_hand(write: Write) -> None:
    rows = '  "B{beta}": {method: bags, each: {beta: [3]}}\n  hand: {method: bags, beta: 3.0}\n'
    plan = planning.make(open_suite(write(TINY + rows)))
    swept, hand = (row.evaluate for row in plan.rows[2:])
    assert swept == hand


def test_lists_and_nothing_have_readable_labels(write: Write) -> None:
    row = '  "clip {clip}": {method: reweight, each: {clip: [[0.01, 5], null]}}\n'
    assert labels(write, row) == ["clip 0.01-5", "clip none"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("  B: {method: bags, each: {beta: [1, 2]}}\n", r"tiny\.yaml:12 rows\.B: the label does not name 'beta'"),
        ('  "{beta}": {method: bags, each: {beta: 3}}\n', r"tiny\.yaml:12 .*each must map settings to lists"),
        ('  "{beta}": {method: bags, each: {beta: []}}\n', r"tiny\.yaml:12 .*each must map settings to lists"),
        ('  "{beta}": {method: bags, each: {beta: [2, 2.0]}}\n', r"tiny\.yaml:12 .*two rows are called '2'"),
        ('  "{bta}": {method: bags, each: {bta: [2]}}\n', r"tiny\.yaml:12 .*no setting 'bta'\. Did you mean 'beta'"),
        ('  "{beta}": {method: bags, each: {beta: [2, -1]}}\n', r"tiny\.yaml:12 .*greater than or equal to 0"),
        ('  "{lr}": {method: bags, each: {schedule.lr: [0]}}\n', r"tiny\.yaml:12 .*lr: .*greater than 0"),
        ("  flat: {method: baseline, data: flat}\n", r"tiny\.yaml:12 .*data must be a mapping.*profile"),
        ("  flat: {method: baseline, data: {profil: flat}}\n", r"tiny\.yaml:12 .*no setting 'profil'.*'profile'"),
        ("  flat: {method: baseline, data: {profile: even}}\n", r"tiny\.yaml:12 .*profile: .*'long_tail' or 'flat'"),
        ("  flat: {method: baseline, data: {name: lvs}}\n", r"tiny\.yaml:12 .*no data set 'lvs'\. Did you mean 'lvis'"),
    ],
)
def test_mistakes_name_the_line(write: Write, row: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        open_suite(write(TINY + row))


def test_a_row_on_its_own_data_shares_nothing_that_reads_them(write: Write) -> None:
    plan = planning.make(open_suite(write(TINY + "  flat: {method: baseline, data: {profile: flat}}\n")))
    own, other = (set(walk(row.evaluate)) for row in (plan.rows[0], plan.rows[2]) if row.evaluate is not None)
    assert not own & other
    assert [s.spec["data"]["profile"] for s in other if s.kind == "data"] == ["flat", "flat"]


def test_a_row_s_data_that_change_nothing_are_the_suite_s(write: Write) -> None:
    plan = planning.make(open_suite(write(TINY + "  same: {method: baseline, data: {classes: 4}}\n")))
    assert plan.rows[0].evaluate == plan.rows[2].evaluate


def test_flat_glyphs_hold_as_many_instances_in_all() -> None:
    tailed, flat = (instance_counts(GlyphsData(profile=p), 3) for p in ("long_tail", "flat"))
    assert len(set(flat.tolist())) == 1
    assert abs(int(flat.sum()) - int(tailed.sum())) <= len(flat) / 2
    assert np.ptp(tailed) > 1000
