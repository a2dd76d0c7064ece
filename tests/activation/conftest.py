"""What programs are started between: a provider, and a receiver of their telemetry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sinks import Sink, receiving
from stagelight.sim import Simulator


@pytest.fixture(scope="module")
def simulator() -> Iterator[str]:
    """A provider without latency."""
    with Simulator(latency="instant") as running:
        yield running.url


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A receiver of telemetry."""
    with receiving() as open_sink:
        yield open_sink
