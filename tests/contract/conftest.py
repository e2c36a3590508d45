"""One place for each engine and session: the baseline that all methods start from is trained once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.contract_check.place import Place, places

Places = Callable[[str], Place]


@pytest.fixture(scope="session")
def place_of(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """The place of an engine; a test whose engine cannot be had is skipped with the reason."""
    root = tmp_path_factory.mktemp("contract")
    known: dict[str, Place | str] = {}

    def of(engine: str) -> Place:
        if engine not in known:
            found, missing = places(root, [engine])
            known[engine] = found[0] if found else missing[engine]
        place = known[engine]
        if isinstance(place, str):
            pytest.skip(place)
        return place

    return of


@pytest.fixture(scope="session")
def place(place_of: Places) -> Place:
    """That of the engine that every installation has."""
    return place_of("torchvision")
