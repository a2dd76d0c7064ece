"""A database client's call: the stage it serves, and inside it the span that OpenTelemetry asks of such a client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from math import isfinite
from typing import Any, Final
from weakref import ref

from opentelemetry import context as otel_context
from opentelemetry.trace import SpanKind, get_current_span

from stagelight._lifecycle import Attachment, Scope, end_span
from stagelight.conventions import attributes as a
from stagelight.facts import Outcome, Request, Response, Retrieved, Stage
from stagelight.integrations._engine import Observed
from stagelight.integrations._reading import part

__all__ = ["DatabaseCall", "Scale", "is_inside", "is_spanned", "retrieved"]

Scale = tuple[str, bool]
"""What scores are, and whether a higher one is better."""

_SQLSTATE_LENGTH: Final = 5

_KEY = otel_context.create_key("stagelight.integrations.database")


class _DatabaseSpan(Scope):
    """``{db.operation.name} {collection}``, kind CLIENT."""

    __slots__ = ("_request", "_status_code")

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._request = request
        self._status_code: str | None = None

    def _start(self) -> None:
        request = self._request
        collection = request.source or request.name
        attributes = {
            a.DB_SYSTEM_NAME: request.db_system,
            a.DB_OPERATION_NAME: request.db_operation,
            a.DB_COLLECTION_NAME: collection,
            a.SERVER_ADDRESS: request.server_address,
            a.SERVER_PORT: request.server_port,
        }
        name = " ".join(filter(None, (request.db_operation, collection))).encode("utf-8", "replace").decode()
        known = {key: value for key, value in attributes.items() if value is not None}
        self._begin(name, SpanKind.CLIENT, known, _KEY)

    def fail(self, error: BaseException) -> None:
        """End with what the client raised, and the server's status if it answered."""
        self._status_code = _status(error)
        super().fail(error)

    def _record(self, end_s: float, outcome: Outcome) -> None:
        del outcome
        told = {a.ERROR_TYPE: self._error_type, a.DB_RESPONSE_STATUS_CODE: self._status_code}
        known = {key: value for key, value in told.items() if value is not None}
        self._runtime.handover.put(partial(end_span, self.span, self.end_ns(end_s), known, self._error_type))


def _status(error: BaseException) -> str | None:
    """HTTP status, SQLSTATE or name of the gRPC status, wherever the client keeps it."""
    status = part(error, "status_code")
    if isinstance(status, int):
        return str(status)
    for raised in (error, part(error, "orig")):  # SQLAlchemy raises its own error and keeps the driver's
        state = part(raised, "sqlstate") or part(raised, "pgcode")
        if isinstance(state, str) and len(state) == _SQLSTATE_LENGTH and state.isalnum():
            return state
    told = part(error, "code")
    name = part(told(), "name") if callable(told) else None
    return name if isinstance(name, str) else None


def is_inside() -> bool:
    """Whether this runs inside a database call that is observed already, by the layer above this client."""
    found = otel_context.get_value(_KEY)
    around = found[0]() if isinstance(found, tuple) else None
    return around is not None and around.live


def is_spanned(scope: str) -> bool:
    """Whether the current span is already that of a database client, made by the instrumentation ``scope``."""
    return bool(part(get_current_span(), "instrumentation_scope", "name") == scope)


def retrieved(count: int, scores: Iterable[Any], scale: Scale | None) -> Response:
    """What a search found.

    Args:
        count: number of results.
        scores: what the server computed, best first; what is no finite number is left out.
        scale: what the scores are, and whether a higher one is better; ``None`` where that is not known.
    """
    known = tuple(float(score) for score in scores if isinstance(score, float | int | Decimal) and isfinite(score))
    metric, higher_is_better = (None, None) if scale is None else scale
    return Response(retrieved=Retrieved(count=count, scores=known, metric=metric, higher_is_better=higher_is_better))


class DatabaseCall:
    """One call of a database client.

    Args:
        stage: ``retrieval`` or ``store``.
        request: what was asked; ``db_system`` and ``db_operation`` are set.
        response: the client's result -> what came back.
        has_span: False where another instrumentation makes the database client's span.
    """

    __slots__ = ("__weakref__", "_observed", "_response", "_span", "live")

    def __init__(
        self,
        stage: Stage,
        request: Request,
        response: Callable[[Any], Response | None],
        *,
        has_span: bool = True,
    ) -> None:
        self._observed = Observed(stage, request)
        self._response = response
        self.live = True
        self._span: _DatabaseSpan | None = None
        if has_span:
            with self._observed.call.active():
                self._span = _DatabaseSpan(request).start()

    def active(self) -> Attachment:
        if self._span is not None:
            return self._span.active()
        return Attachment(otel_context.set_value(_KEY, (ref(self), None), self._observed.call.context))

    def returned(self, result: Any) -> None:
        self.live = False
        if self._span is not None:
            self._span.end()
        self._observed.absorb(self._response(result))
        self._observed.end()

    def failed(self, error: BaseException) -> None:
        self.live = False
        if self._span is not None:
            self._span.fail(error)
        self._observed.fail(error)
