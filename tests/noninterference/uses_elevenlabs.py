"""Every way of using the ElevenLabs client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from noninterference.servers import Server
from noninterference.uses import FAULTS, PLAIN, Client, Options, Use, each

__all__ = ["CLIENT"]

SPEECH: dict[str, Any] = {
    "voice_id": "Rachel",
    "text": "The tide comes in.",
    "model_id": "eleven_multilingual_v2",
    "output_format": "pcm_16000",
}
ONCE: dict[str, Any] = {"max_retries": 0}
"""The client waits a second between attempts."""

HEARD: dict[str, Any] = {**ONCE, "additional_headers": {"content-type": "multipart/form-data; boundary=part"}}
"""Otherwise drawn by chance, and the simulator makes the request's id of it."""

PIECES = ("The tide comes in, ", "the tide goes out. ", "So it goes. ")
SPOKEN: dict[str, Any] = {"voice_id": "Rachel", "model_id": "eleven_flash_v2_5", "output_format": "pcm_16000"}


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    import httpx
    from elevenlabs_clients import client_of

    usual: Any = {"verify": PLAIN, "headers": dict(options.headers), "timeout": options.timeout_s}
    async with httpx.AsyncClient(**usual) as http_async:
        with httpx.Client(**usual) as http:
            client = client_of(server.origin, http_async if options.kind == "async" else http)
            client._client_wrapper._timeout = options.timeout_s  # with each request, in place of the one above
            yield client


def _hear(client: Any) -> Any:
    return client.speech_to_text.convert(
        model_id="scribe_v1", file=("speech.pcm", bytes(32_000)), request_options=HEARD
    )


CONVERT, STREAM, SOCKET = "text_to_speech.convert", "text_to_speech.stream", "text_to_speech.convert_realtime"

USES = (
    Use("speech_to_text.convert", _hear),
    Use(CONVERT, lambda client: client.text_to_speech.convert(**SPEECH), items=each, first=1),
    Use(
        CONVERT,
        lambda client: client.text_to_speech.convert(**{**SPEECH, "output_format": "spoken"}),
        "refused",
        each,
        fails=True,
    ),
    Use(
        CONVERT,
        lambda client: client.text_to_speech.with_raw_response.convert(**SPEECH),
        "raw",
        lambda answer: answer.data,
        is_block=True,
        first=1,
    ),
    Use(STREAM, lambda client: client.text_to_speech.stream(**SPEECH), items=each, first=1),
    Use(
        "text_to_speech.convert_with_timestamps",
        lambda client: client.text_to_speech.convert_with_timestamps(**SPEECH, request_options=ONCE),
    ),
    Use(
        "text_to_speech.stream_with_timestamps",
        lambda client: client.text_to_speech.stream_with_timestamps(**SPEECH),
        items=each,
        first=1,
    ),
    Use(
        SOCKET,
        lambda client: client.text_to_speech.convert_realtime(text=iter(PIECES), **SPOKEN),
        items=each,
        kinds=("sync",),
        first=1,
        gives_up=False,
    ),
)

CLIENT = Client(
    "elevenlabs",
    "ElevenLabsInstrumentor",
    ("elevenlabs",),
    _open,
    USES,
    provider="elevenlabs",
    faults=FAULTS,
)
