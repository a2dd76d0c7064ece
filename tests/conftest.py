"""All tests run strict: misuse and our own failures raise instead of being logged once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stagelight import _guard


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Raise where a user's process would log."""
    _guard.set_strict(True)
    yield
    _guard.set_strict(True)
