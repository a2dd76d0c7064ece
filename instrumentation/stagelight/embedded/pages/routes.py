"""Addresses of the pages and what they answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TypeVar
from urllib.parse import urlencode

from jinja2 import TemplateError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from stagelight.embedded.pages import now, ranges, turn
from stagelight.embedded.pages.raw import trace_json
from stagelight.embedded.pages.rendering import FILES, render
from stagelight.embedded.pages.waterfall import SELECTIONS
from stagelight.sources.faults import UNEXPECTED, outline
from stagelight.sources.model import Source, SourceUnavailable, Trace, TurnOrder

__all__ = ["pages_routes"]

_log = logging.getLogger(__name__)

_UNEXPECTED: tuple[type[Exception], ...] = (*UNEXPECTED, TemplateError)

_NO_STORE = {"Cache-Control": "no-store"}
_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
_ORDERS: Mapping[str, TurnOrder] = {"newest": "newest", "slowest": "slowest"}

Choice = TypeVar("Choice")


class _PageError(Exception):
    """Ends a request with a page that says what to do."""

    def __init__(self, status: int, headline: str, advice: str) -> None:
        super().__init__(headline)
        self.status, self.headline, self.advice = status, headline, advice


def pages_routes(source_factory: Callable[[], Source]) -> list[BaseRoute]:
    """Routes of the pages Now (``/``) and Turn (``/turns/<trace id>``), their live parts, raw JSON and static files.

    Args:
        source_factory: opens what the pages read. Called once per request in a worker thread; the page closes what it
            got. ``SourceUnavailable`` becomes a page with its message and status 503.
    """
    pages = _Pages(source_factory)
    return [
        Route("/", pages.now),
        Route("/fragments/now", pages.now_fragment),
        Route("/turns/{trace_id}.json", pages.turn_json),
        Route("/turns/{trace_id}", pages.turn),
        Route("/turns/{trace_id}/spans/{span_id}", pages.span_fragment),
        Route("/traces/{trace_id}", pages.trace),
        Route("/static/{name}", _static),
        Route("/favicon.ico", _static),  # browsers ask for it beside raw JSON, which names no icon
        Route("/{path:path}", _nowhere),
    ]


class _Pages:
    def __init__(self, source_factory: Callable[[], Source]) -> None:
        self._open = source_factory

    def now(self, request: Request) -> Response:
        return self._answer(lambda source: HTMLResponse(render("now.html", **_now(request, source)), headers=_NO_STORE))

    def now_fragment(self, request: Request) -> Response:
        return self._answer(
            lambda source: HTMLResponse(render("now_parts.html", **_now(request, source)), headers=_NO_STORE)
        )

    def turn(self, request: Request) -> Response:
        def answer(source: Source) -> Response:
            trace = _trace(request, source)
            if trace.trace_id != request.path_params["trace_id"]:
                return _to_turn(trace.trace_id, request)
            show = _choice(request, "show", dict(zip(SELECTIONS, SELECTIONS, strict=True)), "all")
            view = turn.view(trace, show=show, page=_page(request), span_id=request.query_params.get("span"))
            return HTMLResponse(render("turn.html", view=view, now_ns=time.time_ns()), headers=_NO_STORE)

        return self._answer(answer)

    def turn_json(self, request: Request) -> Response:
        return self._answer(
            lambda source: Response(
                trace_json(_trace(request, source)), media_type="application/json", headers=_NO_STORE
            )
        )

    def span_fragment(self, request: Request) -> Response:
        def answer(source: Source) -> Response:
            detail = turn.detail(_trace(request, source), request.path_params["span_id"])
            if detail is None:
                raise _PageError(404, "No such span in this trace", "It may have been deleted; reload the page.")
            return HTMLResponse(render("span.html", detail=detail, now_ns=time.time_ns()), headers=_NO_STORE)

        return self._answer(answer)

    def trace(self, request: Request) -> Response:
        return _to_turn(request.path_params["trace_id"], request)

    def _answer(self, answer: Callable[[Source], Response]) -> Response:
        try:
            with closing(self._open()) as source:
                return answer(source)
        except SourceUnavailable as error:
            return _problem_page(_PageError(503, "There is nothing to read", str(error)))
        except _PageError as problem:
            return _problem_page(problem)
        except _UNEXPECTED as error:
            _log.error("a page could not be made: %s", outline(error))
            advice = "Something that was received cannot be shown. The other pages work; the server's log says where."
            return _problem_page(_PageError(500, "This page could not be made", advice))


def _now(request: Request, source: Source) -> dict[str, object]:
    chosen = _choice(request, "range", ranges.RANGES, ranges.DEFAULT)
    order = _choice(request, "order", _ORDERS, "newest")
    return {
        "page": now.look(source, chosen, order, time.time_ns()),
        "ranges": ranges.RANGES.values(),
        "endpoint": str(request.base_url).rstrip("/"),
    }


def _choice(request: Request, name: str, choices: Mapping[str, Choice], default: str) -> Choice:
    given = request.query_params.get(name, default)
    if given not in choices:
        raise _PageError(400, f"{name}={given[:40]} is not a choice", f"Choose one of: {', '.join(choices)}.")
    return choices[given]


def _page(request: Request) -> int | None:
    given = request.query_params.get("page")
    if given is None:
        return None
    if not given.isascii() or not given.isdecimal() or len(given) > 9:
        raise _PageError(400, f"page={given[:40]} is not a page", "Give a whole number from 1.")
    return int(given)


def _trace(request: Request, source: Source) -> Trace:
    trace_id = request.path_params["trace_id"]
    try:
        trace = source.trace(trace_id.lower())
    except ValueError as error:
        raise _PageError(404, f"{trace_id[:64]} names no trace", f"{error}") from error
    if trace is None:
        advice = "It was not received yet, or is older than what is kept. New turns are listed on the page Now."
        raise _PageError(404, f"No trace {trace_id[:64]} here", advice)
    return trace


def _to_turn(trace_id: str, request: Request) -> Response:
    query = urlencode(list(request.query_params.multi_items()))
    return RedirectResponse(f"/turns/{trace_id}" + (f"?{query}" if query else ""), headers=_NO_STORE)


def _problem_page(problem: _PageError) -> Response:
    return HTMLResponse(render("problem.html", problem=problem), status_code=problem.status, headers=_NO_STORE)


def _static(request: Request) -> Response:
    file = FILES.get(request.path_params.get("name", "icon.svg"))
    return _nowhere(request) if file is None else Response(file.content, media_type=file.media_type, headers=_FOREVER)


def _nowhere(request: Request) -> Response:
    return _problem_page(
        _PageError(404, f"Nothing is at {request.url.path[:200]}", "The page Now lists the last turns.")
    )
