"""Which rows and seeds a suite has: --only, --seeds, `each`, and how many there may be."""

from __future__ import annotations

import pytest

from bench.cli.open import open_suite
from bench.errors import UserError
from bench.plan import planning
from tests.conftest import TINY, Write

SWEEP = f"""{TINY}\
  "b {{beta}}": {{method: bags, each: {{beta: [1, 2, 3]}}}}
  "a, b": {{method: bags, beta: 5}}
  "[x]*": {{method: rfs}}
"""


def test_only_keeps_the_file_s_order_and_pulls_in_what_rows_need(write: Write) -> None:
    suite = open_suite(write(), only="BAGS")
    assert [row.label for row in suite.rows] == ["BAGS"]
    kinds = [stage.kind for stage in planning.make(suite).stages.values()]
    assert kinds.count("train") == 2  # the baseline it starts from, too
    assert [r.label for r in open_suite(write(), only="BAGS, baseline").rows] == ["baseline", "BAGS"]


@pytest.mark.parametrize(
    ("only", "labels"),
    [
        (["BAGS", "baseline"], ["baseline", "BAGS"]),  # given twice, they add up, in the file's order
        (["b *"], ["b 1", "b 2", "b 3"]),
        (["b ?, BAGS"], ["BAGS", "b 1", "b 2", "b 3"]),
        (["b [12]"], ["b 1", "b 2"]),
        (["a, b"], ["a, b"]),  # a label that has a comma
        (["[x]*"], ["[x]*"]),  # a label that looks like a pattern is first of all a label
        (["*"], ["baseline", "BAGS", "b 1", "b 2", "b 3", "a, b", "[x]*"]),
    ],
)
def test_only_takes_several_and_patterns(write: Write, only: list[str], labels: list[str]) -> None:
    suite = open_suite(write(SWEEP), only=only)
    assert [row.label for row in suite.rows] == labels
    assert suite.options == tuple(word for text in only for word in ("--only", text))


@pytest.mark.parametrize(("only", "word"), [("c*", r"c\*"), ("baseline,BAG", "BAG"), ("*s", r"\*s")])
def test_a_pattern_that_matches_nothing_is_refused(write: Write, only: str, word: str) -> None:
    with pytest.raises(UserError, match=rf"--only .*no row '{word}'"):
        open_suite(write(SWEEP), only=only)


def test_seeds_take_ranges_and_add_up(write: Write) -> None:
    several = open_suite(write(), seeds=["0-4", "7"])
    assert several.sections.seeds == (0, 1, 2, 3, 4, 7)
    assert several.options == ("--seeds", "0-4,7")


def test_each_is_counted_before_it_is_written_out(write: Write) -> None:
    """120,000 rows of a line of text."""
    sizes = {"beta": 30, "schedule.lr": 20, "schedule.steps": 20, "schedule.clip": 10}
    ranges = ", ".join(f"{name}: {list(range(n))}" for name, n in sizes.items())
    label = " ".join(f"{{{name.removeprefix('schedule.')}}}" for name in sizes)
    text = TINY + f'  "{label}": {{method: bags, each: {{{ranges}}}}}\n'
    with pytest.raises(UserError, match=r"tiny\.yaml:12 rows\..*: each makes 30 x 20 x 20 x 10 = 120,000 rows; 10,000"):
        open_suite(write(text))
    two = "".join(f'  "{i} {{beta}}": {{method: bags, each: {{beta: {list(range(1, 5002))}}}}}\n' for i in range(2))
    with pytest.raises(UserError, match=r"tiny\.yaml:13 rows\..*: more than 10,000 rows"):
        open_suite(write(TINY + two))


def test_rows_with_their_seeds_are_bounded(write: Write) -> None:
    many = TINY + f'  "b {{beta}}": {{method: bags, each: {{beta: {list(range(1, 101))}}}}}\n'
    with pytest.raises(UserError, match=r"102 rows with 100 seeds each are more than 10,000"):
        open_suite(write(many), seeds="0-99")
    assert len(open_suite(write(many), seeds="0-99", only="BAGS").sections.seeds) == 100


@pytest.mark.parametrize("label", ["' '", '"a\\nb"', "x" * 201])
def test_a_label_is_one_short_line(write: Write, label: str) -> None:
    with pytest.raises(UserError, match=r"this is no label of a row\. Legal: one line of 1 to 200 characters"):
        open_suite(write(TINY.replace("BAGS:", f"{label}:")))
