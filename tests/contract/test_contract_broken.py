"""Every check can fail: methods with one thing wrong, each caught by the check that is there for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from broken_method import own, write

from bench.contract_check.checks import CHECKS, named
from bench.contract_check.place import Sandbox
from bench.contract_check.subject import Subject, Verdict, examine, look

SCALED = """def scores(self, z_NK):
        p_NC, p_bg_N = super().scores(z_NK)
        return p_NC * 3, p_bg_N"""
HALVED = """def forward(self, taps):
        with torch.no_grad():
            taps.box_features.mul_(0.5)
        return super().forward(taps)"""
STILL = """def forward(self, taps):
        return super().forward(taps).detach() + self.fc.weight.sum() * 0"""
DRIFTS = """def scores(self, z_NK):
        return super().scores(z_NK / self.seen)"""
ROWS = """def forward(self, taps):
        return super().forward(taps) / taps.box_features.max()"""
BATCH_NORM = """torch.nn.modules.module.register_module_forward_pre_hook(
            lambda module, inputs: module.train() and None if isinstance(module, nn.BatchNorm2d) else None)"""
TAUGHT = {"losses": 'part(f"{LOSS}:Taught", teacher=base)'}
LEARNS = """def updated(self, student, context):
        self.teacher.classifier.requires_grad_(True)"""
MOVES = """def updated(self, student, context):
        self.teacher.classifier.fc.bias.add_(0.01)"""
TWO = "gain: Annotated[float, Field(gt=0)] = 1.0\n    "
# name: (check, code that is wrong, words of the message that tells the author)
WRONG: dict[str, tuple[str, dict[str, str], str]] = {
    "torch at top level": ("plan", {"top": "import torch"}, "imports torch"),
    "torch while planning": ("plan", {"first": "import torch"}, "plan() imports torch"),
    "a clock": ("plan", {"top": "import time", "part": 'part(f"{LOSS}:Own", gain=time.time())'}, "two different"),
    "a day": (
        "plan",
        {"top": "import datetime", "part": 'part(f"{LOSS}:Own", gain=datetime.date.today().year)'},
        "in two processes",
    ),
    "the order of a set": (
        "plan",
        {"part": 'part(f"{LOSS}:Own", gain=list({str(i) for i in range(50)}).index("7"))'},
        "in two processes",
    ),
    "a random number": ("plan", {"top": "import random", "part": 'part(f"{LOSS}:Own", gain=random.random())'}, "two"),
    "a file": ("plan", {"first": "Path('/etc/hostname').exists() and open('/etc/passwd').close()"}, "/etc/passwd"),
    "an error": ("plan", {"first": "raise KeyError('beta')"}, "KeyError: 'beta'"),
    "a setting that goes nowhere": ("key", {"part": 'part(f"{LOSS}:Own")'}, "setting 'gain' does not change the key"),
    "a word that goes nowhere": (
        "key",
        {
            "fields": TWO + 'form: Literal["a", "b", "c"] = "a"',
            "part": 'part(f"{LOSS}:Own", gain=self.gain if self.form != "b" else 7.0)',
        },
        "form='c'",
    ),
    "a value that does not come back": (
        "json",
        {"fields": "gain: Annotated[float, AfterValidator(lambda v: 2 * v)] = 1.0"},
        "the defaults give another experiment",
    ),
    "a loss that is not finite": ("runs", {"loss": "loss = loss / 0"}, "the loss diverged at step 1"),
    "a loss with a mistake": ("runs", {"loss": "loss = loss + undefined"}, "undefined"),
    "a trunk that moves": ("moves", {"init": BATCH_NORM}, "moves the buffer backbone."),
    "a head that does not move": ("moves", {"more": STILL}, "'classifier' is named in trainable="),
    "state outside buffers": (
        "resume",
        {"init": "self.seen = 0", "loss": "self.seen += 1; loss = loss * self.seen"},
        "stopped at step 2 of 4 and resumed",
    ),
    "the global generator": ("resume", {"loss": "loss = loss * (1 + torch.rand(()))"}, "trained twice without a stop"),
    "scores from outside": (
        "reload",
        {"init": "self.seen = 1", "loss": "self.seen += 1", "more": DRIFTS},
        "scores otherwise",
    ),
    "a weight that is not stored": (
        "reload",
        {
            "init": 'self.register_buffer("seen", torch.zeros(()), persistent=False)',
            "loss": "self.seen += 1",
            "more": "def scores(self, z_NK):\n        return super().scores(z_NK * self.seen)",
        },
        "scores otherwise",
    ),
    "taps edited in place": ("fused", {"more": HALVED}, "in one pass with others"),
    "scores above 1": ("scores", {"more": SCALED}, "scores lie between"),
    "no loss without foreground": (
        "edges",
        {"loss": "loss = loss + 0 * z_NK[targets.labels_N < z_NK.shape[1] - 1].mean()"},
        "without foreground is nan",
    ),
    "no scores without RoIs": ("edges", {"more": ROWS}, "scores of 0 RoIs"),
    "a setting that the loss ignores": (
        "effect",
        {"loss": "loss = loss / self.gain"},
        "'gain' is in the key but changes neither",
    ),
    "a teacher that learns": (
        "teachers",
        {**TAUGHT, "more_of_loss": LEARNS},
        "a gradient reaches classifier.fc.weight",
    ),
    "a teacher that moves": ("teachers", {**TAUGHT, "more_of_loss": MOVES}, "training changes classifier.fc.bias"),
    "a legal value that ends with an error": ("effect", {"init": "assert gain == 1.0, gain"}, "'gain': 2.0"),
}


@pytest.fixture(autouse=True)
def _no_hooks_left() -> Iterator[None]:
    """One of the wrong methods hooks itself into every module."""
    yield
    torch.nn.modules.module._global_forward_pre_hooks.clear()


def found(check: str, subject: Subject) -> Verdict:
    return look(next(c for c in CHECKS if c.name == check), subject)


def test_with_nothing_wrong_every_check_passes(tmp_path: Path, place: Sandbox) -> None:
    """What differs from this in the tests below is one line."""
    (tmp_path / "taught").mkdir()
    findings = list(examine(Subject(own(write(tmp_path)), place), CHECKS))
    idle = {"teachers": "none of its losses looks at another model"}
    assert {f.check: f.message for f in findings if f.state != "pass"} == idle
    taught = found("teachers", Subject(own(write(tmp_path / "taught", **TAUGHT)), place))
    assert (taught.state, taught.message) == ("pass", "")


@pytest.mark.parametrize(("check", "code", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_caught(check: str, code: dict[str, str], words: str, tmp_path: Path, place: Sandbox) -> None:
    finding = found(check, Subject(own(write(tmp_path, **code)), place))
    assert finding.state == "fail", finding
    assert words in finding.message
    assert "Traceback" not in finding.message
    assert "\n" in finding.message or finding.trace, "neither advice nor where it comes from"


def test_every_check_has_a_method_that_it_catches() -> None:
    assert {check for check, _, _ in WRONG.values()} == {check.name for check in CHECKS}


def test_what_the_engine_lacks_skips_all(tmp_path: Path, place: Sandbox) -> None:
    field = 'needs: ClassVar[frozenset[str]] = frozenset({"classifier", "queries"})\n    gain: float = 1.0'
    findings = list(examine(Subject(own(write(tmp_path, fields=field)), place), CHECKS))
    assert {(f.state, f.message) for f in findings} == {("skip", "engine 'torchvision' lacks queries")}


def test_a_setting_that_matters_beside_another_only(tmp_path: Path, place: Sandbox) -> None:
    """`gain` is read only where `form` asks for it: legal, and seen to be used."""
    code = {
        "fields": TWO + 'form: Literal["plain", "scaled"] = "plain"',
        "part": 'part(f"{LOSS}:Own", gain=5 * self.gain) if self.form == "scaled" else part("softmax:Softmax")',
    }
    subject = Subject(own(write(tmp_path, **code)), place)
    assert [found(check, subject).state for check in ("key", "effect")] == ["pass", "pass"]


def test_free_text_is_named_or_brings_examples(tmp_path: Path, place: Sandbox) -> None:
    field = 'note: str = "x"\n    gain: float = 1.0'
    finding = found("key", Subject(own(write(tmp_path, fields=field)), place))
    assert (finding.state, finding.message.split(" (")[0]) == ("pass", "not looked at: note")
    field = field.replace('str = "x"', 'Annotated[str, Field(examples=["y"])] = "x"')
    finding = found("key", Subject(own(write(tmp_path, fields=field)), place))
    assert finding.state == "fail"
    assert "setting 'note' does not change the key" in finding.message


def test_a_stage_that_fails_makes_later_checks_silent(tmp_path: Path, place: Sandbox) -> None:
    subject = Subject(own(write(tmp_path, loss="raise ValueError('no')")), place)
    states = {finding.check: finding.state for finding in examine(subject, CHECKS)}
    assert states["runs"] == "fail"
    assert {states[name] for name in ("moves", "resume", "reload", "fused", "scores", "edges", "effect")} == {"skip"}


def test_a_file_that_is_no_python_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "torn.py"
    path.write_text("def x(:")
    finding = named(str(path)).broken
    assert finding is not None
    assert "torn.py: cannot be imported: SyntaxError" in finding.message
    assert "Traceback" in finding.trace
