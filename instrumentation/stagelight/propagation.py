"""What is sent along with outgoing calls, and to whom: trace context, baggage and the request's id, by host.

The official instrumentations of HTTP clients call the global propagator; ours stands around it and looks at the host of
the span they made. Nothing is sent to third-party AI providers unless a setting says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from fnmatch import fnmatchcase
from functools import wraps
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import SpanKind

from stagelight import _runtime
from stagelight._calls import current_call
from stagelight._guard import guard, quietly
from stagelight._inbound import REQUEST_KEY, Inbound, accepted_id, current_inbound
from stagelight._operations import OPERATIONS
from stagelight._tasks import OWNER, with_owner
from stagelight.conventions import attributes as a
from stagelight.facts import Identity
from stagelight.integrations._hosts import COMPATIBLE, provider_of

__all__ = ["REQUEST_ID_HEADER", "HostAwarePropagator", "install", "is_allowed"]

REQUEST_ID_HEADER: Final = "x-request-id"

_CELERY: Final = "celery.app.task"
"""Module of the class whose instances the official Celery instrumentation extracts from."""

# What the official instrumentations call the host, in the stable and in the old generation of the HTTP conventions.
_HOSTS: Final = (a.SERVER_ADDRESS, "net.peer.name", "http.host")
_URLS: Final = ("url.full", "http.url")
_PORTS: Final = (a.SERVER_PORT, "net.peer.port")

_last_sent: ContextVar[Mapping[str, str]] = ContextVar("stagelight.last_sent", default=MappingProxyType({}))
"""What the last request of this task or thread was given."""


class HostAwarePropagator(TextMapPropagator):
    """Stands around the application's propagator: injects for allowed hosts only, and carries the request's id."""

    def __init__(self, inner: TextMapPropagator) -> None:
        self.inner: TextMapPropagator = inner.inner if isinstance(inner, HostAwarePropagator) else inner

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        """As the inner propagator; the request's id, where it is acceptable, is known in the context."""
        extracted = self.inner.extract(carrier, context, getter)
        return quietly("extract", lambda: _with_request(extracted, carrier, getter), extracted)

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """As the inner propagator, for a host that is allowed; otherwise nothing."""
        if not quietly("inject", lambda: _may_go(context, carrier), False):
            with guard("inject"):
                self._take_back(carrier)
            return
        before = self._given(carrier)
        self.inner.inject(carrier, context, setter)
        with guard("inject"):
            inbound = current_inbound(context)
            if inbound is not None and inbound.request_id is not None and not _has_id(carrier):
                setter.set(carrier, REQUEST_ID_HEADER, inbound.request_id)
            self._remember(before, self._given(carrier))

    def _given(self, carrier: object) -> dict[str, str]:
        if not isinstance(carrier, MutableMapping):
            return {}
        return {name: str(carrier[name]) for name in self.fields if name in carrier}

    def _remember(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        last = _last_sent.get()
        ours = {name: value for name, value in after.items() if before.get(name) != value or last.get(name) == value}
        _last_sent.set(ours)

    def _take_back(self, carrier: object) -> None:
        """A redirect carries the headers of the request before it, which may have gone to another host."""
        last = _last_sent.get()
        if last and isinstance(carrier, MutableMapping) and last.items() <= self._given(carrier).items():
            for name in last:
                del carrier[name]

    @property
    def fields(self) -> set[str]:
        """The headers it may set."""
        return {*self.inner.fields, REQUEST_ID_HEADER}


def install() -> None:
    """Stand around the global propagator, and around one that the application sets later."""
    if not isinstance(propagate.get_global_textmap(), HostAwarePropagator):
        propagate.set_global_textmap(HostAwarePropagator(propagate.get_global_textmap()))
    if getattr(propagate.set_global_textmap, "__wrapped__", None) is None:
        propagate.set_global_textmap = _around(propagate.set_global_textmap)  # type: ignore[assignment]  # the same


def _around(set_global: Callable[[TextMapPropagator], None]) -> Callable[[TextMapPropagator], None]:
    @wraps(set_global)
    def set_around(http_text_format: TextMapPropagator) -> None:
        ours = isinstance(http_text_format, HostAwarePropagator)
        set_global(http_text_format if ours else HostAwarePropagator(http_text_format))

    return set_around


def is_allowed(host: str, patterns: Sequence[str] | None, told: Mapping[str, str], *, port: int | None = None) -> bool:
    """Whether trace context, baggage and request id may go to a host.

    Args:
        host: the host name, without a port.
        patterns: names and ``*`` patterns of the allowed hosts (``STAGELIGHT_PROPAGATE_TO``); ``None`` allows every
            host that is not a known AI provider's.
        told: hosts whose provider the user named (``STAGELIGHT_PROVIDER_HOSTS``); they are providers too.
        port: its port, ``None`` where it is not known or that of HTTPS.
    """
    name = host.lower().rstrip(".")
    if patterns is None:
        return f"{name}:{port or 443}" not in told and provider_of((name, None), told) == COMPATIBLE
    return any(fnmatchcase(name, _plain(pattern)) for pattern in patterns)


def _plain(pattern: str) -> str:
    """An IPv6 address may stand in brackets, as in a URL; ``fnmatch`` would read them as a set of characters."""
    return pattern[1:-1] if pattern.startswith("[") and pattern.endswith("]") else pattern


def _may_go(context: Context | None, carrier: object) -> bool:
    settings = _runtime.current().settings
    span = trace.get_current_span(context)
    if getattr(span, "kind", None) in {SpanKind.PRODUCER, SpanKind.SERVER}:
        return True  # a message of our own to our own workers, or an answer
    # An unsampled span knows no host; requests of httpx have it among their headers.
    server = _server_of(getattr(span, "attributes", None) or {}) or _addressed(carrier)
    if server is not None:
        return is_allowed(server[0], settings.propagate_to, settings.provider_hosts, port=server[1])
    # Inside a call of a provider's client it is taken to be the provider's.
    call = current_call()
    return call is None or OPERATIONS[call.stage].kind is not SpanKind.CLIENT


def _server_of(attributes: Mapping[str, Any]) -> tuple[str, int | None] | None:
    for name in _URLS:
        if isinstance(found := attributes.get(name), str) and found:
            parts = urlsplit(found)
            if parts.hostname:
                return parts.hostname, parts.port or (80 if parts.scheme == "http" else None)
    for name in _HOSTS:
        if isinstance(found := attributes.get(name), str) and found:
            host, port = _split(found)
            other = next((one for key in _PORTS if isinstance(one := attributes.get(key), int)), None)
            return host, port or other
    return None


def _addressed(carrier: object) -> tuple[str, int | None] | None:
    found = carrier.get("host") if isinstance(carrier, Mapping) else None
    return _split(found) if isinstance(found, str) and found else None


def _split(server: str) -> tuple[str, int | None]:
    """Host and port; of an IPv6 address without brackets there is no port."""
    if server.count(":") > 1 and not server.startswith("["):
        return server, None
    parts = urlsplit(f"//{server}")
    return parts.hostname or "", parts.port


def _has_id(carrier: Any) -> bool:
    return isinstance(carrier, MutableMapping) and any(str(key).lower() == REQUEST_ID_HEADER for key in carrier)


def _with_request(context: Context, carrier: CarrierT, getter: Getter[CarrierT]) -> Context:
    if current_inbound(context) is not None:
        return context
    if type(carrier).__module__ == _CELERY and (owner := getter.get(carrier, OWNER)):
        return with_owner(context, owner[0])  # a message of our own broker, unlike a stranger's HTTP headers
    found = getter.get(carrier, REQUEST_ID_HEADER)
    request_id = accepted_id(found[0]) if found else None
    if request_id is None:
        return context
    return otel_context.set_value(REQUEST_KEY, Inbound(request_id, Identity()), context)
