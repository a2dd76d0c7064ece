"""What tests of requests have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stagelight._starlette import StarletteInstrumentor


@pytest.fixture
def starlette_recorded() -> Iterator[None]:
    """Applications of Starlette and FastAPI are recorded, without a line of theirs."""
    StarletteInstrumentor().instrument()
    yield
    StarletteInstrumentor().uninstrument()
