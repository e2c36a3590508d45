"""Every method of the house keeps every promise, on every engine that is installed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bench.contract_check.checks import CHECKS
from bench.contract_check.place import Sandbox
from bench.contract_check.subject import Subject, examine
from bench.engines.facts import ENGINES
from bench.method import Method
from bench.suite.catalogue import discover

METHODS = discover()
# The one reason for which a method's check may have nothing to look at, by check.
REASONS = {
    "key": "it has no settings",
    "effect": "it has no settings",
    "moves": "it trains nothing beyond the baseline",
    "resume": "it trains nothing beyond the baseline",
    "teachers": ("none of its losses looks at another model", "it trains nothing beyond the baseline"),
    "reload": "it trains nothing beyond the baseline",
    "fused": "it trains n",
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", list(METHODS.values()), ids=list(METHODS))
def test_a_method_keeps_its_promises(kind: type[Method], engine: str, place_of: Callable[[str], Sandbox]) -> None:
    place = place_of(engine)
    begun = time.process_time()
    findings = list(examine(Subject(kind, place), CHECKS))
    print(f"{kind.name}: {time.process_time() - begun:.1f} s of CPU")
    assert [f.check for f in findings] == [check.name for check in CHECKS]
    broken = [f"{f.check}: {f.message}\n{f.trace}" for f in findings if f.state == "fail"]
    assert not broken, "\n".join(broken)
    if not kind.needs - ENGINES[engine].provides:
        for finding in findings:
            if finding.state == "skip":
                assert finding.message.startswith(REASONS[finding.check])
            else:
                assert "not looked at" not in finding.message


def test_an_engine_that_every_installation_has_is_checked(place: Sandbox) -> None:
    assert place.engine in ENGINES
    assert place.suite.sections.detector.norm == "batch"  # or the check of frozen statistics would be idle
