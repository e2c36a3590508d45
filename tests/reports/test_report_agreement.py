"""Our order against a published one: by hand, with ties, and with what is left out."""

from __future__ import annotations

import pytest
from made_records import made

from reports.agreement import Agreement, agreements, sentences
from reports.load import RowResult
from reports.paper import Published
from reports.stats import by_row


def paper(**ap: float) -> Published:
    return Published("p", "a paper", {}, {row: {"AP": value} for row, value in ap.items()}, {})


def only(rows: list[RowResult], published: Published) -> Agreement:
    (found,) = agreements(by_row(rows), published)
    return found


def rows(*ap: float, seed: int = 0) -> list[RowResult]:
    return [made(label, seed, AP=value) for label, value in zip("abcde", ap, strict=False)]


def test_tau_b_by_hand_with_a_tie() -> None:
    # a-b ties there; a-c and b-c agree; a-d, b-d and c-d do not: (2 - 3) / sqrt(6 * (6 - 1))
    found = only(rows(4, 3, 2, 1), paper(a=3, b=3, c=2, d=5))
    assert found.tau == pytest.approx(-1 / 30**0.5)
    assert found.p is not None
    assert [(p.row, p.here, p.paper) for p in found.places] == [("a", 1, 2.5), ("b", 2, 2.5), ("c", 3, 4), ("d", 4, 1)]


def test_the_same_order_is_one_and_p_is_exact() -> None:
    found = only(rows(5, 4, 3, 2, 1), paper(a=50, b=40, c=30, d=20, e=10))
    assert found.tau == pytest.approx(1)
    assert found.p == pytest.approx(2 / 120)  # two of the 5! orders are that far from none
    assert found.apart == ()
    assert "No row is 3 places apart" in sentences(found)


def test_rows_that_disagree_by_three_places() -> None:
    found = only(rows(5, 4, 3, 2, 1), paper(a=1, b=4, c=3, d=2, e=5))
    assert [place.row for place in found.apart] == ["a", "e"]  # 1 and 5, 5 and 1; the others agree
    assert "a 1 here, 5 there; e 5 here, 1 there" in sentences(found)
    assert [place.row for place in only(rows(4, 3, 2, 1), paper(a=1, b=3, c=2, d=4)).apart] == ["a", "d"]
    assert only(rows(3, 2, 1), paper(a=1, b=2, c=3)).apart == ()  # two places


def test_only_rows_and_values_that_both_have() -> None:
    published = paper(a=3, b=2, c=1, z=9)
    more = [*rows(3, 2, 1), made("control", AP=99.0)]
    assert [place.row for place in only(more, published).places] == ["a", "b", "c"]
    assert agreements(by_row([*rows(3, 2), made("c", AP=None)]), published) == ()
    assert agreements(by_row(rows(3, 2)), published) == ()


def test_a_row_on_other_data_takes_no_part() -> None:
    group = [made("baseline", AP=1.0), *rows(3, 2), made("c", AP=9.0, protocol={"val_digest": "c" * 64})]
    found = only(group, paper(baseline=1, a=3, b=2, c=1))
    assert [place.row for place in found.places] == ["baseline", "a", "b"]


def test_all_ties_have_no_tau() -> None:
    found = only(rows(3, 2, 1), paper(a=1, b=1, c=1))
    assert (found.tau, found.p) == (None, None)
    assert "not defined" in sentences(found)


def test_one_seeds_order_is_noise_and_its_spread_is_said() -> None:
    both = rows(3, 2, 1) + rows(1, 2.5, 2, seed=1) + [made("a", 2, AP=1.5)]  # seed 2 lacks b and c
    found = only(both, paper(a=30, b=20, c=10))
    # seed 1: a-b and a-c disagree, b-c agrees. Means: a 1.83, b 2.25, c 1.5: a-b disagrees.
    assert found.per_seed == {0: pytest.approx(1), 1: pytest.approx(-1 / 3)}
    assert found.tau == pytest.approx(1 / 3)
    assert "of one seed's order -0.33 to +1.00 (sd 0.94, 2 seeds)" in sentences(found)
    assert only(rows(3, 2, 1), paper(a=3, b=2, c=1)).per_seed == {}
