"""Command lines that nobody should have typed: options and arguments of every command that starts nothing, with odd
values. See fuzz_suites.py."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.conftest import TINY
from tests.faults.fuzz_case import TEXTS, Case, odd, yaml_text

SUITE = ("s.yaml",)
COMMANDS: dict[str, tuple[str, ...]] = {  # command -> the arguments that it has before its options
    "plan": SUITE, "status": SUITE, "why": (*SUITE, "BAGS"), "logs": (*SUITE, "BAGS"), "stop": (*SUITE, "BAGS"),
    "retry": (*SUITE, "BAGS"), "report": SUITE, "methods": ("bags",), "methods show": ("bags",), "gc": (),
    "data check": ("nowhere",), "data fill-negatives": ("a.json", "b.json"), "ui": (), "run": SUITE, "": (),
    "init": ("mine",), "schema": ("suite",),
}  # fmt: skip
OF_A_SUITE = ("--store", "--preset", "--data", "--set", "--only", "--seeds")
OPTIONS: dict[str, tuple[str, ...]] = {
    **{name: OF_A_SUITE for name, words in COMMANDS.items() if words[:1] == SUITE},
    "plan": (*OF_A_SUITE, "--jobs", "--json", "--show-config", "--cluster", "--no-fuse"),
    "status": (*OF_A_SUITE, "--json", "--no-fuse"), "logs": (*OF_A_SUITE, "--lines", "-n"),
    "report": (*OF_A_SUITE, "--json", "--against"), "methods": ("--methods-path",), "methods show": ("--methods-path",),
    "gc": ("--store", "--forget", "--yes"), "data check": ("--train", "--val", "--images", "--format"),
    "ui": ("--port", "--store"), "run": (*OF_A_SUITE, "--cluster", "--jobs"),
}  # fmt: skip
FLAGS = ("--yes", "--json", "--show-config", "--no-fuse")
SETTINGS = (
    "schedule.steps", "schedule.lr", "schedule", "rows.BAGS.beta", "rows.BAGS", "rows", "rows.x", "title", "seeds",
    "data.classes", "data", "data.name", "data.path", "detector.weights", "detector.rpn.anchor_sizes",
    "detector.engine",     "test.bins", "machine.device", "machine.threads", "figures", "stages.second.steps",
    "stages", "compare_with", "against", "input.workers", "cost.train_step", "preset", "methods_path", "x.y.z", "",
)  # fmt: skip
VALUES = (
    *TEXTS, "1-3", "3-1", "0-999999999999", "1,,2", "0,1,0", "9" * 5000, "-1", "1.5", "BAGS", "baseline,BAGS", "B*",
    "[B]*", "s.yaml", "/proc/self/mem", "local", "slurm", "/etc", "http://u:secret@h", "sqlite:////dev/null/x",
    "a" * 300,
)  # fmt: skip
GOOD = {"--store": "elsewhere", "--preset": "cpu", "--only": "baseline", "--seeds": "1-3", "--cluster": "slurm"}
REFUSED = ("--set", "schedule.stps=1")  # so that `run` starts nothing


def cases(seed: int, n: int) -> Iterator[Case]:
    """`n` command lines in a folder that has the tiny suite."""
    rng = random.Random(f"words {seed}")
    for number in range(n):
        command = rng.choice(list(COMMANDS))
        words = [*command.split(), *COMMANDS[command]]
        for _ in range(rng.choice((1, 1, 2, 3))):
            words += _option(command, rng)
        words = _broken(words, rng)
        if "run" in words or any("run".startswith(word) for word in words[:1]):
            words += REFUSED
        if "ui" in words:
            words += ["--store", "nowhere"]
        yield Case(f"{number}: {' '.join(words)[:80]!r}", tuple(words), {"s.yaml": TINY.encode()})


def _option(command: str, rng: random.Random) -> list[str]:
    name = rng.choice(OPTIONS.get(command, ("--version", "--help", "-h", "--nothing")))
    if name in FLAGS:
        return [name]
    if name == "--set" and rng.random() < 0.3:
        return [name, rng.choice(("schedule.steps=5", "rows.BAGS.beta=4", "seeds=[3]", "title=a"))]
    if name == "--set":
        value = rng.choice((yaml_text(odd(rng)), rng.choice(VALUES), "&a [*a]", "[" * 2000))
        return [name, f"{rng.choice(SETTINGS)}{rng.choice(('=', '=', '=', '=', '', '=='))}{value}"]
    return [name, rng.choice((rng.choice(VALUES), GOOD.get(name, "1"), GOOD.get(name, "1")))]


def _broken(words: list[str], rng: random.Random) -> list[str]:
    """Now and then one more, one fewer, or another word."""
    words = [word.replace("\0", "") for word in words]  # what no process can be given
    kind, at = rng.random(), rng.randrange(len(words)) if words else 0
    if kind < 0.1 and words:
        return [*words[:at], *words[at + 1 :]]
    if kind < 0.2:
        return [*words[:at], rng.choice(VALUES), *words[at:]]
    if kind < 0.3 and words:
        return [*words[:at], rng.choice(VALUES), *words[at + 1 :]]
    return words
