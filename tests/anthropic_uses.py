"""Every way of using the Anthropic client, by name: each gives what the caller sees, as values that can be compared.

A use takes a client, sync or async, and the words of ``Script`` (``tests/integrations/conftest.py``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = ["PATHS", "USES"]

Use = Callable[[Any, Any], Awaitable[list[Any]]]

PATHS = ("/v1/messages", "/v1/messages/count_tokens")
"""Endpoints of the simulator that the uses reach."""

ASK = {"model": "claude-haiku-4-5", "max_tokens": 200, "messages": [{"role": "user", "content": "What do tides do?"}]}
WEATHER = {"name": "weather", "description": "The weather in a city", "input_schema": {"type": "object"}}


def _failing(text: str) -> dict[str, Any]:
    return {"extra_headers": {"x-stagelight-fault": text}}


def _seen(value: Any, *texts: object) -> tuple[Any, ...]:
    return (type(value), *map(str, texts))


def _error(error: Any) -> tuple[Any, ...]:
    cause = (type(error.__cause__), type(error.__context__), error.__suppress_context__)
    return _seen(error, error, error.args, getattr(error, "body", None), *cause)


async def create(client: Any, script: Any) -> list[Any]:
    message = await script.now(client.messages.create(**ASK, tools=[WEATHER]))
    return [_seen(message, repr(message), message.model_dump_json())]


async def beta(client: Any, script: Any) -> list[Any]:
    message = await script.now(client.beta.messages.create(**ASK))
    return [_seen(message, repr(message))]


async def stream(client: Any, script: Any) -> list[Any]:
    events = await script.now(client.messages.create(**ASK, stream=True))
    kind, names = type(events), sorted(set(vars(events)) - {"_iterator"})
    return [kind, *names, *[_seen(event, repr(event)) async for event in script.each(events)]]


async def helper(client: Any, script: Any) -> list[Any]:
    manager = client.messages.stream(**ASK)
    async with script.inside(manager) as opened:
        seen = [type(manager), type(opened), sorted(vars(opened))]
        seen += [_seen(event, repr(event)) async for event in script.each(opened)]
        final = await script.now(opened.get_final_message())
        text = await script.now(opened.get_final_text())
    return [*seen, _seen(final, repr(final), text)]


async def text_stream(client: Any, script: Any) -> list[Any]:
    async with script.inside(client.messages.stream(**ASK)) as opened:
        return [text async for text in script.each(opened.text_stream)]


async def left_early(client: Any, script: Any) -> list[Any]:
    async with script.inside(await script.now(client.messages.create(**ASK, stream=True))) as opened:
        first = await script.next(opened)
    return [_seen(first, repr(first)), opened.response.is_closed]


async def raw(client: Any, script: Any) -> list[Any]:
    answer = await script.now(client.messages.with_raw_response.create(**ASK))
    parsed = await script.now(answer.parse())
    return [_seen(answer, repr(answer), answer.http_response.is_closed), _seen(parsed, repr(parsed))]


async def streaming(client: Any, script: Any) -> list[Any]:
    async with script.inside(client.messages.with_streaming_response.create(**ASK)) as answer:
        seen = [_seen(answer, repr(answer), answer.http_response.is_closed)]
        parsed = await script.now(answer.parse())
    return [*seen, _seen(parsed, repr(parsed)), answer.http_response.is_closed]


async def lines(client: Any, script: Any) -> list[Any]:
    async with script.inside(client.messages.with_streaming_response.create(**ASK, stream=True)) as answer:
        return [line async for line in script.each(answer.iter_lines())]


async def count(client: Any, script: Any) -> list[Any]:
    counted = await script.now(client.messages.count_tokens(model=ASK["model"], messages=ASK["messages"]))
    return [_seen(counted, repr(counted))]


def _refused(fault: str) -> Use:
    async def use(client: Any, script: Any) -> list[Any]:
        try:
            await script.now(client.messages.create(**ASK, **_failing(fault)))
        except Exception as error:  # noqa: BLE001 - whatever the caller sees
            return [_error(error)]
        return []

    return use


def _broken(fault: str) -> Use:
    async def use(client: Any, script: Any) -> list[Any]:
        seen: list[Any] = []
        try:
            async for event in script.each(
                await script.now(client.messages.create(**ASK, stream=True, **_failing(fault)))
            ):
                seen.append(repr(event))  # noqa: PERF401 - what came before the error
        except Exception as error:  # noqa: BLE001 - whatever the caller sees
            seen.append(_error(error))
        return seen

    return use


USES: Mapping[str, Use] = {
    "create": create,
    "beta": beta,
    "stream": stream,
    "helper": helper,
    "text_stream": text_stream,
    "left_early": left_early,
    "raw": raw,
    "streaming": streaming,
    "lines": lines,
    "count": count,
    "rate_limited": _refused("rate_limit;retry_after=0"),
    "overloaded": _refused("server_error;status=529"),
    "invalid": _refused("model_not_found"),
    "broken": _broken("stream_cut;after=5"),
    "failing": _broken("stream_error;after=5"),
    "malformed": _broken("malformed_chunk;after=5"),
}
"""The uses by name; each is deterministic against a simulator that has forgotten earlier requests."""
