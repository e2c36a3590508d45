"""Options can be added without emptying anybody's store: LATER, for fields of sections and for settings of parts.

The fields and settings are added to a copy of the tree, and keys are compared with those that are written down for the
tree as it is (tests/golden).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, Field

import bench.spec
from bench.engines import sections as engine_sections
from bench.engines.sections import Rpn, TwoStage
from bench.errors import UserError
from bench.key import digest, part, resolve, signature_of
from bench.spec import Section
from bench.suite import clusters as cluster
from bench.suite import suite
from tests.conftest import ROOT, TINY, Bench, Write

# Section.field -> its default, of all fields of LATER there are. Append only: a key without the field means this value.
DEFAULTS: dict[str, Any] = {
    "FolderData.exif": "ignore", "Schedule.optimiser": "sgd", "Schedule.betas": (0.9, 0.999), "Schedule.groups": {},
    "Schedule.ema": 0.0, "Inference.stored": None,
}  # fmt: skip
SECTIONS = {
    "bench/spec.py": ("GlyphsData", "FolderData", "Input", "Inference", "Schedule", "Machine"),
    "bench/engines/sections.py": ("Rpn", "Roi", "Detr", "DetectorSection"),
}
PARTS = {  # file -> how its class begins, and what its first `__init__` has where a setting is added
    "softmax.py": ("class Softmax(Linear):\n", "head: HeadSpec", "head: HeadSpec, *, added: float = 0.5"),
    "group_softmax.py": ("class GroupSoftmax(Classifier):\n", "beta: float", "added: float = 0.5, beta: float"),
    "samplers.py": ("class RepeatFactor:\n", "power: float", "added: float = 0.5, power: float"),
}
WHERE = ("data", "input", "detector", "detector.rpn", "detector.roi", "test", "schedule", "machine")
PROBE = """\
import json, sys
from bench.cli.open import open_suite
from bench.key import canonical, part
from bench.engines.facts import detector_of
from bench.plan import planning
from tests.golden import keys

old = json.load(open("stage.json"))
read = detector_of(old["spec"])
table = keys.ROOT / "suites" / "table1.yaml"
def made(*sets):
    return keys.of(planning.make(open_suite(table, sets=sets)))
usual = made()
print(json.dumps({
    "moved": list(keys.complaints(keys.recorded(), keys.current())),
    "read": [read.added, read.rpn.added],
    "written": made("detector.rpn.added=0.5", "schedule.added=0.5", "data.added=0.5") == usual,
    "changed": {name: sum(was != now for was, now in zip(usual.values(), made(f"{name}.added=0.25").values()))
                for name in sys.argv[1:]},
    "part": canonical(part("softmax:Softmax", added=0.25))["settings"],
}))
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what planning needs, and a train stage as it is written down today."""
    for name in ("bench", "methods", "suites", "reports", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "measured"))
    spec = {"detector": TwoStage().in_key(), "engine": {"name": "torchvision", "version": 1}}
    (tmp_path / "stage.json").write_text(json.dumps({"spec": spec}))
    return tmp_path


def added(tree: Path, *, later: bool) -> None:
    """Add a field or setting to every section that is in keys, and to three parts."""
    for file, name in ((tree / file, name) for file, names in SECTIONS.items() for name in names):
        text = file.read_text()
        listed = '    LATER = frozenset({"added"})\n' if later else ""
        (header,) = re.findall(rf"^class {name}\(\w+\):\n", text, re.MULTILINE)
        before, _, after = text.partition(header)
        body, end, rest = after.partition("\n\n\n")
        if later:  # beside those that the section has
            own, both = r"    LATER = frozenset\(\{(.*)\}\)\n", r'    LATER = frozenset({"added", \1})' + "\n"
            body = re.sub(own, both, body)
        listed = "" if "LATER" in body else listed
        file.write_text(f"{before}{header}{listed}    added: float = 0.5\n{body}{end}{rest}")
    for file, (header, old, new) in PARTS.items():
        path = tree / "methods" / "parts" / file
        before, found, after = path.read_text().partition(header)
        assert found
        assert old in after
        path.write_text(before + header + ('    LATER = ("added",)\n' if later else "") + after.replace(old, new, 1))


def probed(tree: Path) -> dict[str, Any]:
    environment = {"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *WHERE], cwd=tree, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_options_that_are_marked_later_move_no_key(tree: Path) -> None:
    added(tree, later=True)
    found = probed(tree)
    assert not found["moved"]
    assert found["read"] == [0.5, 0.5]  # of a spec that was written down before there was such a field
    assert found["written"], "a default that is written out is the same experiment"
    assert all(found["changed"].values()), f"another value is another experiment: {found['changed']}"
    assert found["part"]["added"] == 0.25


def test_options_that_are_not_marked_move_every_key(tree: Path) -> None:
    added(tree, later=False)
    moved = probed(tree)["moved"]
    assert len(moved) > 100
    assert {line.split(":")[0] for line in moved} == set(json.loads((ROOT / "tests/golden/keys.json").read_text()))


# -- sections


class Ramp(Section):
    LATER = frozenset({"power"})
    NOT_IN_KEY = frozenset({"verbose"})
    length: int = 3
    power: float = 1.0
    verbose: bool = False


class Outer(Section):
    LATER = frozenset({"ramp", "flag"})
    plain: Ramp = Ramp()
    many: tuple[Ramp, ...] = (Ramp(),)
    named: dict[str, Ramp] = Field(default_factory=lambda: {"a": Ramp()})
    ramp: Ramp | None = None
    flag: int | bool = 1


OLD = {"plain": {"length": 3}, "many": [{"length": 3}], "named": {"a": {"length": 3}}}


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (Outer(), OLD),
        (Outer(flag=1.0, ramp=None), OLD),
        (Outer(plain=Ramp(power=1, verbose=True)), OLD),
        (Outer(plain=Ramp(power=2)), OLD | {"plain": {"length": 3, "power": 2.0}}),
        (Outer(many=(Ramp(power=2), Ramp())), OLD | {"many": [{"length": 3, "power": 2.0}, {"length": 3}]}),
        (Outer(named={"a": Ramp(power=0)}), OLD | {"named": {"a": {"length": 3, "power": 0.0}}}),
        (Outer(ramp=Ramp()), OLD | {"ramp": {"length": 3}}),
        (Outer(flag=True), OLD | {"flag": True}),  # equal to 1 for Python, not in a key
    ],
)
def test_a_later_field_is_in_a_key_only_where_it_is_not_its_default(section: Outer, expected: object) -> None:
    assert section.in_key() == expected
    assert digest({"x": section}) == digest({"x": expected})
    back = Outer.model_validate(json.loads(json.dumps(section.in_key())))
    assert back.in_key() == section.in_key()


def test_a_later_field_that_does_not_exist_or_has_no_default_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.LATER names 'gamma', which is no field"):
        type("Wrong", (Rpn,), {"LATER": frozenset({"beta", "gamma"})})
    with pytest.raises(TypeError, match=r"NOT_IN_KEY names 'lenght', which is no field"):

        class Misspelt(Section):
            NOT_IN_KEY: ClassVar[frozenset[str]] = frozenset({"lenght"})
            length: int = 1

    with pytest.raises(TypeError, match=r"LATER names 'length', which has no default"):

        class Needed(Section):
            LATER: ClassVar[frozenset[str]] = frozenset({"length"})
            length: int


def sections() -> Iterator[type[Section]]:
    for module in (bench.spec, engine_sections, suite, cluster):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Section) and value.__module__ == module.__name__:
                yield value


def test_defaults_of_later_fields_never_change() -> None:
    now = {
        f"{kind.__name__}.{name}": _plain(kind.model_fields[name].get_default(call_default_factory=True))
        for kind in sections()
        for name in kind.LATER
    }
    assert len(list(sections())) >= 15
    assert now == DEFAULTS, (
        "stored results without such a field were made with the default of their day. A new field of LATER: add it to "
        "DEFAULTS. A changed default: take it back, and add a field for what is to be new"
    )


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


# -- parts

CLASS = '''
"""Parts of somebody."""
VERSION = 1


class Scaled:
    """Scaled."""

    LATER = ("temperature", "clip")

    def __init__(self, head, *, beta=8.0, temperature=1.0, clip=None):
        self.found = beta, temperature, clip


class Plain:
    """Plain."""

    def __init__(self, head, *, beta=8.0):
        self.found = beta


def edit(classifier, *, tau=1.0, floor=0.0):
    return tau, floor
'''


def parts_file(folder: Path, text: str = CLASS) -> Path:
    path = folder / "parts.py"
    path.write_text(text)
    return path


def test_a_later_setting_is_in_a_key_only_where_it_is_not_its_default(tmp_path: Path) -> None:
    file = parts_file(tmp_path)
    bare, other = part(f"{file}:Scaled"), part(f"{file}:Scaled", temperature=2)
    assert bare.settings == {"beta": 8.0, "temperature": 1.0, "clip": None}  # people see all of them
    assert str(bare).endswith(":Scaled(beta=8.0, temperature=1.0, clip=None)")
    assert bare.to_json()["settings"] == {"beta": 8}
    assert other.to_json()["settings"] == {"beta": 8, "temperature": 2}
    assert digest(bare) == digest(bare.to_json()) == digest(part(f"{file}:Scaled", temperature=1, clip=None))
    assert digest(other) == digest(other.to_json()) != digest(bare)
    kind, settings = resolve(bare)
    assert kind(None, **settings).found == (8, 1.0, None)
    kind, settings = resolve(other)
    assert kind(None, **settings).found == (8, 2, None)


def test_a_later_of_the_file_is_that_of_its_parts_with_such_a_setting(tmp_path: Path) -> None:
    text = CLASS.replace("VERSION = 1", 'VERSION = 1\nLATER = ("floor",)')
    file = parts_file(tmp_path, text)
    assert part(f"{file}:edit").to_json()["settings"] == {"tau": 1}
    assert part(f"{file}:edit", floor=0.1).to_json()["settings"] == {"tau": 1, "floor": 0.1}
    assert signature_of(f"{file}:Plain").later == ()
    assert signature_of(f"{file}:Scaled").later == ("temperature", "clip")  # what a class says itself counts


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"clip")', '"clp")', r"parts\.py:9 LATER of Scaled: 'clp' is no setting with a default"),
        ("temperature=1.0, clip", "temperature, clip", "'temperature' is no setting with a default"),
        ('("temperature", "clip")', '"clip"', "LATER of Scaled: not a tuple of names"),
        ('("temperature", "clip")', "NAMES", "LATER of Scaled: not a tuple of names"),
        ("VERSION = 1", 'VERSION = 1\nLATER = ("flor",)', r"LATER of parts\.py: 'flor' is no setting"),
    ],
)
def test_a_later_that_names_nothing_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = parts_file(tmp_path, CLASS.replace(old, new))
    name = "edit" if "flor" in new else "Scaled"
    with pytest.raises(UserError, match=message):
        part(f"{file}:{name}")


METHOD = """
from pathlib import Path
from bench.method import Builder, Method, part


class Scaled(Method):
    name = "scaled"
    temperature: float = 1.0

    def plan(self, b: Builder):
        return b.train(classifier=part(f"{Path(__file__).with_name('parts.py')}:Scaled", temperature=self.temperature))
"""


def test_why_names_the_default_of_a_later_setting(write: Write, call: Bench, tmp_path: Path) -> None:
    """What is left out of the key is still a setting that somebody looks for."""
    parts_file(tmp_path)
    (tmp_path / "mine.py").write_text(METHOD)
    suite_file = write(
        f"methods_path: mine.py\n{TINY}  scaled: {{method: scaled}}\n  hot: {{method: scaled, temperature: 2}}\n"
    )
    assert "classifier.settings.temperature = 1" in call("why", suite_file, "scaled").out
    assert "classifier.settings.temperature = 2" in call("why", suite_file, "hot").out
