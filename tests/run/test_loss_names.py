"""Losses of trunk and classifier are one sum by name: two of one name are refused, or one would vanish."""

from __future__ import annotations

from pathlib import Path

from bench.plan import planning
from tests.tiny_suite import SMOKE, bring, key_of, tiny

OWN = """
from pathlib import Path
from bench.method import Method, part

class Odd(Method):
    name = "odd"

    def plan(self, b):
        return b.train(classifier=part(str(Path(__file__).with_name("odd_part.py")) + ":Twice"))
"""
PART = """
from methods.parts.softmax import Softmax

class Twice(Softmax):
    def loss(self, z_NK, targets, context):
        (loss,) = super().loss(z_NK, targets, context).values()
        return {"loss_box_reg": loss}
"""


def test_a_classifier_s_loss_of_the_trunk_s_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(OWN)
    (tmp_path / "odd_part.py").write_text(PART)
    above = SMOKE.read_text().split("rows:")[0]
    (tmp_path / "odd.yaml").write_text(f"methods_path: odd.py\n{above}rows:\n  odd: {{method: odd}}\n"
                                       "  x2: {method: x2, schedule: {steps: 2}}\n")  # fmt: skip
    suite = tiny(path=tmp_path / "odd.yaml", only="odd")
    key = key_of(planning.make(suite), "odd")
    outcome = bring(suite, tmp_path / "store")[key]
    assert (outcome.state, outcome.code) == ("failed", 1)
    assert "the trunk and Twice.loss both have a loss 'loss_box_reg'" in outcome.message
    assert "any name but loss_box_reg, loss_objectness, loss_rpn_box_reg" in outcome.message
