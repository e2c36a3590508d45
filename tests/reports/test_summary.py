"""What the summary of a report says, on made rows whose differences are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reports.load import RowResult
from reports.page.summary import sentences
from reports.tables import table
from tests.reports.made_records import made, made_draws


def drawn(row: RowResult, sd: float, images: int = 100) -> RowResult:
    """With draws of val that move all metrics of the row by `sd`, each row by itself."""
    rng = np.random.default_rng(sum(map(ord, row.record.row)))
    values = {
        name: value + sd * rng.normal(size=500) for name, value in row.record.metrics.items() if value is not None
    }
    return replace(row, draws=made_draws(values, dict.fromkeys(values, images), "v"))


def rows(*seeds: int) -> list[RowResult]:
    """BAGS lifts the tail by 10 and costs the head 4; x2 by 2 and gains 1; focal loses."""
    found = []
    for seed in seeds:
        found += [
            made("baseline", seed, AP=20.0 + seed, AP1=1.0, AP4=50.0),
            made("BAGS", seed, AP=23.0 + seed, AP1=11.0, AP4=46.0),
            made("x2", seed, AP=22.0 + seed, AP1=3.0, AP4=51.0),
            made("focal", seed, AP=15.0 + seed, AP1=0.5, AP4=30.0),
        ]
    return found


GAINS = (
    "Tail, AP1 (1-9 training instances); baseline has 1.0: the largest gains are BAGS +10.0 to 11.0; x2 +2.0 to 3.0.",
    "Price at the head, AP4 (1000+ training instances): BAGS -4.0 (AP +3.0); x2 +1.0 (AP +2.0). Gain the tail and lose "
    "nothing at the head, by their means: x2.",
)


def test_one_seed_without_intervals_claims_nothing() -> None:
    assert sentences(table(rows(0), suite="s", order=["baseline"])) == (
        "4 rows with numbers, seed 0. Differences are AP points from baseline, paired by seed.",
        *GAINS,
        "No intervals were made (report --intervals makes them) and there is one seed a row: none of these differences "
        "can be told from chance.",
    )


def test_a_gain_that_the_table_shows_as_0_is_none() -> None:
    little = [made("baseline", 0, AP=20.0, AP1=1.0, AP4=50.0), made("longer", 0, AP=30.0, AP1=1.04, AP4=60.0)]
    found = " ".join(sentences(table(little, suite="s", order=["baseline"])))
    assert "Tail, AP1 (1-9 training instances); baseline has 1.0: no row gains." in found
    assert "longer" not in found
    little.append(made("BAGS", 0, AP=25.0, AP1=3.0, AP4=49.0))
    found = " ".join(sentences(table(little, suite="s", order=["baseline"])))
    assert "the largest gain is BAGS +2.0 to 3.0." in found
    assert "No row gains the tail without a loss at the head, by their means." in found
    little[-1] = made("BAGS", 0, AP=25.0, AP1=3.0, AP4=49.96)
    found = " ".join(sentences(table(little, suite="s", order=["baseline"])))
    assert "BAGS 0.0 (AP +5.0). Gain the tail and lose nothing at the head, by their means: BAGS." in found


def test_seeds_without_intervals_have_a_spread_alone() -> None:
    found = sentences(table(rows(0, 1), suite="s", order=["baseline", "gone"], skipped={"gone": "not run"}))
    assert found[0] == (
        "4 of 5 rows with numbers, seeds 0, 1. Differences are AP points from baseline, paired by seed."
    )
    assert found[1:3] == GAINS
    assert found[3].endswith("± is the spread over seeds, and which differences are more than chance is not known.")


def test_what_is_certain_is_told_from_what_is_not() -> None:
    """Draws of sd 0.1 a row: a difference has 0.14, so 2 and more points are certain; of sd 50 none is."""
    sharp = sentences(table([drawn(row, 0.1) for row in rows(0)], suite="s"))
    ap = next(text for text in sharp if text.startswith("AP against baseline"))
    assert ap.startswith(
        "AP against baseline (95 % intervals, Holm over 3 rows): certain for these models: BAGS +3.0 [+2.7, +3.3]; x2"
    )
    assert "focal -5.0" in ap
    assert "Not told apart" not in ap
    assert sharp[-1] == (
        "One seed a row: what is certain is so for these models and other val images; another training may turn any "
        "difference."
    )
    dull = sentences(table([drawn(row, 50) for row in rows(0)], suite="s"))
    assert (
        "AP against baseline (95 % intervals, Holm over 3 rows): no difference is certain for these models. Not "
        "told apart from 0: BAGS, x2, focal."
    ) in dull


def test_what_only_holm_leaves_uncertain_is_named_in_full() -> None:
    """Eight rows 2.4 standard errors ahead: p is about 0.016, and 0.13 when there are eight. One more gains nothing."""
    found = [drawn(made("baseline", AP=20.0, AP1=1.0, AP4=50.0), 0.0)]
    found += [drawn(made(f"row {i}", AP=22.4, AP1=3.4, AP4=50.0), 1.0) for i in range(8)]
    found += [drawn(made("nil", AP=20.1, AP1=1.1, AP4=50.0), 1.0)]
    said = sentences(table(found, suite="s"))
    (ap,) = (text for text in said if text.startswith("AP against"))
    assert "no difference is certain" in ap
    assert ". Without 0, but not after Holm: row 0 +2.4 [" in ap
    assert all(f"row {i} +2.4 [+" in ap for i in range(8))
    assert ap.endswith("Not told apart from 0: nil.")
    assert "; by their means 9 of 9 rows gain, none of them certain." in said[1]


def test_how_many_of_the_gains_are_certain() -> None:
    sharp = [drawn(made(f"row {i}", AP=22.4, AP1=30.0, AP4=50.0), 1.0) for i in range(4)]
    base = drawn(made("baseline", AP=20.0, AP1=1.0, AP4=50.0), 0.0)
    nil = drawn(made("nil", AP=20.1, AP1=1.1, AP4=50.0), 1.0)
    assert (
        "; by their means 5 of 5 rows gain, 4 of them certain." in sentences(table([base, *sharp, nil], suite="s"))[1]
    )


def test_a_tail_of_few_images_is_not_called_certain() -> None:
    found = [drawn(row, 0.1) for row in rows(0)]
    few = [replace(row, draws=replace(row.draws, images={**row.draws.images, "AP1": 29})) for row in found if row.draws]
    said = sentences(table(few, suite="s"))
    assert "AP1 against baseline: no interval, so no difference in it is called certain." in said
    assert not any(text.startswith("AP1 against baseline (95 %") for text in said)


def test_rows_without_an_interval_are_named() -> None:
    found = [drawn(row, 0.1) for row in rows(0)]
    bare = [replace(row, draws=None) if row.record.row == "focal" else row for row in found]
    (ap,) = (text for text in sentences(table(bare, suite="s")) if text.startswith("AP against"))
    assert "Holm over 2 rows" in ap
    assert ap.endswith("Without an interval: focal.")


def test_a_gain_that_costs_the_head_is_not_called_free() -> None:
    said = sentences(
        table([made("baseline", AP=2.0, AP1=1.0, AP4=9.0), made("a", AP=2.0, AP1=2.0, AP4=8.5)], suite="s")
    )
    assert said[2] == (
        "Price at the head, AP4 (1000+ training instances): a -0.5 (AP 0.0). No row gains the tail without a loss at "
        "the head, by their means."
    )


def test_controls_have_sentences_of_their_own() -> None:
    said = sentences(table(rows(0), suite="s", order=["baseline"], against={"BAGS": "x2"}))
    assert "AP1 against x2, without intervals: BAGS +8.0." in said
    sure = sentences(table([drawn(row, 0.1) for row in rows(0)], suite="s", against={"BAGS": "x2"}))
    assert any(
        text.startswith("AP1 against x2 (95 % intervals, Holm over 1 row): certain for these models: BAGS +8.0")
        for text in sure
    )


def test_rows_of_other_engines_are_compared_with_their_own() -> None:
    said = sentences(table(rows(0), suite="s", order=["baseline"]), {"BAGS": "baseline", "d": "detr baseline"})
    assert "from baseline, or from the baseline of the row's own engine, paired by seed." in said[0]


def test_where_there_is_nothing_to_compare_that_is_said() -> None:
    assert sentences(table([], suite="s", order=["baseline"])) == ("No row has a number yet.",)
    alone = sentences(table([made("mine", AP=20.0)], suite="s"))
    assert alone[-1] == "No row has a baseline to be compared with, so nothing is said of gains."
    worse = [made("baseline", AP=20.0, AP1=5.0, AP4=9.0), made("a", AP=19.0, AP1=4.0, AP4=9.0)]
    said = sentences(table(worse, suite="s"))
    assert "Tail, AP1 (1-9 training instances); baseline has 5.0: no row gains." in said
    assert not any(text.startswith("Price") for text in said)
