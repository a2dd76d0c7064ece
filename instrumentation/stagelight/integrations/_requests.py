"""Clients generated from an API description (OpenAI's and its kind): all their calls pass one function, ``request``.

That is where calls are observed: whatever helper the caller uses (``parse``, ``stream``, raw and streaming responses),
it is one request, and so one call. ``_process_response`` is the one place that sees the HTTP response of a plain call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

from opentelemetry import context as otel_context

from stagelight import _runtime
from stagelight._guard import guard
from stagelight._lifecycle import Attachment
from stagelight.facts import RateLimit, Request, Response, Stage
from stagelight.integrations._engine import Observation, Observed
from stagelight.integrations._events import EventBytes
from stagelight.integrations._hosts import COMPATIBLE, Server, provider_of, server_of
from stagelight.integrations._reading import count, part
from stagelight.integrations._watching import Body, Chunks, JsonBytes, UnreadBytes, Watch, watch_body

__all__ = ["ClientCall", "Operation", "Provider", "begin", "note_response", "watch_items"]

_CURRENT = otel_context.create_key("stagelight.integrations.request")
_MOST_DIGITS = 16
_RAW_HEADER = "X-Stainless-Raw-Response"

Provider = tuple[str, bool]
"""Value of ``gen_ai.provider.name``, and whether it is known or only the client's usual one."""


class Operation(NamedTuple):
    """One endpoint: pure functions from what was sent and what came back to facts."""

    stage: Stage
    request: Callable[[Mapping[str, Any]], Request]
    """The JSON body that is sent -> what was asked."""
    response: Callable[[Any, Request], Response]
    """The answer (the client's object, parsed JSON, or the bytes of a binary one) -> what came back."""
    has_content: Callable[[Any], bool] = bool
    """Whether an answer in one piece has text or audio."""
    items: Callable[[], Chunks] = UnreadBytes
    """What takes the items of a stream."""
    binary: Callable[[Request, Mapping[str, str]], Chunks] | None = None
    """What takes the bytes of an answer that is no JSON, by request and headers."""
    failure: Callable[[Any], str | None] = lambda _: None
    """The value of ``error.type`` when the provider answered that it failed."""
    sent_to: tuple[str, ...] = ()
    """How else the path may end when it is sent: some clients rewrite it for the cloud they speak to."""


class ClientCall:
    """One request of a client, from before it is sent to the end of what the caller reads."""

    __slots__ = ("__weakref__", "_http", "body", "observed", "operation", "path", "request")

    def __init__(self, operation: Operation, request: Request, path: str, *, is_provider_known: bool) -> None:
        self.operation = operation
        self.request = request
        self.path = path
        self.observed = Observed(operation.stage, request, is_provider_known=is_provider_known)
        self.body: Body | None = None
        self._http: Any = None

    def active(self) -> Attachment:
        # A context is kept by every timer and task begun in it: it must not keep the caller's response.
        return Attachment(otel_context.set_value(_CURRENT, ref(self), self.observed.call.context))

    def is_of(self, path: str) -> bool:
        """Whether a request sent to ``path`` is this call's, and not one made while it waits."""
        return path.endswith((self.path, *self.operation.sent_to))

    def received(self, http: Any) -> None:
        """The HTTP response, before the client makes anything of it."""
        self.observed.absorb(_limits(http.headers))
        if not http.is_success:  # a client with middleware shows it failed attempts too
            return
        self._http = http
        is_read = http.is_closed
        if is_read and (self.operation.binary is not None or not _has_events(http.headers)):
            return
        if self.operation.binary is not None:
            self.observed.absorb(self.operation.response(None, self.request))
        watch = Watch(self.observed, self._bytes_of(http.headers))
        if is_read:  # events that came in one piece, as from a cache or a recording, have yet to reach the caller
            self.body = body = Body(None, watch, self.operation.items)
            _bodies[http] = lambda: body
        else:
            self.body = watch_body(http, watch, self.operation.items)
            _bodies[http] = ref(self.body)

    def _bytes_of(self, headers: Mapping[str, str]) -> Chunks:
        operation, request = self.operation, self.request
        if _has_events(headers):
            is_text = "event-stream" in headers["content-type"] and "content-encoding" not in headers
            return EventBytes(operation.items()) if is_text else UnreadBytes()
        if operation.binary is not None:
            return operation.binary(request, headers)
        return JsonBytes(headers.get("content-encoding"), lambda told: operation.response(told, request))

    def returned(self, result: Any) -> None:
        if self.body is not None:
            return
        answer = self._answer(result)
        self.observed.absorb(self.operation.response(answer, self.request))
        if self.operation.has_content(answer):
            self.observed.call.content()
        failure = self.operation.failure(answer)
        self.observed.end(None if failure is None else "error", failure)

    def _answer(self, result: Any) -> Any:
        if self.operation.binary is not None and self._http is not None:
            chunks = self._bytes_of(self._http.headers)
            chunks.take(self._http.content)
            self.observed.absorb(chunks.response())
            return self._http.content
        return _json(part(result, "http_response")) or result

    def failed(self, error: BaseException) -> None:
        headers = part(error, "response", "headers")
        if headers is not None:
            self.observed.absorb(_limits(headers))
        if self.body is not None:
            self.body.watch.broke(error)
        elif self._http is not None and self.operation.binary is None:
            # The client could not use the answer, which was paid for all the same.
            answer = _json(self._http)
            if answer is not None:
                self.observed.absorb(self.operation.response(answer, self.request))
        self.observed.fail(error)


def _has_events(headers: Mapping[str, str]) -> bool:
    kind = headers.get("content-type", "")
    return "event-stream" in kind or "eventstream" in kind


def _json(http: Any) -> Any:
    if http is None:
        return None
    try:
        return json.loads(http.content)
    except ValueError:
        return None


_bodies: WeakKeyDictionary[Any, Callable[[], Body | None]] = WeakKeyDictionary()
"""The watched body of a response; a client that traces itself puts its own around it."""


def _limits(headers: Mapping[str, str]) -> Response | None:
    requests = _first_left(headers, "x-ratelimit-remaining-requests", "anthropic-ratelimit-requests-remaining")
    tokens = _first_left(headers, "x-ratelimit-remaining-tokens", "anthropic-ratelimit-tokens-remaining")
    if requests is None and tokens is None:
        return None
    return Response(rate_limit=RateLimit(remaining_requests=requests, remaining_tokens=tokens))


def _first_left(headers: Mapping[str, str], *names: str) -> int | None:
    told = next((headers[name] for name in names if name in headers), "")
    return count(int(told)) if told.isdecimal() and len(told) <= _MOST_DIGITS else None


def _path(options: Any) -> str:
    return "/" + str(part(options, "url")).partition("?")[0].strip("/")


def _sent(options: Any) -> dict[str, Any]:
    """The body, with what the caller adds to it by ``extra_body``."""
    given, added = part(options, "json_data"), part(options, "extra_json")
    sent: dict[str, Any] = given if isinstance(given, dict) else {}
    return {**sent, **added} if isinstance(added, dict) and added else sent


def _by_host(_client: Any, server: Server) -> Provider:
    provider = provider_of(server, _runtime.current().settings.provider_hosts)
    return provider, provider != COMPATIBLE


def begin(
    operations: Mapping[str, Operation], provider: Callable[[Any, Server], Provider] = _by_host
) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], Observation | None]:
    """Begin the observation of one ``request`` of a client whose endpoints are ``operations`` by path.

    Args:
        operations: what is recorded, by path.
        provider: client and its server -> the provider; default: told by the host.
    """

    def beginning(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation | None:
        options = args[1] if len(args) > 1 else kwargs.get("options")
        path = _path(options)
        operation = operations.get(path)
        if operation is None or str(part(options, "method")).lower() != "post":
            return None
        headers = part(options, "headers")
        server = server_of(client.base_url)
        name, is_known = provider(client, server)
        request = operation.request(_sent(options))._replace(
            provider=name,
            server_address=server[0],
            server_port=server[1],
        )
        if operation.binary is not None and isinstance(headers, dict) and headers.get(_RAW_HEADER) == "stream":
            request = request._replace(stream=True)
        return ClientCall(operation, request, path, is_provider_known=is_known)

    return beginning


def note_response(wrapped: Callable[..., Any], _client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stands around ``_process_response``: reads the headers, and watches the body where it is not read yet."""
    kept = otel_context.get_value(_CURRENT)
    current = kept() if isinstance(kept, ref) else None
    if isinstance(current, ClientCall) and current.is_of(_path(kwargs.get("options"))):
        with guard("integration headers"):
            current.received(kwargs["response"])
    return wrapped(*args, **kwargs)


def watch_items(wrapped: Callable[..., Any], stream: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stands around a stream class's ``__init__``: watches the items of a stream whose body is watched."""
    wrapped(*args, **kwargs)
    with guard("integration stream"):
        kept = _bodies.get(part(stream, "response"))
        body = None if kept is None else kept()
        if body is None:
            return
        if "_iterator" in vars(stream):
            stream._iterator = body.items_of(stream._iterator)  # noqa: SLF001 - where the client keeps it
        else:
            _watch_later(stream, body)


def _watch_later(stream: Any, body: Body) -> None:
    """Watch a stream that makes its iterator when the first item is asked for, and not before."""
    whose = ref(stream)  # a stream that keeps its iterator, which keeps it, would not be closed when it is dropped

    def make() -> Any:
        owner = whose()
        if owner is None:
            return None
        items = vars(owner).pop("_iterator")  # what it hides is now made, and then hidden again
        inner = owner._iterator  # noqa: SLF001 - where the client keeps it
        owner._iterator = items  # noqa: SLF001
        return inner

    stream._iterator = body.items_of(None, make)  # noqa: SLF001
