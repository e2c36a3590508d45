"""One process of a job of several, as a script: it runs a Job and notes the RoIs that every step sampled.

python rank.py STORE MACHINE(json) UNITS(json) NOTES [SIGNAL_AT]: at its n-th look at the stop flag the process gets a
real SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from bench.engines.torchvision.detector import TwoStageDetector
from bench.run import distributed, job
from bench.run.job import Job
from bench.run.work import StopFlag
from bench.spec import Machine

NOTED: list[dict[str, Any]] = []
whole_step = distributed.whole_step
sample = TwoStageDetector._sample


def noted_step(out: Any, *rest: Any) -> Any:
    """What the classifiers' losses are handed: labels and pictures of the RoIs of the whole step."""
    whole = whole_step(out, *rest)
    targets = whole.targets
    if not NOTED or "labels" in NOTED[-1]:  # of an engine that samples no RoIs
        NOTED.append({})
    NOTED[-1] |= {
        "labels": targets.labels_N, "image": targets.image_N, "present": list(targets.present),
        "negative": list(targets.negative), "features": whole.taps.box_features.detach().clone(),
    }  # fmt: skip
    return whole


def noted_sample(self: Any, *rest: Any) -> Any:
    """The boxes of the RoIs of this process's pictures."""
    found = sample(self, *rest)
    NOTED.append({"boxes": torch.cat(found[0])})
    return found


class SignalAt(StopFlag):
    """Looked at once a step."""

    left = 0

    def __bool__(self) -> bool:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__bool__()


def main() -> None:
    store, machine, units, notes, *at = sys.argv[1:]
    distributed.whole_step = noted_step
    TwoStageDetector._sample = noted_sample  # type: ignore[method-assign]
    if at:
        SignalAt.left = int(at[0])
        job.StopFlag = SignalAt  # type: ignore[misc]
    told = {path.parent.name: json.loads(path.read_text())["aside"] for path in Path(store).glob("*/stage.json")}
    outcomes = Job(store, tuple(map(tuple, json.loads(units))), Machine.model_validate_json(machine), asides=told)()
    torch.save(NOTED, Path(notes))
    print(json.dumps({key: [o.state, o.message, o.code] for key, o in outcomes.items()}))


if __name__ == "__main__":
    main()
