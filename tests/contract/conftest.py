"""One place for each engine and session: the baseline that all methods start from is trained once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.contract_check.place import Sandbox, sandboxes

Sandboxes = Callable[[str], Sandbox]


@pytest.fixture(scope="session")
def place_of(tmp_path_factory: pytest.TempPathFactory) -> Sandboxes:
    """The place of an engine; a test whose engine cannot be had is skipped with the reason."""
    root = tmp_path_factory.mktemp("contract")
    known: dict[str, Sandbox | str] = {}

    def of(engine: str) -> Sandbox:
        if engine not in known:
            found, missing = sandboxes(root, [engine])
            known[engine] = found[0] if found else missing[engine]
        place = known[engine]
        if isinstance(place, str):
            pytest.skip(place)
        return place

    return of


@pytest.fixture(scope="session")
def place(place_of: Sandboxes) -> Sandbox:
    """That of the engine that every installation has."""
    return place_of("torchvision")
