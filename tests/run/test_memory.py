"""Too little memory is said in words, by a job as well, and is not tried again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_suite import ROOT, Undisturbed, copied, key_of, tiny, work

from bench.errors import StageError
from bench.plan import planning
from bench.run.memory import explained
from bench.run.world import World, portable
from bench.store.store import Store

# As torch 2.15 writes it.
CARD = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 139.80 GiB of which 1.19 GiB is "
    "free. Including non-PyTorch memory, this process has 138.60 GiB memory in use."
)
ANSWER = "the GPU has too little memory (Tried to allocate 2.50 GiB, total capacity of 139.80 GiB)"
PART = """
import torch
from methods.parts.softmax import Softmax

class Hungry(Softmax):
    def loss(self, z_NK, targets, context):
        if self.card:
            raise torch.OutOfMemoryError(CARD)
        torch.empty(2**60)
    def __init__(self, head, *, card=True):
        super().__init__(head)
        self.card = card
"""
METHOD = """
from pathlib import Path
from typing import ClassVar
from bench.method import Builder, Method, part
from bench.stage import Stage

class Hungry(Method):
    '''A head that wants more memory than there is.'''
    name: ClassVar[str] = "hungry"
    card: bool = True
    def plan(self, b: Builder) -> Stage:
        head = part(f"{Path(__file__).parent / 'part.py'}:Hungry", card=self.card)
        return b.train(init=b.train(), keep_classifier=True, classifier=head, trainable=("classifier",))
"""


def test_a_job_says_what_to_lower(smoke: Undisturbed, tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "hungry.py").write_text(METHOD)
    (tmp_path / "methods" / "part.py").write_text(PART.replace("CARD", repr(CARD)))
    path = tmp_path / "hungry.yaml"
    rows = "  card: {method: hungry}\n  host: {method: hungry, card: false}\nmethods_path: methods/hungry.py\n"
    path.write_text((ROOT / "suites" / "smoke.yaml").read_text() + rows)
    suite = tiny(path=path)
    plan = planning.make(suite)
    root = copied(smoke.root, tmp_path / "store", set(smoke.plan.stages))
    card, host = key_of(plan, "card"), key_of(plan, "host")
    for key in (card, host):
        Store(root).add(plan.stages[key])
    outcomes = work(root, suite, (card, host))
    assert {(outcome.state, outcome.code, outcome.again) for outcome in outcomes.values()} == {("failed", 1, False)}
    assert outcomes[card].message.startswith(ANSWER)
    assert "schedule.batch" in outcomes[card].message
    assert "too little memory on this host" in outcomes[host].message
    assert "raise mem_gb" in outcomes[host].message
    failure = Store(root).failure(card)
    assert failure is not None
    assert failure.error == outcomes[card].message


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CARD),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_the_others_of_a_job_are_told_so_too(error: Exception) -> None:
    told = portable(error, World(1, 2))
    assert isinstance(told, StageError)
    assert "too little memory" in str(told)
    assert told.hint


def test_another_error_is_left_as_it_is() -> None:
    error = RuntimeError("shapes do not fit")
    assert explained(error) is error
