"""What a user is told: where, what, what is legal, what next."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

from bench.errors import StageError, UserError, cell_text, cut, did_you_mean, place_of, printable, show, unknown


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Häufigkeit, 類別, \U0001f469\u200d\U0001f52c", "plain, Häufigkeit, 類別, \U0001f469\u200d\U0001f52c"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nerror: b\r\tc", r"a\nerror: b\r\tc"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u202egnp.exe\u2069", r"\u202egnp.exe\u2069"),
        ("\u200b\ufeff\u2028", r"\u200b\ufeff\u2028"),
        ("\udcff\udce9", r"\xff\xe9"),  # bytes of an argument that are not UTF-8
        ("\ud83d", r"\ud83d"),
        (r"C:\new", r"C:\new"),
        ("no\u00a0break", "no\u00a0break"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode("utf-8")


def test_a_long_text_is_cut_in_the_middle() -> None:
    assert cut("a" * 20, 20) == "a" * 20
    assert cut("a" * 50 + "b" * 50, 40) == "aaaaaaaaa ... (100 characters) ... bbbbb"


def test_a_message_stays_below_2000_characters_whatever_is_in_it() -> None:
    long = "\x1b" * 5000
    text = str(UserError(long, where=long, allowed=long, hint=long))
    assert len(text) < 2000
    assert text.replace("\n  ", "").isprintable()
    assert len(str(unknown("row", long, [f"row {i}" for i in range(10_000)], where=long))) < 2000


def test_a_message_is_one_line_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    show(str(UserError("no row 'a\nerror: all is lost'", where="x\x1b]0;title\x07", hint="see: y")))
    assert capsys.readouterr().err == "error: x\\x1b]0;title\\x07: no row 'a\\nerror: all is lost'\n  see: y\n"


def test_the_place_of_an_error_is_in_ones_own_code() -> None:
    """torch's `__getattr__`, json's decoder: what raises is not what is wrong."""
    module = torch.nn.Linear(1, 1)
    for wrong in (lambda: module.taau, lambda: json.loads("{"), lambda: 1 / 0):
        with pytest.raises((AttributeError, ValueError, ZeroDivisionError)) as error:
            wrong()
        assert place_of(error.value) == f"test_errors.py:{wrong.__code__.co_firstlineno}"
    assert place_of(ValueError("never raised")) == ""


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("plain", "plain"), ("a=b", "a=b"), ("", ""), ("'=1", "'=1"),
        ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@x", "'@x"), ("\uff1d1", "'\uff1d1"),
        ("\t=1", r"\t=1"), ("\r=1", r"\r=1"), ("\n=1", r"\n=1"), ("\u202e=1", r"\u202e=1"), ("\x1b[2J", r"\x1b[2J"),
    ],
)  # fmt: skip
def test_a_cell_of_a_csv_is_text(text: str, cell: str) -> None:
    """Nothing in it is a formula to a spreadsheet, and nothing is obeyed by a terminal that shows the file."""
    assert cell_text(text) == cell
