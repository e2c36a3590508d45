"""What each training of a row's chain was trained on, and how its losses went. Separate from load.py, which reads
results: figures of trainings alone need these.

C foreground classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.errors import UserError, parsed
from bench.lineage import model_chain
from bench.stage import Stage
from bench.store.done import Done
from bench.store.events import read_events
from bench.store.store import Store

TRAIN_INFO = "train.json"  # named by bench/run/model.py, which imports torch


@dataclass(frozen=True)
class Training:
    """One training of a chain.

    Attributes:
        number: in its chain, the first is 1.
        counts: instances of the C classes in what it learns from; those of the whole set where it learns from all.
        curve: step -> losses by name, and their sum as `loss`.
        beside: whether it has losses beside those of the detector.
        steps: how many it has.
        seconds: how long all of them take one process after another; where it was resumed, from the share of its steps
            that its last attempt did, and in a fused pass its own part and what all have in common. None where an
            attempt did no step.
        memory: most that it needed: "host" and "gpu" -> MB, where measured.
    """

    number: int
    counts: tuple[int, ...]
    curve: Mapping[int, Mapping[str, float]]
    beside: bool
    steps: int = 0
    seconds: float | None = None
    memory: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As a figure calls it."""
        return f"training {self.number}"


def trainings(store: Store, model: Stage) -> list[Training]:
    """Those that made a model, the first first; without those whose record cannot be read."""
    found: list[Training] = []
    for stage in model_chain(model):
        done = store.done(stage.key) if stage.kind == "train" else None
        if done is None:
            continue
        try:
            info: Any = parsed(store.read(stage.key, TRAIN_INFO))
            whole: Any = parsed(store.read(stage.inputs["train"].key, "counts.json"))
            counts = (info.get("counts") or whole)["instances"]
        except (UserError, KeyError, TypeError, AttributeError):
            continue
        curve = {}
        for attempt in reversed(store.attempts(stage.key)):  # a later attempt goes on from an earlier one
            for event in read_events(attempt / "events.jsonl")[0]:
                if event.get("event") == "metrics":
                    curve[int(event["step"])] = {name: float(v) for name, v in event["values"].items() if name != "lr"}
        memory = {name: float(done.extra[f"{name}_mb"]) for name in ("host", "gpu") if f"{name}_mb" in done.extra}
        found.append(
            Training(
                len(found) + 1,
                tuple(map(int, counts)),
                dict(sorted(curve.items())),
                "losses" in stage.spec,
                int(info["steps"]),
                _seconds(done),
                memory,
            )
        )
    return found


def _seconds(done: Done) -> float | None:
    part = float(done.extra.get("part", 1.0))
    own, shared = done.extra.get("own_seconds", 0.0), done.extra.get("shared_seconds")
    return (done.seconds if shared is None else own + shared) / part if part > 0 else None
