"""Equal meaning, equal key; anything that changes a result, another key; parts without an import."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engines.sections import Rpn
from bench.errors import UserError
from bench.key import Part, canonical, digest, part, plain, resolve, signature_of
from bench.spec import Schedule
from tests.conftest import ROOT

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (0.0, -0.0),
        ((1, (2, 3)), [1, [2, 3]]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (Schedule(), Schedule(steps=900, lr=0.02)),
        (Rpn(), Rpn().model_dump()),
        (Schedule(), Schedule(checkpoint_every=7)),
        (Schedule(epochs=12), Schedule(steps=None, epochs=12)),
        (math.inf, float("1e999")),
    ],
)
def test_equal_meaning_is_an_equal_key(one: Any, other: Any) -> None:
    assert digest({"x": one}) == digest({"x": other})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, True),
        (0, False),
        (0, None),
        (1, "1"),
        (0.1, 0.1 + 2**-55),
        (2**53, 2**53 + 1),
        (math.inf, -math.inf),
        (math.inf, "inf"),
        ([1, 2], [2, 1]),
        ([[1], 2], [1, [2]]),
        ({"a": {"b": 1}}, {"a.b": 1}),
        (Schedule(), Schedule(lr=0.03)),
        (Schedule(steps=12), Schedule(epochs=12)),
    ],
)
def test_another_meaning_is_another_key(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


@given(VALUES)
def test_canonical_is_its_own_canonical_form(value: Any) -> None:
    assert canonical(canonical(value)) == canonical(value)
    assert digest(plain(canonical(value))) == digest(value)


def test_what_has_no_text_form_is_refused() -> None:
    with pytest.raises(TypeError, match="no canonical form for set"):
        digest({"x": {1}})


def test_the_digest_does_not_drift() -> None:
    """Another value here empties every store there is."""
    value = {"a": 1.0, "b": [True, None, "x", 0.1], "c": math.inf}
    assert digest(value) == "087db7ddec2c34afb653cc4f9a3820392cb421ca995d3c81798db0cf884944b0"


# -- parts


def test_omitted_and_written_defaults_are_the_same_part() -> None:
    bare = part("group_softmax:GroupSoftmax")
    written = part("group_softmax:GroupSoftmax", edges=None, beta=8)
    assert digest(bare) == digest(written)
    assert bare.settings["beta"] == 8.0
    assert digest(part("group_softmax:GroupSoftmax", beta=4)) != digest(bare)


def test_version_settings_and_summary_come_from_the_syntax_tree(tmp_path: Path) -> None:
    signature = signature_of("samplers:RepeatFactor")
    assert set(signature.settings) >= {"t", "rounding"}
    assert signature.defaults["rounding"] == "stochastic"
    assert signature.version
    assert signature.summary


def test_a_default_that_would_have_to_be_computed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("class Mine:\n    def __init__(self, *, ratio: float = 4 / 3) -> None: ...\n")
    with pytest.raises(UserError, match=r"own.py:2 Mine: the default of 'ratio' is not written out\..*numbers, texts"):
        part(f"{file}:Mine")


def test_naming_parts_imports_none_of_them() -> None:
    script = (
        "import sys\n"
        "from bench.key import part\n"
        "refs = ['softmax:Softmax', 'group_softmax:GroupSoftmax', 'losses:ReweightedSoftmax', 'patches:tau_norm',"
        " 'samplers:Shuffle', 'samplers:RepeatFactor']\n"
        "for ref in refs: part(ref)\n"
        "loaded = [m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'methods')]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


def test_an_unknown_setting_is_named_with_the_legal_ones() -> None:
    with pytest.raises(UserError, match=r"GroupSoftmax: no setting 'bta'.*'beta'\? Legal: background, beta, edges"):
        part("group_softmax:GroupSoftmax", bta=4)


def test_an_unknown_part_or_file_is_named_with_the_legal_ones() -> None:
    with pytest.raises(UserError, match=r"no part 'GroupSoftmx'. Did you mean 'GroupSoftmax'"):
        part("group_softmax:GroupSoftmx")
    with pytest.raises(UserError, match=r"no part file 'grup_softmax'. Did you mean 'group_softmax'"):
        part("grup_softmax:GroupSoftmax")


OUTSIDE = '''
"""A part of somebody else."""
from methods.parts.softmax import Softmax


class Mine(Softmax):
    """Mine."""

    def __init__(self, head, *, gain: float = 2.0):
        super().__init__(head)
        self.gain = gain
'''


def test_a_part_outside_the_tree_is_hashed_whole(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OUTSIDE)
    before = part(f"{file}:Mine")
    assert before.settings == {"gain": 2.0}
    file.write_text(OUTSIDE + "# a comment\n")
    after = part(f"{file}:Mine")
    assert after.version != before.version
    assert digest(after) != digest(before)


def test_resolve_imports_what_a_part_names(tmp_path: Path) -> None:
    from methods.parts.group_softmax import GroupSoftmax

    kind, settings = resolve(part("group_softmax:GroupSoftmax", beta=math.inf))
    assert kind is GroupSoftmax
    assert settings["beta"] == math.inf
    stored: Any = canonical(part("group_softmax:GroupSoftmax", beta=math.inf))  # as stage.json holds it
    assert resolve(stored) == (kind, settings)
    file = tmp_path / "mine.py"
    file.write_text(OUTSIDE)
    mine, settings = resolve(part(f"{file}:Mine", gain=3))
    assert (mine.__name__, settings) == ("Mine", {"gain": 3})


def test_a_part_prints_as_it_is_written() -> None:
    assert str(Part("losses:X", "1", {"beta": 8})) == "losses:X(beta=8)"
