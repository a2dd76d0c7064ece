"""Every way of using the OpenAI client."""

from __future__ import annotations

import io
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from noninterference.servers import Server
from noninterference.uses import FAULTS, Client, Options, Use, each, now

__all__ = ["CLIENT"]

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What do tides do?"}]}
ASK: dict[str, Any] = {"model": "gpt-4o-mini", "input": "What do tides do?"}
SPEECH: dict[str, Any] = {
    "model": "tts-1", "voice": "coral", "input": "The tide comes in.", "response_format": "pcm",
}  # fmt: skip
EMBED: dict[str, Any] = {"model": "text-embedding-3-small", "input": "tides"}


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    import openai

    is_async = options.kind == "async"
    # Reading the certificates takes longer than a test, and nothing here is encrypted.
    http: Any = (openai.DefaultAsyncHttpxClient if is_async else openai.DefaultHttpxClient)(verify=False)
    client = (openai.AsyncOpenAI if is_async else openai.OpenAI)(
        base_url=f"{server.origin}/v1",
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


def _streamed(answer: Any) -> Any:
    return answer.http_response.status_code, answer.http_response.is_closed, answer.http_response.is_stream_consumed


def _helpers(client: Any) -> Any:
    """Chat completions with the helpers ``parse`` and ``stream``, which were beta at first."""
    completions = client.chat.completions
    return completions if hasattr(completions, "parse") else client.beta.chat.completions


def _sound() -> tuple[str, bytes]:
    into = io.BytesIO()
    with wave.open(into, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(16_000)
        audio.writeframes(bytes(2_000))
    return "speech.wav", into.getvalue()


CHAT_CREATE, CHAT_STREAM, RESPONSES_STREAM = "chat.completions.create", "chat.completions.stream", "responses.stream"
SPEAK, HEAR, TRANSLATE = "audio.speech.create", "audio.transcriptions.create", "audio.translations.create"
RESPONSES = "openai.resources.responses:Responses"

USES = (
    Use(CHAT_CREATE, lambda client: client.chat.completions.create(**CHAT), seen=lambda one: one.to_json()),
    Use(
        CHAT_CREATE,
        lambda client: client.chat.completions.create(**CHAT, stream=True),
        "streamed",
        each,
        seen=lambda stream: stream.response.is_closed,
        first=1,
    ),
    Use(
        CHAT_CREATE,
        lambda client: client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}),
        "streamed with usage",
        each,
        first=1,
    ),
    Use(CHAT_CREATE, lambda client: client.chat.completions.with_raw_response.create(**CHAT), "raw", seen=_raw),
    Use(
        CHAT_CREATE,
        lambda client: client.chat.completions.with_streaming_response.create(**CHAT),
        "streaming response",
        lambda answer: answer.iter_bytes(64),
        is_block=True,
        seen=_streamed,
    ),
    Use(
        CHAT_CREATE,
        lambda client: client.chat.completions.with_streaming_response.create(**CHAT, stream=True),
        "lines",
        lambda answer: answer.iter_lines(),
        is_block=True,
        seen=_streamed,
        first=1,
    ),
    Use(
        CHAT_CREATE,
        lambda client: client.chat.completions.create(model="gpt-4o-mini", messages=[]),
        "refused",
        fails=True,
    ),
    Use("chat.completions.parse", lambda client: _helpers(client).parse(**CHAT)),
    Use(CHAT_STREAM, lambda client: _helpers(client).stream(**CHAT), items=each, is_block=True, first=1),
    Use("responses.create", lambda client: client.responses.create(**ASK), needs=RESPONSES),
    Use(
        "responses.create",
        lambda client: client.responses.create(**ASK, stream=True),
        "streamed",
        each,
        first=1,
        needs=RESPONSES,
    ),
    Use("responses.parse", lambda client: client.responses.parse(**ASK), needs=RESPONSES),
    Use(
        RESPONSES_STREAM,
        lambda client: client.responses.stream(**ASK),
        items=each,
        is_block=True,
        first=1,
        needs=RESPONSES,
    ),
    Use("embeddings.create", lambda client: client.embeddings.create(**EMBED)),
    Use(SPEAK, lambda client: client.audio.speech.create(**SPEECH), seen=lambda sound: sound.content),
    Use(
        SPEAK,
        lambda client: client.audio.speech.create(**SPEECH),
        "iterated",
        lambda sound: sound.iter_bytes(512),
        kinds=("sync",),
    ),
    Use(
        SPEAK,
        lambda client: client.audio.speech.with_streaming_response.create(**SPEECH),
        "streamed",
        lambda sound: sound.iter_bytes(512),
        is_block=True,
        seen=_streamed,
        first=1,
    ),
    Use(SPEAK, lambda client: client.audio.speech.with_raw_response.create(**SPEECH), "raw", seen=_raw),
    Use(HEAR, lambda client: client.audio.transcriptions.create(model="whisper-1", file=_sound())),
    Use(
        HEAR,
        lambda client: client.audio.transcriptions.create(model="gpt-4o-transcribe", file=_sound(), stream=True),
        "streamed",
        each,
        first=1,
        needs="openai.types.audio:TranscriptionStreamEvent",
    ),
    Use(TRANSLATE, lambda client: client.audio.translations.create(model="whisper-1", file=_sound())),
)

CLIENT = Client("openai", "OpenAIInstrumentor", ("openai",), _open, USES, provider="openai", faults=FAULTS)
