"""What tests of requests have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from stagelight._starlette import StarletteInstrumentor
from stagelight.testing import Captured

if TYPE_CHECKING:
    from fastapi import FastAPI


@pytest.fixture
def starlette_recorded() -> Iterator[None]:
    """Applications of Starlette and FastAPI are recorded, without a line of theirs."""
    StarletteInstrumentor().instrument()
    yield
    StarletteInstrumentor().uninstrument()


@pytest.fixture(params=["by code", "by environment"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[Captured], FastAPI]]:
    """Builds the application inside the official instrumentation, with our middleware added in either way."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # not in every environment of the matrix
    from requests_application import application
    from stagelight.asgi import RequestMiddleware

    instrumentor = StarletteInstrumentor()
    if request.param == "by environment":
        assert instrumentor.switch_on()

    def made(captured: Captured) -> FastAPI:
        app = application()
        if request.param == "by code":
            app.add_middleware(RequestMiddleware)
        FastAPIInstrumentor.instrument_app(
            app, tracer_provider=captured.tracer_provider, meter_provider=captured.meter_provider
        )
        return app

    yield made
    if request.param == "by environment":
        instrumentor.uninstrument()
