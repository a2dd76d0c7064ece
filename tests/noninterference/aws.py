"""AWS clients of the suite, sync by botocore and, where it is installed, async by aiobotocore."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from functools import cache
from importlib.util import find_spec
from typing import Any

from noninterference.servers import Server
from noninterference.uses import Kind, Opening, Options

__all__ = ["kinds", "opening"]


def kinds() -> tuple[Kind, ...]:
    """Kinds of client that are installed; aiobotocore has an environment of its own."""
    return ("sync", "async") if find_spec("aiobotocore") else ("sync",)


@cache
def _session(kind: Kind) -> Any:
    """One for all clients of a kind: each session makes classes of errors of its own, and so nothing would compare."""
    if kind == "sync":
        from botocore.session import get_session
    else:
        from aiobotocore.session import get_session
    return get_session()


def opening(service: str) -> Opening:
    """Opens clients of a service."""

    @asynccontextmanager
    async def opened(server: Server, options: Options) -> AsyncIterator[Any]:
        from botocore.config import Config

        usual: dict[str, Any] = {
            "endpoint_url": server.origin,
            "region_name": "us-east-1",
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
            "config": Config(retries={"total_max_attempts": 1}, read_timeout=options.timeout_s),
        }
        if options.kind == "sync":
            with closing(_session("sync").create_client(service, **usual)) as client:
                _add(client, options.headers)
                yield client
        else:
            async with _session("async").create_client(service, **usual) as client:
                _add(client, options.headers)
                yield client

    return opened


def _add(client: Any, headers: Mapping[str, str]) -> None:
    def add(request: Any, **_: Any) -> None:
        for name, value in headers.items():
            request.headers[name] = value

    client.meta.events.register_first("request-created", add)
