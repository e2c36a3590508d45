"""What a user is told: where, what, what is legal, what next."""

from __future__ import annotations

import pickle

import pytest

from bench.errors import StageError, UserError, did_you_mean, show, unknown


def test_the_message_says_where_what_legal_and_next() -> None:
    error = UserError("no such thing", where="a.yaml:3 rows.x", allowed="this, that", hint="see: bench methods")
    assert str(error) == "a.yaml:3 rows.x: no such thing. Legal: this, that\n  see: bench methods"
    assert str(UserError("broken")) == "broken"


def test_a_question_is_not_followed_by_a_full_stop() -> None:
    error = unknown("setting", "bta", ["beta", "edges"], where="a.yaml:3")
    assert str(error) == "a.yaml:3: no setting 'bta'. Did you mean 'beta'? Legal: beta, edges"


def test_no_suggestion_where_nothing_is_near() -> None:
    assert did_you_mean("xyz", ["beta", "edges"]) == ""
    assert str(unknown("row", "xyz", [])) == "no row 'xyz'. Legal: (none)"


@pytest.mark.parametrize("kind", [UserError, StageError])
def test_errors_survive_the_way_from_a_job(kind: type[UserError]) -> None:
    back = pickle.loads(pickle.dumps(kind("what", where="w", allowed="a", hint="h")))
    assert type(back) is kind
    assert str(back) == str(kind("what", where="w", allowed="a", hint="h"))


def test_exit_codes() -> None:
    assert (UserError.exit_code, StageError.exit_code) == (2, 1)


def test_markup_in_a_message_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show("rows.[red]x[/]: no [y]")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "error: rows.[red]x[/]: no [y]\n")
