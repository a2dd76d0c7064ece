"""Every way of using the Google Gen AI client, by name: each gives what the caller sees, as values to compare.

A use takes a client, sync or ``client.aio``, and the words of ``Script`` (``tests/integrations/conftest.py``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = ["CALLS", "USES"]

Use = Callable[[Any, Any], Awaitable[list[Any]]]

ASK = {"model": "gemini-2.5-flash", "contents": "What do tides do?"}


def _failing(text: str) -> dict[str, Any]:
    return {"config": {"http_options": {"headers": {"x-stagelight-fault": text}}}}


def _seen(value: Any, *texts: object) -> tuple[Any, ...]:
    return (type(value), *map(str, texts))


def _error(error: Any) -> tuple[Any, ...]:
    cause = (type(error.__cause__), type(error.__context__), error.__suppress_context__)
    return _seen(error, error, error.args, getattr(error, "details", None), *cause)


async def generate(client: Any, script: Any) -> list[Any]:
    answer = await script.now(client.models.generate_content(**ASK, config={"temperature": 0.2}))
    return [_seen(answer, repr(answer), answer.text)]


async def stream(client: Any, script: Any) -> list[Any]:
    chunks = await script.now(client.models.generate_content_stream(**ASK))
    return [type(chunks), *[_seen(chunk, repr(chunk)) async for chunk in script.each(chunks)]]


async def left_early(client: Any, script: Any) -> list[Any]:
    chunks = await script.now(client.models.generate_content_stream(**ASK))
    first = await script.next(chunks)
    await script.now(chunks.aclose() if hasattr(chunks, "aclose") else chunks.close())
    return [_seen(first, repr(first))]


async def embed(client: Any, script: Any) -> list[Any]:
    answer = await script.now(client.models.embed_content(model="gemini-embedding-001", contents=["tides", "moon"]))
    return [_seen(answer, repr(answer))]


async def chat(client: Any, script: Any) -> list[Any]:
    talk = client.chats.create(model="gemini-2.5-flash")
    answer = await script.now(talk.send_message("What do tides do?"))
    chunks = await script.now(talk.send_message_stream("And the moon?"))
    return [
        _seen(answer, repr(answer)),
        *[repr(chunk) async for chunk in script.each(chunks)],
        repr(talk.get_history()),
    ]


def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city} today."


def broken_weather(city: str) -> str:
    """The weather in a city."""
    raise ZeroDivisionError(city)


for _function in (weather, broken_weather):  # older clients do not read annotations as text
    _function.__annotations__ = {"city": str, "return": str}


def _calling(function: Callable[[str], str]) -> Use:
    async def use(client: Any, script: Any) -> list[Any]:
        asked = {"model": "gemini-2.5-flash", "contents": "What is the weather in Paris?"}
        answer = await script.now(client.models.generate_content(**asked, config={"tools": [function]}))
        return [_seen(answer, repr(answer), answer.automatic_function_calling_history)]

    return use


async def count(client: Any, script: Any) -> list[Any]:
    counted = await script.now(client.models.count_tokens(**ASK))
    return [_seen(counted, repr(counted))]


def _refused(fault: str) -> Use:
    async def use(client: Any, script: Any) -> list[Any]:
        try:
            await script.now(client.models.generate_content(**ASK, **_failing(fault)))
        except Exception as error:  # noqa: BLE001 - whatever the caller sees
            return [_error(error)]
        return []

    return use


def _broken(fault: str) -> Use:
    async def use(client: Any, script: Any) -> list[Any]:
        seen: list[Any] = []
        try:
            chunks = await script.now(client.models.generate_content_stream(**ASK, **_failing(fault)))
            async for chunk in script.each(chunks):
                seen.append(repr(chunk))  # noqa: PERF401 - what came before the error
        except Exception as error:  # noqa: BLE001 - whatever the caller sees
            seen.append(_error(error))
        return seen

    return use


USES: Mapping[str, Use] = {
    "generate": generate,
    "stream": stream,
    "left_early": left_early,
    "embed": embed,
    "chat": chat,
    "functions": _calling(weather),
    "failing_functions": _calling(broken_weather),
    "count": count,
    "rate_limited": _refused("rate_limit;retry_after=0"),
    "overloaded": _refused("server_error;status=503"),
    "refused_stream": _broken("rate_limit;retry_after=0"),
    "broken": _broken("stream_cut;after=3"),
    "failing": _broken("stream_error;after=3"),
    "malformed": _broken("malformed_chunk;after=3"),
}
"""The uses by name; each is deterministic against a simulator that has forgotten earlier requests."""

CALLS: Mapping[str, int] = {"count": 0, "chat": 2, "functions": 3, "failing_functions": 3}
"""Calls that a use leaves where it is not one: function executions are calls too."""
