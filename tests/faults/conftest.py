"""The one undisturbed run of the session, made by the command that a user types."""

from __future__ import annotations

import pytest
from tiny_suite import Undisturbed, undisturbed_run


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """All rows of the tiny suite, done."""
    return undisturbed_run(tmp_path_factory.getbasetemp())
