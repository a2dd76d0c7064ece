"""``price()``: the host's hot path. A bounded cache of compiled rows, and guards so that no input makes it raise."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import getcontext, localcontext
from pathlib import Path
from time import time
from typing import Final

from stagelight.cost.book import Answer, Book, Query, load
from stagelight.cost.calculation import Compute, compile_row, refuse
from stagelight.cost.rates import EXACT
from stagelight.facts import Cost, Unpriced, Usage

__all__ = ["answer", "book", "clock_time", "configure", "price"]

_NAME_LIMIT: Final = 128
_GENERATION: Final = 512
"""Compiled rows kept per generation; two generations live at a time."""

_DAY_S: Final = 86_400
_EARLIEST: Final = 0.0
_LATEST: Final = 253_370_764_800.0  # the year 9999: what a datetime can hold
_ENOUGH_DIGITS: Final = 28

_Key = tuple[str | None, str | None, str | None, str | None, str | None]
_Quote = tuple[float, float, Compute]
_EXPIRED: Final[_Quote] = (0.0, 0.0, refuse("unknown_model"))

_lock: Final = threading.Lock()
_book = Book()
_hot: dict[_Key, _Quote] = {}
_cold: dict[_Key, _Quote] = {}


def configure(overrides: Path | None = None) -> None:
    """Load the user's prices in place of any loaded before, and forget compiled prices.

    Args:
        overrides: a YAML price file (``STAGELIGHT_PRICES``); ``None`` for none.

    Raises:
        PriceFileError: the file cannot be read or has a value that is not accepted; nothing is changed then.
    """
    global _book, _hot, _cold
    loaded = load(overrides)
    with _lock:
        _book, _hot, _cold = loaded, {}, {}


def book() -> Book:
    """The price book in use."""
    return _book


def price(
    usage: Usage | None,
    *,
    provider: str | None,
    request_model: str | None,
    response_model: str | None = None,
    operation: str | None = None,  # noqa: ARG001 - part of a call's identity; no price differs by it today
    service_tier: str | None = None,
    at: float | None = None,
    server_address: str | None = None,
) -> Cost:
    """Price one call. Never raises.

    Args:
        usage: quantities of the call; ``None`` when the provider reported none.
        provider: name of the provider, as the conventions or a price list call it; never guessed from the model.
        request_model: model that was asked for.
        response_model: model that answered; tried first. When only the requested one has a price, the cost is an
            estimate.
        operation: name of the operation.
        service_tier: ``batch``, ``flex``, ``priority`` ...; ``None``, ``auto`` and ``default`` are the list price.
        at: time of the call in unix seconds; default now.
        server_address: host the call went to; a private one is never priced as hosted, so leave it out for a proxy
            that is known to forward to the provider.

    Returns:
        ``Priced``, ``Partial`` with a lower bound, or ``Unpriced`` with a reason.
    """
    if usage is None:
        return Unpriced("no_usage")
    key = (provider, request_model, response_model, service_tier, server_address)
    try:
        when = time() if at is None else at
        start, end, compute = _hot.get(key, _EXPIRED)
        if start <= when < end:
            if getcontext().prec >= _ENOUGH_DIGITS:
                return compute(usage)
            with localcontext(EXACT):
                return compute(usage)
        return _uncached(usage, Query(*key), when)
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError):
        # Values of a wrong type come here; they are sorted out where there is time for it.
        return _careful(usage, Query(*key), at)


def answer(query: Query, at: float) -> Answer:
    """The row for a query at a time, and not from the cache."""
    if any(len(name) > _NAME_LIMIT for name in query if name):
        known = query.provider and len(query.provider) <= _NAME_LIMIT
        return Answer(None, "unknown_model" if known else "unknown_provider")
    return _book.answer(query, datetime.fromtimestamp(at, UTC))


def clock_time(at: object) -> float:
    """``at`` as unix seconds a calendar can hold; now when it is not a time."""
    if isinstance(at, int | float) and not isinstance(at, bool) and _EARLIEST <= at < _LATEST:
        return float(at)
    return time()


def _uncached(usage: object, query: Query, when: float) -> Cost:
    """Compile the row of a query, keep it, and use it."""
    when = clock_time(when)
    query = Query(*(name if isinstance(name, str) else None for name in query))
    with _lock:
        quote = _cold.get(query)
    if quote is None or not quote[0] <= when < quote[1]:
        quote = _quote(query, when)
    if not any(len(name) > _NAME_LIMIT for name in query if name):
        _keep(query, quote)
    if not isinstance(usage, Usage):
        return Unpriced("bad_usage")
    with localcontext(EXACT):
        return quote[2](usage)


def _careful(usage: object, query: Query, at: object) -> Cost:
    if not isinstance(usage, Usage):
        return Unpriced("bad_usage")
    sane = Query(*(name if isinstance(name, str) else None for name in query))
    quote = _quote(sane, clock_time(at))
    try:
        with localcontext(EXACT):
            return quote[2](usage)
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError):
        return Unpriced("bad_usage")


def _quote(query: Query, when: float) -> _Quote:
    found = answer(query, when)
    midnight = when - when % _DAY_S
    start, end = midnight, midnight + _DAY_S
    if found.row is None:
        return start, end, refuse(found.reason or "unknown_model")
    return max(start, found.row.start), min(end, found.row.end), compile_row(found.row)


def _keep(query: Query, quote: _Quote) -> None:
    """Add to the young generation; when it is full it becomes the old one, and the old one is dropped."""
    global _hot, _cold
    with _lock:
        if len(_hot) >= _GENERATION:
            _hot, _cold = {}, _hot
        _hot[query] = quote
