"""Defects that the tests must notice, planted one by one. Separate from the tests because it is a command: it shows
that they can fail.

Each defect is one change of the code that a person could make and that no comparison of the code with itself shows: a
setting that is ignored, a version that is missing in a key. The command copies the tree, runs the named tests there
without a defect, then with each, and says which test caught it.

    python -m tests.golden.defects [NAME ...]
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError, unknown

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 900  # of one run of tests; a defect that makes a test hang is not caught by it


@dataclass(frozen=True)
class Defect:
    """One wrong change.

    Attributes:
        name: as given on the command line.
        file: path in the tree.
        old: text that occurs exactly once in the file.
        new: what stands in its place.
        tests: the tests that must notice, as pytest's arguments: a file, or file::test.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def planted(self, text: str) -> str:
        """The file's text with the defect.

        Raises:
            UserError: the old text is not there exactly once: the code has changed, and so must the defect.
        """
        if (number := text.count(self.old)) != 1:
            raise UserError(
                f"the text of defect '{self.name}' occurs {number} times", where=self.file, allowed="once",
                hint="follow the code with `old` and `new` in tests/golden/defects.py",
            )  # fmt: skip
        return text.replace(self.old, self.new)


KEYS = ("tests/golden/test_golden_keys.py",)
LOSSES = ("tests/golden/test_golden_losses.py",)
VERSIONS = ("tests/test_versions_in_keys.py",)
RATES = ("tests/run/test_schedule.py::test_warmup_and_drops_of_the_papers", "tests/run/test_schedule.py::test_cosine")

RUNGS = ("tests/run/test_rungs.py::test_a_chain_of_rungs_repeats_no_step",)

DEFECTS = (
    Defect(
        "rung-with-rates-of-its-own", "bench/run/loop.py",
        "set_rate(rate(schedule, step, total))", "set_rate(rate(schedule, step, learner.end))", RUNGS,
    ),
    Defect(
        "rung-without-momentum", "bench/run/learner.py",
        "    learner.optimiser.load(tensors)\n",
        '    if "until" not in learner.work.spec:\n        learner.optimiser.load(tensors)\n',
        RUNGS,
    ),
    Defect(
        "group-without-sampler", "bench/lineage.py",
        'own = ("classifier", "keep_classifier", "trainable", "schedule", "until")',
        'own = ("classifier", "keep_classifier", "trainable", "schedule", "until", "sampler")',
        ("tests/test_lineage.py",),
    ),
    Defect(
        "train-key-without-augment", "bench/suite/suite.py",
        '            "augment": module_version("bench.data.augment"),\n            "bins": list(s.test.bins),\n',
        '            "augment": 1,\n            "bins": list(s.test.bins),\n',
        VERSIONS,
    ),
    Defect(
        "evaluate-key-without-evaluator", "bench/suite/suite.py",
        '"evaluator": module_version("bench.evaluation.ap")', '"evaluator": 1',
        VERSIONS,
    ),
    Defect(
        "predict-key-without-postprocess", "bench/suite/suite.py",
        '"postprocess": module_version(facts(s.detector.engine).postprocess)', '"postprocess": 1',
        VERSIONS,
    ),
    Defect(
        "data-key-without-reader", "bench/suite/suite.py",
        '"reader": module_version(form.version)', '"reader": 1',
        VERSIONS,
    ),
    Defect(
        "schedule-field-in-every-key", "bench/spec.py",
        "    checkpoint_every: Positive = 100\n",
        "    dropout: float = 0.0\n    checkpoint_every: Positive = 100\n",
        KEYS,
    ),
    Defect(
        "background-first-in-argmax", "bench/run/predict.py",
        "torch.cat([p_NC, p_bg_N[:, None]], dim=1)", "torch.cat([p_bg_N[:, None], p_NC], dim=1)",
        ("tests/run/test_proposal_accuracy.py",),
    ),
    Defect(
        "accuracy-bg-over-all", "bench/evaluation/accuracy.py",
        "tuple(shares[:-1]), shares[-1],", "tuple(shares[:-1]), float(right[-1] / total.sum()),",
        ("tests/evaluation/test_accuracy.py",),
    ),
    Defect(
        "clip-ignored", "bench/run/loop.py",
        "    if schedule.clip is not None:\n", "    if False:\n",
        LOSSES,
    ),
    Defect(
        "weight-decay-ignored", "bench/run/optimiser.py",
        "schedule.weight_decay if own", "0.0 if own",
        LOSSES,
    ),
    Defect("nesterov-ignored", "bench/run/optimiser.py", "nesterov=schedule.nesterov", "nesterov=False", LOSSES),
    Defect(
        "momentum-ignored", "bench/run/optimiser.py",
        # Nesterov needs a momentum: one that does next to nothing.
        "momentum=schedule.momentum", "momentum=1e-9 * schedule.momentum",
        LOSSES,
    ),
    Defect(
        "warmup-a-step-late", "bench/run/loop.py",
        "* (step + 1) / schedule.warmup)", "* step / schedule.warmup)",
        RATES,
    ),
    Defect(
        "steps-decay-ignored", "bench/run/loop.py",
        "factor = 0.1 ** sum(step >= round(drop * total) for drop in schedule.drops)", "factor = 1.0",
        RATES,
    ),
    Defect(
        "cosine-decay-ignored", "bench/run/loop.py",
        "factor = 0.5 * (1 + math.cos(math.pi * step / total))", "factor = 1.0",
        RATES,
    ),
    Defect(
        "rpn-loss-doubled", "bench/engines/torchvision/proposals.py",
        'beta=rpn.beta, reduction="sum") / count,', 'beta=rpn.beta, reduction="sum") / count * 2,',
        ("tests/engines/test_parity.py::test_losses_and_gradients_equal_torchvision",),
    ),
    Defect(
        "order-without-phase", "bench/data/loader.py",
        'generator(self.seed, "order", self.phase, e)', 'generator(self.seed, "order", 0, e)',
        ("tests/data/test_loader.py::test_seed_and_phase_change_order_and_augmentation",),
    ),
    Defect(
        "augmentation-without-phase", "bench/data/loader.py",
        'generator(self.seed, role, self.phase, t, p)', 'generator(self.seed, role, 0, t, p)',
        ("tests/data/test_loader.py::test_seed_and_phase_change_order_and_augmentation",),
    ),
)  # fmt: skip


def copy_of_the_tree(to: Path) -> Path:
    """The files of the working tree that git knows or would add, without their history."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # not one that is deleted and not yet committed so
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def caught_by(tree: Path, defect: Defect) -> str | None:
    """The first test that fails in a tree with the defect; None where all pass, or where no test could run.

    The tree is as before afterwards.
    """
    file = tree / defect.file
    text = file.read_text(encoding="utf-8")
    file.write_text(defect.planted(text), encoding="utf-8")
    try:
        return first_failure(tree, defect.tests)[1]
    finally:
        file.write_text(text, encoding="utf-8")


def first_failure(tree: Path, tests: Sequence[str]) -> tuple[bool, str | None]:
    """(whether all tests pass, the first that fails). A file of tests that cannot be imported is neither."""
    ran = run_tests(tree, tests)
    failed = re.search(r"^FAILED (\S+::.*?)(?: - .*)?$", ran.stdout, re.MULTILINE)
    return ran.returncode == 0, failed[1] if failed and ran.returncode == 1 else None


def run_tests(tree: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, up to the first failure."""
    # Python finds a compiled file by size and second of its source: no compiled file, no mistake.
    own = {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-rf", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, **own}
    try:
        return subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no end after {SECONDS} s")


def chosen(names: Sequence[str]) -> list[Defect]:
    """The defects of these names; none named: all.

    Raises:
        UserError: no such defect.
    """
    known = {defect.name: defect for defect in DEFECTS}
    for name in names:
        if name not in known:
            raise unknown("defect", name, known, where="tests.golden.defects")
    return [known[name] for name in names or known]


def main(arguments: list[str]) -> int:
    """Exit status 1 where a defect is not caught, or the tests fail without one."""
    try:
        defects = chosen(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_of_the_tree(Path(folder))
        tests = list(dict.fromkeys(test for defect in defects for test in defect.tests))
        clean = run_tests(tree, tests)
        if clean.returncode:
            print(f"the tests do not pass without a defect:\n{clean.stdout[-4000:]}{clean.stderr[-1000:]}")
            return 1
        missed = 0
        for defect in defects:
            caught = caught_by(tree, defect)
            missed += caught is None
            print(f"{defect.name:32} {'NOT CAUGHT' if caught is None else f'caught by {caught}'}", flush=True)
    print(f"{len(defects) - missed} of {len(defects)} defects caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
