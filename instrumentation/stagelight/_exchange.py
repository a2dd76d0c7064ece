"""One HTTP request and its answer: id and owner on the way in, headers on the way out, the turn's end at the end."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from stagelight import _runtime
from stagelight._guard import guard
from stagelight._inbound import REQUEST_KEY, Inbound, accepted_id, new_id
from stagelight._lifecycle import SPAN_KEY
from stagelight._request_identity import Headers, identity_of
from stagelight._turns import RequestTurn
from stagelight.conventions import attributes as a
from stagelight.propagation import REQUEST_ID_HEADER

__all__ = ["TRACE_HEADER", "Exchange"]

TRACE_HEADER: Final = "traceresponse"
"""https://www.w3.org/TR/trace-context-2/#traceresponse-header"""

_SENTRYS_OWN: Final = frozenset({"asgi", "wsgi"})
"""Names that Sentry's middlewares give the isolation scopes of their requests."""


class Exchange:
    """A request on its way through the application.

    Args:
        headers: its headers, names in lower case.
        name: gives the turn's name and the route's template, once the application has found the route.
    """

    __slots__ = ("_finished", "_headers", "_span", "abandoned", "inbound", "status")

    def __init__(self, headers: Headers, name: Callable[[], tuple[str, str | None]]) -> None:
        settings = _runtime.current().settings
        self._headers = headers
        self._finished = False
        self._span: SpanContext | None = None
        self.inbound = Inbound(
            accepted_id(headers.get(REQUEST_ID_HEADER)) or new_id(),
            identity_of(settings.request_identity, headers),
            name=name,
        )
        self.abandoned = False
        """The client went away before it had the whole answer."""
        self.status: int | None = None

    def enter(self) -> Context:
        """The context for the application: below the server's span, or where there is none below the caller's."""
        before = otel_context.get_current()
        span = trace.get_current_span(before)
        if span.get_span_context().is_valid:
            span.set_attribute(a.STAGELIGHT_REQUEST_ID, str(self.inbound.request_id))
            self._span = span.get_span_context()
        else:
            before = propagate.extract(dict(self._headers), before)
        self.inbound.entry = before
        return otel_context.set_value(REQUEST_KEY, self.inbound, before)

    def enter_mounted(self) -> None:
        """An application that is mounted in another begins; it may have a server's span of its own."""
        span = otel_context.get_current().get(SPAN_KEY)
        if span is not None:
            self.inbound.mounted = (*self.inbound.mounted, span)

    def answer(self) -> tuple[tuple[str, str], ...]:
        """Headers for the answer: the request's id, and the trace in which the request was served."""
        turn = self.inbound.turn
        span = self._span or (turn.span if turn is not None else trace.get_current_span()).get_span_context()
        headers = ((REQUEST_ID_HEADER, str(self.inbound.request_id)),)
        if not span.is_valid or span.is_remote:  # no span of this process: there is nothing to say
            return headers
        trace_id, span_id = trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)
        return (*headers, (TRACE_HEADER, f"00-{trace_id}-{span_id}-{int(span.trace_flags):02x}"))

    def finish(self, error: BaseException | None = None) -> None:
        """The last byte is sent, or the application failed; later calls do nothing."""
        with guard("request end"):
            if self._finished:
                return
            self._finished = True
            turn = self.inbound.closed()
            if isinstance(turn, RequestTurn):
                turn.answered(self.status, error, abandoned=self.abandoned)

    @contextlib.contextmanager
    def noted_in_sentry(self) -> Iterator[None]:
        """Block in which Sentry's events carry the request's id and the trace; nothing where Sentry is not set up."""
        with contextlib.ExitStack() as leaving:
            with guard("sentry"):
                self._note_in_sentry(leaving)
            yield

    def _note_in_sentry(self, leaving: contextlib.ExitStack) -> None:
        sentry: Any = sys.modules.get("sentry_sdk")
        is_initialized = getattr(sentry, "is_initialized", None)  # none before 2.0, nor while it is being imported
        if is_initialized is None or not is_initialized():
            return
        # What the application tells Sentry goes to the isolation scope: a new one would hide it from events that
        # Sentry's own middleware captures outside. That middleware names its scope, one per request.
        scope = sentry.get_isolation_scope()
        if getattr(scope, "_name", None) not in _SENTRYS_OWN:
            scope = leaving.enter_context(sentry.new_scope())
        scope.set_tag("request_id", self.inbound.request_id)
        if self._span is not None:
            scope.set_tag("trace_id", trace.format_trace_id(self._span.trace_id))
