"""Clients of AWS services: botocore makes them from service descriptions, and all their calls pass one function.

A call is told from others by service and operation name, which costs calls of other services two comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from stagelight._lifecycle import Attachment
from stagelight.facts import Request, Response, Stage
from stagelight.integrations._botocore_streams import is_body, is_events, watch_body, watch_events
from stagelight.integrations._engine import Begin, Observation, Observed, around, around_async
from stagelight.integrations._instrumentor import Target
from stagelight.integrations._reading import count, part, text
from stagelight.integrations._watching import Chunks, Watch

__all__ = ["Asked", "Given", "digits", "header", "request_id", "targets"]

Given = Mapping[str, Any]
"""Parameters of a call, or what it returned."""

_MOST_DIGITS = 16


class Asked(NamedTuple):
    """One call: what was asked, and how its answer is read."""

    stage: Stage
    request: Request
    response: Callable[[Given], Response | None]
    """What the call returned -> what came back, apart from what has yet to be read."""
    has_content: Callable[[Given], bool] = lambda _: False
    """Whether an answer in one piece has text or audio."""
    member: str | None = None
    """Member of the result that the caller reads: a body or an event stream."""
    chunks: Callable[[Observed], Chunks] | None = None
    """Makes what takes its bytes or events; they must not hold the result, which holds what is watched."""


class _AwsCall:
    """One call of a client, from before it is sent to the end of what the caller reads."""

    __slots__ = ("_asked", "_observed")

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._observed = Observed(asked.stage, asked.request)

    def active(self) -> Attachment:
        return Attachment(self._observed.call.context)

    def returned(self, result: Any) -> None:
        asked, observed = self._asked, self._observed
        observed.absorb(asked.response(result))
        payload = result.get(asked.member) if asked.member is not None else None
        if asked.chunks is not None and (is_body(payload) or is_events(payload)):
            watch = Watch(observed, asked.chunks(observed))
            if is_events(payload):
                watch_events(payload, watch)
            else:
                watch_body(payload, watch, digits(header(result, "content-length")))
            return
        if asked.has_content(result):
            observed.call.content()
        observed.end()

    def failed(self, error: BaseException) -> None:
        self._observed.fail(error)


def header(result: Given, name: str) -> str | None:
    """A header of the HTTP response, by its name in lower case."""
    return text(part(result, "ResponseMetadata", "HTTPHeaders", name))


def digits(told: str | None) -> int | None:
    """The number a header holds."""
    return count(int(told)) if told is not None and told.isdecimal() and len(told) <= _MOST_DIGITS else None


def request_id(result: Given) -> str | None:
    """The id under which AWS knows the call."""
    return text(part(result, "ResponseMetadata", "RequestId"))


def _begin(service: str, operations: Mapping[str, Callable[[Given], Asked | None]]) -> Begin:
    def beginning(client: Any, args: tuple[Any, ...], _: dict[str, Any]) -> Observation | None:
        if len(args) < 2 or args[0] not in operations or client.meta.service_model.service_name != service:
            return None
        asked = operations[args[0]](args[1])
        if asked is None:
            return None
        server = urlsplit(client.meta.endpoint_url)
        port = None if server.port == 443 else server.port
        return _AwsCall(
            asked._replace(request=asked.request._replace(server_address=server.hostname, server_port=port))
        )

    return beginning


def targets(service: str, operations: Mapping[str, Callable[[Given], Asked | None]]) -> tuple[Target, ...]:
    """What is wrapped for a service: clients made before and after are of classes below the one wrapped here.

    Args:
        service: name of the service, as in ``boto3.client(name)``.
        operations: by operation name (``Converse``), from the parameters to what is asked; ``None`` is not recorded.
    """
    begin = _begin(service, operations)
    return (
        Target("botocore.client", "BaseClient._make_api_call", around(begin)),
        Target("aiobotocore.client", "AioBaseClient._make_api_call", around(begin), around_async(begin)),
    )
