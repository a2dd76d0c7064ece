"""Starlette and FastAPI: ``stagelight.asgi`` around every application, without a line of code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stagelight.asgi import AnswerHeaders, RequestMiddleware
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target

__all__ = ["StarletteInstrumentor"]


class StarletteInstrumentor(Instrumentor):
    """Request ids, owners and turns for the applications of Starlette and FastAPI."""

    distribution = "starlette"
    supported = "starlette >= 0.40, < 2"
    coverage = Coverage(
        title="Starlette and FastAPI",
        calls={},
        ways="HTTP and websockets; plain and streamed answers",
        recorded=(
            "The turn of a request in which a stage runs, unless the application opens turns itself"
            " ([requests](requests.md)).",
            "`X-Request-ID` and `traceresponse` on every answer, also on one that an unhandled error made.",
        ),
        not_recorded=(
            "The server's span and its metrics: they are those of the official instrumentation, which the extras"
            " `fastapi` and `starlette` bring, or FastAPI's own, which 0.165 has. What these record beside times:"
            " [security](security.md#what-leaves-an-application).",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        """The call of an application, and what builds its middleware (FastAPI has a way of its own)."""
        return (
            Target("starlette.applications", "Starlette.__call__", _answered),
            Target("starlette.applications", "Starlette.build_middleware_stack", _entered),
            Target("fastapi.applications", "FastAPI.build_middleware_stack", _entered),
        )


def _answered(wrapped: Callable[..., Any], _app: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return AnswerHeaders(wrapped)(*args, **kwargs)


def _entered(wrapped: Callable[..., Any], _app: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Below the outermost error handler, which the official instrumentation takes apart, and the server's span."""
    stack = wrapped(*args, **kwargs)
    inner = getattr(stack, "app", None)
    if inner is not None and not isinstance(inner, RequestMiddleware):
        stack.app = RequestMiddleware(inner)
    return stack
