"""The host cannot tell whether it is observed: same bytes sent, same objects returned, same functions afterwards."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai._base_client import AsyncAPIClient, SyncAPIClient
from openai._streaming import AsyncStream, Stream
from openai_client import HAS_RESPONSES
from stagelight import _guard
from stagelight.integrations import _requests
from stagelight.integrations.openai import OpenAIInstrumentor
from stagelight.testing import capture

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What do tides do?"}]}
SPEECH = {"model": "tts-1", "voice": "coral", "input": "Tides come and go.", "response_format": "wav"}

PATCHED = [
    (SyncAPIClient, "request"),
    (SyncAPIClient, "_process_response"),
    (AsyncAPIClient, "request"),
    (AsyncAPIClient, "_process_response"),
    (Stream, "__init__"),
    (AsyncStream, "__init__"),
]


async def everything(client: Any, script: Any) -> list[Any]:
    """Use the client in every way; what the caller sees, as values that can be compared."""
    seen: list[Any] = []

    def saw(value: Any, *texts: object) -> None:
        seen.append((type(value), *map(str, texts)))

    chat, speech = client.chat.completions, client.audio.speech
    plain = await script.now(chat.create(**CHAT))
    saw(plain, plain.model_dump_json(), repr(plain))
    if HAS_RESPONSES:
        answer = await script.now(client.responses.create(model="gpt-4o-mini", input="Hi"))
        saw(answer, answer.model_dump_json())
    vectors = await script.now(client.embeddings.create(model="text-embedding-3-small", input="tides"))
    saw(vectors, vectors.data[0].embedding[:3])
    stream = await script.now(chat.create(**CHAT, stream=True))
    saw(stream, [item.model_dump_json() async for item in script.each(stream)], sorted(vars(stream)))
    raw = await script.now(chat.with_raw_response.create(**CHAT))
    saw(raw, repr(raw), raw.text)
    saw(raw.http_response, raw.http_response.is_closed, raw.http_response.num_bytes_downloaded)
    sound = await script.now(speech.create(**SPEECH))
    saw(sound, len(sound.content))
    async with script.inside(speech.with_streaming_response.create(**SPEECH)) as heard:
        saw(heard, repr(heard), heard.http_response.is_closed)
        saw(heard, len(b"".join([data async for data in script.each(heard.iter_bytes(64))])))
        saw(heard, heard.http_response.is_stream_consumed, heard.http_response.is_closed)
    async with script.inside(chat.with_streaming_response.create(**CHAT)) as unread:
        parsed = await script.now(unread.parse())
        saw(parsed, parsed.model_dump_json(), len(pickle.dumps(unread.http_response)) > 0)
    try:
        await script.now(chat.create(model="gpt-4o-mini", messages=[]))
    except openai.BadRequestError as error:
        saw(error, error, error.body, type(error.__cause__), type(error.__context__), error.__suppress_context__)
    return seen


def without_instrumentation(run: Callable[[], Any]) -> Any:
    """The result of ``run`` with the integration switched off."""
    assert not OpenAIInstrumentor().is_instrumented_by_opentelemetry
    return run()


def test_the_caller_and_the_server_see_the_same(world: Any, script: Any) -> None:
    """Types, texts, exceptions, and every byte and header that is sent are those of the client alone."""

    def run() -> tuple[list[Any], list[Any]]:
        world.simulator.forget()
        seen = world.play(lambda client: everything(client, script))
        return seen, world.simulator.requests

    alone = without_instrumentation(run)
    instrumentor = OpenAIInstrumentor()
    instrumentor.switch_on()
    try:
        with capture() as captured:
            observed = run()
    finally:
        instrumentor.uninstrument()

    assert observed[0] == alone[0]
    assert observed[1] == alone[1]
    assert len(captured.calls) == len(alone[1]) == 8 + HAS_RESPONSES


def test_uninstrument_restores_the_same_functions() -> None:
    """Switching on and off, twice, leaves the very functions that were there."""
    before = [vars(owner)[name] for owner, name in PATCHED]
    instrumentor = OpenAIInstrumentor()

    for _ in range(2):
        assert instrumentor.switch_on()
        assert instrumentor.switch_on()
        assert all(vars(owner)[name] is not old for (owner, name), old in zip(PATCHED, before, strict=True))
        instrumentor.uninstrument()
        assert [vars(owner)[name] for owner, name in PATCHED] == before


@pytest.mark.usefixtures("recorded")
def test_wrapped_functions_look_like_themselves() -> None:
    """Name, signature, documentation and kind of the wrapped functions are those of the originals."""
    for owner, name in PATCHED:
        function = vars(owner)[name]
        original = function.__wrapped__
        assert inspect.signature(function) == inspect.signature(original)
        assert (function.__name__, function.__doc__) == (original.__name__, original.__doc__)
        assert inspect.iscoroutinefunction(function) == inspect.iscoroutinefunction(original)


def test_a_client_made_before_is_observed_and_one_kept_after_is_not(world: Any, script: Any) -> None:
    """What matters is when a call is made: helpers that a client has cached follow the switch."""
    instrumentor = OpenAIInstrumentor()

    async def scenario(client: Any) -> None:
        cached = client.chat.completions.with_raw_response
        await script.now(cached.create(**CHAT))
        instrumentor.switch_on()
        await script.now(cached.create(**CHAT))
        instrumentor.uninstrument()
        await script.now(cached.create(**CHAT))

    assert len(world.run(scenario).calls) == 1


def test_somebody_elses_wrapper_stays(world: Any, script: Any) -> None:
    """A wrapper that somebody put around ours is theirs to remove; below it, ours passes everything through."""
    instrumentor = OpenAIInstrumentor()
    before = SyncAPIClient.request
    instrumentor.switch_on()
    ours = SyncAPIClient.request

    def theirs(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    SyncAPIClient.request = theirs
    try:
        instrumentor.uninstrument()
        assert SyncAPIClient.request is theirs
        with capture() as captured, openai.OpenAI(base_url=world.simulator.url, api_key="key") as client:
            client.chat.completions.create(**CHAT)
    finally:
        SyncAPIClient.request = before

    assert captured.spans == ()


@pytest.mark.usefixtures("recorded")
def test_our_errors_stay_ours(world: Any, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When reading a request, a response or a chunk fails inside us, the caller gets the client's result."""

    def broken(*_: Any) -> Any:
        raise LookupError("ours")

    row = _requests.Operation("llm", broken, broken)
    from stagelight.integrations import openai as integration

    chat = integration.OPERATIONS["/chat/completions"]
    results: list[Any] = []

    async def scenario(client: Any) -> None:
        for operation in (row, chat._replace(response=broken), chat._replace(items=broken)):
            integration.OPERATIONS["/chat/completions"] = operation  # type: ignore[index]
            results.append(await script.now(client.chat.completions.create(**CHAT)))
            stream = await script.now(client.chat.completions.create(**CHAT, stream=True))
            results.append([item async for item in script.each(stream)])

    _guard.set_strict(False)
    try:
        with capture():
            world.play(scenario)
    finally:
        _guard.set_strict(True)
        integration.OPERATIONS["/chat/completions"] = chat  # type: ignore[index]

    assert [type(result).__name__ for result in results] == ["ChatCompletion", "list"] * 3
    assert all(len(result) > 3 for result in results[1::2])


def test_a_coroutine_that_nobody_awaits_sends_nothing(simulator: Any) -> None:
    """A coroutine of the async client begins when it is awaited, not when it is made."""
    instrumentor = OpenAIInstrumentor()
    instrumentor.switch_on()

    async def scenario() -> None:
        async with openai.AsyncOpenAI(base_url=simulator.url, api_key="key") as client:
            waiting = client.chat.completions.create(**CHAT)
            await asyncio.sleep(0.01)
            waiting.close()

    simulator.forget()
    try:
        with capture() as captured:
            asyncio.run(scenario())
    finally:
        instrumentor.uninstrument()

    assert (captured.spans, simulator.requests) == ((), [])


SWITCH_ON = """
import sys
from stagelight.integrations.openai import OpenAIInstrumentor
from stagelight.integrations.qdrant import QdrantInstrumentor
assert OpenAIInstrumentor().switch_on() and QdrantInstrumentor().switch_on()
assert "openai" not in sys.modules and "qdrant_client" not in sys.modules
import openai, qdrant_client
from openai._base_client import SyncAPIClient
assert hasattr(SyncAPIClient.request, "__wrapped__")
assert hasattr(qdrant_client.AsyncQdrantClient.query_points, "__wrapped__")
"""

SWITCHED_OFF_AGAIN = """
from stagelight.integrations.openai import OpenAIInstrumentor
instrumentor = OpenAIInstrumentor()
instrumentor.switch_on()
instrumentor.uninstrument()
from openai._base_client import SyncAPIClient
assert not hasattr(SyncAPIClient.request, "__wrapped__")
instrumentor.switch_on()
assert hasattr(SyncAPIClient.request, "__wrapped__")
"""

MISSING = """
import importlib.metadata as metadata
real = metadata.version
def version(name):
    if name == "openai":
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
from stagelight.integrations.openai import OpenAIInstrumentor
assert OpenAIInstrumentor().switch_on() is False
"""

TOO_OLD = """
import logging
logging.disable(logging.CRITICAL)
from stagelight.integrations.openai import OpenAIInstrumentor
OpenAIInstrumentor.supported = "openai < 1"
assert OpenAIInstrumentor().switch_on() is False
"""


@pytest.mark.parametrize("program", [SWITCH_ON, SWITCHED_OFF_AGAIN, MISSING, TOO_OLD])
def test_switching_on_is_lazy(program: str) -> None:
    """Switching on imports nothing, takes effect at the import, and says no for a library it cannot observe."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
