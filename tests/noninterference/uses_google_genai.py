"""Every way of using the Google Gen AI client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from noninterference.servers import Server
from noninterference.uses import FAULTS, PLAIN, Client, Options, Use, each, now

__all__ = ["CLIENT"]

ASK: dict[str, Any] = {"model": "gemini-2.5-flash", "contents": "What do tides do?"}
WEATHER: dict[str, Any] = {"model": "gemini-2.5-flash", "contents": "What is the weather in Paris?"}


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    from google import genai

    http: Any = {
        "base_url": server.origin,
        "headers": dict(options.headers),
        "timeout": round(options.timeout_s * 1000),
        "client_args": {"verify": PLAIN},
        "async_client_args": {"verify": PLAIN},
    }
    client = genai.Client(api_key="key", http_options=http)
    try:
        yield client.aio if options.kind == "async" else client
    finally:
        for one in (client.aio, client):
            await now((getattr(one, "aclose", None) or getattr(one, "close", _nothing))())


def _nothing() -> None:
    """Old versions have nothing to close."""


def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


def broken_weather(city: str) -> str:
    """The weather in a city."""
    raise ZeroDivisionError(city)


def _calling(function: Any) -> Any:
    return lambda client: client.models.generate_content(**WEATHER, config={"tools": [function]})


GENERATE, STREAM = "models.generate_content", "models.generate_content_stream"
FUNCTIONS = "functions and MCP tools that the client calls by itself"
SEND, SEND_STREAM = "chats.create().send_message", "chats.create().send_message_stream"

USES = (
    Use(
        GENERATE,
        lambda client: client.models.generate_content(**ASK, config={"temperature": 0.2}),
        seen=lambda answer: answer.text,
    ),
    Use(STREAM, lambda client: client.models.generate_content_stream(**ASK), items=each, first=1),
    Use(
        SEND,
        lambda client: client.chats.create(model=ASK["model"]).send_message("What do tides do?"),
        seen=lambda answer: answer.text,
    ),
    Use(
        SEND_STREAM,
        lambda client: client.chats.create(model=ASK["model"]).send_message_stream("What do tides do?"),
        items=each,
        first=1,
    ),
    Use(
        "models.embed_content",
        lambda client: client.models.embed_content(model="gemini-embedding-001", contents=["tides", "moon"]),
    ),
    Use(FUNCTIONS, _calling(weather), seen=lambda answer: answer.automatic_function_calling_history),
    Use(FUNCTIONS, _calling(broken_weather), "failing", seen=lambda answer: answer.automatic_function_calling_history),
)

CLIENT = Client(
    "google_genai",
    "GoogleGenAIInstrumentor",
    ("google.genai",),
    _open,
    USES,
    provider="gcp.gemini",
    faults=FAULTS,
)
