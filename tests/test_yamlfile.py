"""YAML as in YAML 1.2, safe, with lines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.suite import yamlfile
from bench.suite.yamlfile import Document, read, scalar


def load(tmp_path: Path, text: str) -> Document:
    (tmp_path / "a.yaml").write_text(text)
    return read(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-1.", -1.0),
        ("12", 12),
        ("-0", 0),
        ("010", 10),  # YAML 1.1: octal 8
        ("0o17", 15),
        ("0x1F", 31),
        ("-0x1f", -31),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("+.Inf", math.inf),
        ("true", True),
        ("FALSE", False),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("10:30", "10:30"),  # YAML 1.1: 630
        ("1_000", "1_000"),  # YAML 1.1: 1000
        ("2001-12-14", "2001-12-14"),  # YAML 1.1: a date
        ("1.2.3", "1.2.3"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("[1, a, 2.5]", [1, "a", 2.5]),
        ("{a: 1, b: [x]}", {"a": 1, "b": ["x"]}),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    got = scalar(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number_is_no_setting(text: str) -> None:
    with pytest.raises(UserError, match=rf"--set: '{text}' is no value of a setting"):
        scalar(text)


def test_keys_are_text(tmp_path: Path) -> None:
    assert load(tmp_path, "1: a\nno: b\n").value == {"1": "a", "no": "b"}


def test_a_duplicate_key_is_refused_with_both_lines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.yaml:4: duplicate key 'lr' \(first on line 2\)"):
        load(tmp_path, "schedule:\n  lr: 0.1\n  steps: 3\n  lr: 0.2\n")


def test_one_key_in_two_sections_is_no_duplicate(tmp_path: Path) -> None:
    assert load(tmp_path, "a: {lr: 1}\nb: {lr: 2}\n").value == {"a": {"lr": 1}, "b": {"lr": 2}}


def test_anchors(tmp_path: Path) -> None:
    assert load(tmp_path, "a: &x {lr: 1}\nb: *x\n").value == {"a": {"lr": 1}, "b": {"lr": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system [ls]",
        "a: !!python/object:str x",
        "a: !!python/tuple [1, 2]",
        "a: !!set {x}",
        "a: !!binary aGk=",
        "a: !mine {b: 1}",
        "a: !mine 1",
        "!mine\na: 1",
    ],
)
def test_tags_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"a\.yaml:[12]: the tag '.*' is not allowed"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2", r"a\.yaml:2: broken YAML: expected ',' or ']'"),
        ("a: 1\n b: 2", r"a\.yaml:2: broken YAML"),
        ("a: 'x", r"a\.yaml:1: broken YAML: found unexpected end of stream"),
        ("a: *x", r"a\.yaml:1: broken YAML: found undefined alias"),
        ("a: 1\n---\nb: 2", r"a\.yaml:2: broken YAML"),
        ("a: \x01", r"a\.yaml: broken YAML: .*special characters are not allowed"),
        ("- a", r"a\.yaml:1: the top level must be a mapping"),
        ("3", r"a\.yaml:1: the top level must be a mapping"),
        ("? [a]\n: 1", r"a\.yaml:1: a key must be plain text"),
        ("a: &x [*x]", r"a\.yaml: nested too deeply \(more than 30 levels\), or an anchor that holds itself"),
        ("a: " + "[" * 5000, r"a\.yaml"),
        ("a: !!int x", r"a\.yaml:1: 'x' is not a number"),
        ("a: " + "9" * 5000, r"a\.yaml:1: '9+' is not a number"),
        ("a: 0x" + "F" * 5000, r"a\.yaml:1: '0xF+' is too large a number"),
        ("a: 9223372036854775808", r"a\.yaml:1: '9223372036854775808' is too large a number"),
        ("a: 1e400", r"a\.yaml:1: '1e400' is too large a number\n  without a limit: \.inf"),
        ("b: 1\na: -1e400", r"a\.yaml:2: '-1e400' is too large"),
        ('a: "\\x1b[31m"', r"a\.yaml:1: a character of '\\x1b\[31m' does not print"),
        ('a: "\\ud83d"', r"a\.yaml:1: a character of '\\ud83d' does not print"),
        ('b: 1\na: "\\u202egpj.exe"', r"a\.yaml:2: a character of '\\u202egpj\.exe' does not print"),
        ('"a\\0": 1', r"a\.yaml:1: a character of 'a\\x00' does not print"),
        ("a: 1\n" + "#" * 4_000_000, r"a\.yaml: more than 4 MB are no suite file"),
    ],
)
def test_broken_files_are_blamed(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tmp_path, text)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


def test_anchors_that_multiply_are_counted(tmp_path: Path) -> None:
    """600 bytes that stand for 10^10 values; PyYAML itself shares them, whoever writes them out does not."""
    with pytest.raises(UserError, match=r"a\.yaml: more than 100,000 values, those that anchors repeat included"):
        load(tmp_path, LAUGHS)
    with pytest.raises(UserError, match=r"--set: more than 100,000 values"):
        scalar("[&a [1,2,3,4,5,6,7,8], &b [*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b],"
               "&d [*c,*c,*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d], [*e,*e,*e,*e,*e,*e,*e,*e]]")  # fmt: skip
    with pytest.raises(UserError, match=r"--set: nested too deeply"):
        scalar("&a [*a]")
    assert load(tmp_path, LAUGHS.partition("a3")[0]).value["a2"][9][9] == ["x"] * 10  # a thousand are none too many


def test_values_are_bounded_where_they_are_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlfile, "MOST_VALUES", 1000)
    with pytest.raises(UserError, match="more than 1,000 values"):
        load(tmp_path, f"a: [{'1,' * 998}]")  # and the key, the list and the mapping
    assert len(load(tmp_path, f"a: [{'1,' * 997}]").value["a"]) == 997


def test_a_device_that_never_ends_is_not_read_to_its_end() -> None:
    with pytest.raises(UserError, match=r"/dev/zero: more than 4 MB are no suite file"):
        read(Path("/dev/zero"))


def test_text_of_several_lines_and_of_all_scripts_is_legal(tmp_path: Path) -> None:
    text = 'setup: "module load a\\n\\tb"\ntitle: Häufigkeit 類別 \U0001f469\u200d\U0001f52c\u00a0!\n'
    found = load(tmp_path, text).value
    assert found["setup"] == "module load a\n\tb"
    assert found["title"] == "Häufigkeit 類別 \U0001f469\u200d\U0001f52c\u00a0!"


def test_a_missing_file_is_named_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "table1.yaml").write_text("")
    with pytest.raises(UserError, match=r"tabel1\.yaml: no such file\. Did you mean '.*table1\.yaml'\? Legal: "):
        read(tmp_path / "tabel1.yaml")


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    for path, says in ((tmp_path, "a folder, not a file"), (tmp_path / "latin.yaml", "cannot be read")):
        with pytest.raises(UserError, match=says):
            read(path)


def test_lines_of_values_and_of_the_nearest_ancestor(tmp_path: Path) -> None:
    document = load(tmp_path, "# why\nschedule:\n  lr: 0.1\nrows:\n  a: {method: x,\n      t: 3}\n  b:\n  - 1\n  - 2\n")
    lines = {path: document.where(*path).rpartition(":")[2] for path in [
        ("schedule",), ("schedule", "lr"), ("schedule", "nothing"), ("rows", "a", "t"), ("rows", "b", 1), ("other",)
    ]}  # fmt: skip
    assert list(lines.values()) == ["2", "3", "2", "6", "9", "1"]


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n").value == {}


def test_a_set_value_that_is_not_yaml() -> None:
    with pytest.raises(UserError, match=r"--set: '\[1' is not a YAML value"):
        scalar("[1")
