"""The HTTP server's application: OTLP under ``/v1/``, health, and the pages for everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from stagelight.embedded.access import Access
from stagelight.embedded.answers import OTLP_PREFIX, send_answer, send_refusal
from stagelight.embedded.gate import HEALTH_PATH, Gate
from stagelight.embedded.intake import Intake
from stagelight.embedded.otlp_http import OtlpHttp
from stagelight.embedded.refusal import MethodNotAllowed, Refused

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from stagelight.sources.model import Source

__all__ = ["http_app"]


def http_app(intake: Intake, access: Access, source_factory: Callable[[], Source]) -> ASGIApp:
    """The application behind the gate.

    Args:
        intake: where received data goes.
        access: who may talk to the server.
        source_factory: opens what the pages read; called by the pages.
    """
    return Gate(_Router(intake, source_factory), access, form_timeout_s=intake.limits.header_timeout_s)


class _Router:
    def __init__(self, intake: Intake, source_factory: Callable[[], Source]) -> None:
        self._intake = intake
        self._otlp = OtlpHttp(intake)
        self._source_factory = source_factory
        self._pages: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(OTLP_PREFIX):
            await self._otlp(scope, receive, send)
        elif scope["path"] == HEALTH_PATH:
            await self._health(scope, send)
        else:
            if self._pages is None:
                # Made at the first use, so that a server nobody looks at stays smaller and starts sooner; in a thread,
                # because loading it would hold up the exporters for half a second.
                self._pages = await asyncio.to_thread(_pages, self._source_factory)
            await self._pages(scope, receive, send)

    async def _health(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in {"GET", "HEAD"}:
            await send_refusal(scope, send, MethodNotAllowed(f"{HEALTH_PATH} takes GET, not {scope['method'][:20]}"))
            return
        try:
            await self._intake.check()
        except Refused as refusal:
            await send_refusal(scope, send, refusal)
        else:
            await send_answer(send, 200, "text/plain; charset=utf-8", b"ok\n")


def _pages(source_factory: Callable[[], Source]) -> ASGIApp:
    from starlette.applications import Starlette

    from stagelight.embedded.pages import pages_routes

    return Starlette(routes=pages_routes(source_factory))
