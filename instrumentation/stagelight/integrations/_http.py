"""HTTP requests, seen where the usual libraries send them: attempts of a call, and AI providers nobody measures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import urlsplit

from opentelemetry import context as otel_context

from stagelight import _runtime
from stagelight._calls import current_call
from stagelight._guard import guard, once_a_minute
from stagelight._upstream import running
from stagelight.integrations._hosts import COMPATIBLE, Server, provider_of
from stagelight.integrations._patching import Patching, Target, Wrapper

__all__ = ["HttpRequests"]

logger = logging.getLogger("stagelight")

Address = Callable[[Any, tuple[Any, ...], dict[str, Any]], Server]
"""Instance, arguments and keywords of a sending function -> host and port."""


def _of_httpx(_client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Server:
    url = (args[0] if args else kwargs["request"]).url
    return url.host, url.port


def _of_urllib3(pool: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Server:
    return pool.host, pool.port


def _of_aiohttp(_session: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Server:
    url = urlsplit(str(args[1] if len(args) > 1 else kwargs["str_or_url"]))
    return url.hostname, url.port


_SENDERS: Sequence[tuple[str, str, str, Address]] = (
    ("httpx", "httpx", "Client.send", _of_httpx),
    ("httpx", "httpx", "AsyncClient.send", _of_httpx),
    ("httpx2", "httpx2", "Client.send", _of_httpx),
    ("httpx2", "httpx2", "AsyncClient.send", _of_httpx),
    ("urllib3", "urllib3.connectionpool", "HTTPConnectionPool.urlopen", _of_urllib3),  # also requests and botocore
    ("aiohttp", "aiohttp.client", "ClientSession._request", _of_aiohttp),
)
"""Library, module, the function that each of its requests passes, and how it knows where the request goes."""


@lru_cache(maxsize=1024)
def _is_known(host: str) -> bool:
    return provider_of((host, None), {}) != COMPATIBLE


def _sent(client: str, server: Server) -> None:
    host, port = server[0] or "", server[1]
    call = current_call()
    if call is not None:
        if host == call.request.server_address:  # not to wherever a token or a file comes from
            call.attempts += 1
        return
    runtime = _runtime.current()
    told = runtime.settings.provider_hosts
    if not _is_known(host) and host not in told and f"{host}:{port or 443}" not in told:
        return
    context = otel_context.get_current()
    if any(running(stage, context) is not None for stage in ("llm", "embedding", "retrieval")):
        return
    runtime.instruments.uninstrumented(host, client)
    if once_a_minute("uninstrumented call"):
        logger.warning("stagelight: %s sent a request to %s outside any stage; its cost is not recorded", client, host)


def _noting(client: str, address: Address) -> Wrapper:
    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with guard("http request"):
            _sent(client, address(instance, args, kwargs))
        return wrapped(*args, **kwargs)

    return wrapper


class HttpRequests(Patching):
    """Counts requests; on while somebody uses it."""

    _users: ClassVar[set[object]] = set()

    def instrumentation_dependencies(self) -> Collection[str]:
        return ()

    def serve(self, user: object) -> None:
        """Count from now on."""
        self._users.add(user)
        if not self.is_instrumented_by_opentelemetry:
            self.instrument()

    def leave(self, user: object) -> None:
        """Do not count for ``user`` any more."""
        self._users.discard(user)
        if not self._users and self.is_instrumented_by_opentelemetry:
            self.uninstrument()

    @property
    def targets(self) -> Sequence[Target]:
        return [Target(module, path, _noting(client, address)) for client, module, path, address in _SENDERS]
