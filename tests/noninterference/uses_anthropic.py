"""Every way of using the Anthropic client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from noninterference.servers import Server
from noninterference.uses import FAULTS, Client, Options, Use, each, now

__all__ = ["CLIENT"]

ASK: dict[str, Any] = {
    "model": "claude-haiku-4-5", "max_tokens": 200, "messages": [{"role": "user", "content": "What do tides do?"}],
}  # fmt: skip


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    import anthropic

    is_async = options.kind == "async"
    # Reading the certificates takes longer than a test, and nothing here is encrypted.
    http: Any = (anthropic.DefaultAsyncHttpxClient if is_async else anthropic.DefaultHttpxClient)(verify=False)
    client = (anthropic.AsyncAnthropic if is_async else anthropic.Anthropic)(
        base_url=server.origin,
        api_key="key",
        max_retries=options.retries,
        http_client=http,
        default_headers=dict(options.headers),
        timeout=options.timeout_s,
    )
    try:
        yield client
    finally:
        await now(client.close())


def _raw(answer: Any) -> Any:
    http = answer.http_response
    return http.status_code, http.is_closed, http.is_stream_consumed, http.num_bytes_downloaded, http.content


def _weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: name of the city
    """
    return f"It is sunny in {city}."


async def _weather_async(city: str) -> str:
    """The weather in a city.

    Args:
        city: name of the city
    """
    return _weather(city)


@cache
def _tool(is_async: bool) -> Any:
    import anthropic

    return anthropic.beta_async_tool(_weather_async) if is_async else anthropic.beta_tool(_weather)


def _tools(client: Any) -> Any:
    import anthropic

    tool = _tool(isinstance(client, anthropic.AsyncAnthropic))
    return client.beta.messages.tool_runner(
        model=ASK["model"],
        max_tokens=200,
        tools=[tool],
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
    )


CREATE, STREAM = "messages.create", "messages.stream"

USES = (
    Use(CREATE, lambda client: client.messages.create(**ASK), seen=lambda one: one.to_json()),
    Use(
        CREATE,
        lambda client: client.messages.create(**ASK, stream=True),
        "streamed",
        each,
        seen=lambda stream: stream.response.is_closed,
        first=1,
    ),
    Use(CREATE, lambda client: client.messages.with_raw_response.create(**ASK), "raw", seen=_raw),
    Use(
        CREATE,
        lambda client: client.messages.with_streaming_response.create(**ASK, stream=True),
        "lines",
        lambda answer: answer.iter_lines(),
        is_block=True,
        first=1,
    ),
    Use(CREATE, lambda client: client.messages.create(**{**ASK, "messages": []}), "refused", fails=True),
    Use(STREAM, lambda client: client.messages.stream(**ASK), items=each, is_block=True, first=1),
    Use(
        STREAM,
        lambda client: client.messages.stream(**ASK),
        "of texts",
        lambda opened: opened.text_stream,
        is_block=True,
        first=4,
    ),
    Use(
        "messages.parse",
        lambda client: client.messages.parse(**ASK),
        needs="anthropic.resources.messages:Messages.parse",
    ),
    Use("beta.messages.create", lambda client: client.beta.messages.create(**ASK)),
    Use("beta.messages.stream", lambda client: client.beta.messages.stream(**ASK), items=each, is_block=True, first=1),
    Use(
        "beta.messages.parse",
        lambda client: client.beta.messages.parse(**ASK),
        needs="anthropic.resources.beta.messages:Messages.parse",
    ),
    Use("beta.messages.tool_runner", _tools, items=each, needs="anthropic:beta_tool"),
    Use("tools that the tool runner executes", _tools, items=each, needs="anthropic:beta_tool"),
)

CLIENT = Client("anthropic", "AnthropicInstrumentor", ("anthropic",), _open, USES, provider="anthropic", faults=FAULTS)
