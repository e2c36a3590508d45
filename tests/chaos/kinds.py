"""What can happen to a run, and which run it happens to. Separate because it is drawn before anything starts: from the
seed and the number of the run alone, so that one run can be had again by `--only`.

Every kind has its turn: the first fault of a run is dealt from a shuffled deck of all kinds, the others are drawn.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BOTH, LOCAL, SLURM = ("local", "slurm"), ("local",), ("slurm",)
MOST_FAULTS = 3


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        places: where it can happen.
        settings: what the cluster file says so that it can.
        apart: kinds that name the same word here do not meet in one run.
        early: it happens by itself, so it is waited for from the start.
    """

    places: tuple[str, ...] = BOTH
    settings: Mapping[str, Any] = field(default_factory=dict)
    apart: str = ""
    early: bool = False


KINDS: Mapping[str, Kind] = {
    "driver killed": Kind(),
    "job killed": Kind(),
    "driver and jobs killed": Kind(),
    "Ctrl-C": Kind(),
    "checkpoint truncated": Kind(),
    "checkpoint with a flipped bit": Kind(),
    "lease of a dead process": Kind(),
    "lease of a dead host": Kind(),
    "event log cut": Kind(),
    "disk full": Kind(),
    "two drivers": Kind(),
    "scancel": Kind(SLURM),
    "scontrol requeue": Kind(SLURM),
    # Slurm tells jobs up to a minute before it was asked to (sbatch(1), --signal): 52 s before the end of 60 s is soon
    # after the start, while the job trains.
    "time limit, told": Kind(SLURM, {"time_min": 1, "signal_delay_s": 52}, apart="limit", early=True),
    "time limit, deaf": Kind(SLURM, {"time_min": 1, "signal_delay_s": 1}, apart="limit"),
    "preempted, requeued": Kind(SLURM, {"partition": "debug"}, apart="partition"),
    "preempted, cancelled": Kind(SLURM, {"partition": "spot"}, apart="partition"),
    "slurmd restarted": Kind(SLURM),
    "slurmctld restarted": Kind(SLURM),
}


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, and the share of all training steps after which it strikes, `delay` seconds later."""

    kind: str
    moment: float
    delay: float


@dataclass(frozen=True)
class Drawn:
    """What happens to one run."""

    number: int
    place: str
    faults: tuple[Fault, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """Of the cluster file."""
        return {name: value for fault in self.faults for name, value in KINDS[fault.kind].settings.items()}

    @property
    def told(self) -> str:
        return ", ".join(f"{fault.kind} at {fault.moment:.2f}" for fault in self.faults)


def draw(seed: int, number: int) -> Drawn:
    """The faults of a run. Even numbers run here, odd ones in Slurm."""
    rng = random.Random(f"{seed} {number}")
    place = SLURM[0] if number % 2 else LOCAL[0]
    deck = [name for name, kind in KINDS.items() if place in kind.places]
    own = [name for name in deck if KINDS[name].places == SLURM] if place == "slurm" else deck
    random.Random(f"{seed} {place}").shuffle(own)
    turn = number // 2
    chosen = [own[turn % len(own)]]
    more = [own[(turn + len(own) // 2 - 1) % len(own)], *rng.sample(deck, MOST_FAULTS)]  # half a deck on: another kind
    for name in more[: rng.choice((1, 2, 2, 3))] if place == "slurm" else more[: rng.choice((0, 1, 1, 2))]:
        taken = {KINDS[one].apart for one in chosen} - {""}
        if len(chosen) < MOST_FAULTS and name not in chosen and KINDS[name].apart not in taken:
            chosen.append(name)
    return Drawn(number, place, tuple(sorted((_fault(name, rng) for name in chosen), key=lambda one: one.moment)))


def _fault(name: str, rng: random.Random) -> Fault:
    moment = 0.0 if KINDS[name].early else rng.uniform(0.0, 0.9)
    return Fault(name, moment, rng.uniform(0.0, 2.0))
