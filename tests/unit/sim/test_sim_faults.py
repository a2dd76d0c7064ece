"""Faults by header and holds, as a client of the simulator meets them."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from stagelight.sim import Fault, FaultError, Simulator

LIMIT_S = 60.0
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is a turn?"}]}


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(seed=7, latency="instant") as simulator:
        yield simulator


@pytest.fixture(scope="module")
def client(sim: Simulator) -> Iterator[OpenAI]:
    with OpenAI(base_url=sim.url, api_key="any", max_retries=0, timeout=60) as made:
        yield made


def chat(client: OpenAI, fault: str, **extra: Any) -> Any:
    return client.chat.completions.create(**CHAT, extra_headers={"x-stagelight-fault": fault}, **extra)


def read(client: OpenAI, fault: str) -> list[Any]:
    return list(chat(client, fault, stream=True, stream_options={"include_usage": True}))


def speak(client: OpenAI, fault: str = "") -> list[bytes]:
    with client.audio.speech.with_streaming_response.create(
        model="tts-1",
        voice="coral",
        input="Hello there.",
        response_format="pcm",
        extra_headers={"x-stagelight-fault": fault},
    ) as response:
        return list(response.iter_bytes())


@pytest.mark.parametrize(
    ("fault", "error", "status", "code"),
    [
        ("rate_limit; retry_after=0", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("quota", openai.RateLimitError, 429, "insufficient_quota"),
        ("server_error", openai.InternalServerError, 500, None),
        ("server_error; status=503", openai.InternalServerError, 503, None),
        ("unauthorized", openai.AuthenticationError, 401, "invalid_api_key"),
        ("model_not_found", openai.NotFoundError, 404, "model_not_found"),
    ],
)
@pytest.mark.parametrize("call", [chat, read])
def test_errors_are_those_the_client_knows(
    client: OpenAI,
    call: Callable[..., Any],
    fault: str,
    error: type[openai.APIStatusError],
    status: int,
    code: str | None,
) -> None:
    """Each error fault raises the client's own exception, with status, code and request id."""
    with pytest.raises(error) as caught:
        call(client, fault)

    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.request_id is not None


def test_a_rate_limit_says_when_to_come_back(client: OpenAI) -> None:
    """429 carries Retry-After and no requests left."""
    with pytest.raises(openai.RateLimitError) as caught:
        chat(client, "rate_limit; retry_after=2.5")

    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["x-ratelimit-remaining-requests"]) == ("2.5", "0")


def test_a_timeout_hangs_until_the_client_leaves(sim: Simulator) -> None:
    """A hanging answer ends by the client's timeout, or by a closed connection after the time it was given."""
    with OpenAI(base_url=sim.url, api_key="any", max_retries=0, timeout=0.2) as hasty:
        with pytest.raises(openai.APITimeoutError):
            chat(hasty, "timeout")
        with pytest.raises(openai.APIConnectionError) as caught:
            chat(hasty.with_options(timeout=60), "timeout; seconds=0.01")
    assert not isinstance(caught.value, openai.APITimeoutError)


def test_a_slow_first_token_is_late(client: OpenAI) -> None:
    """The delay comes before the first chunk."""
    started = time.monotonic()
    stream = chat(client, "slow_first_token; delay=0.2", stream=True)
    next(stream)

    assert time.monotonic() - started >= 0.2
    stream.close()


def test_a_cut_stream_breaks_after_its_chunks(client: OpenAI) -> None:
    """A cut closes the connection after n chunks; a plain answer breaks in the middle of its body."""
    stream = chat(client, "stream_cut; after=3", stream=True)
    got = [next(stream) for _ in range(3)]
    with pytest.raises(openai.APIConnectionError):
        next(stream)
    with pytest.raises(openai.APIConnectionError):
        chat(client, "stream_cut")
    with pytest.raises(httpx2.RemoteProtocolError):
        speak(client, "stream_cut; after=1")

    assert [chunk.choices[0].delta.content for chunk in got] == ["", "I", " was"]


def test_broken_chunks_and_errors_in_mid_stream(client: OpenAI) -> None:
    """A malformed chunk is half a chunk; an error in mid-stream has the form of its protocol."""
    for call in (chat, read):
        with pytest.raises(json.JSONDecodeError):
            call(client, "malformed_chunk")
    with pytest.raises(openai.APIError) as caught:
        read(client, "stream_error; after=2")
    fault = {"x-stagelight-fault": "stream_error; after=4"}
    events = list(client.responses.create(model="gpt-4o-mini", input="Why?", stream=True, extra_headers=fault))

    assert (caught.value.type, caught.value.message[:10]) == ("server_error", "The server")
    assert [event.type for event in events][-1] == "error"
    assert [event.sequence_number for event in events] == [0, 1, 2, 3, 4]
    assert sum(map(len, speak(client, "malformed_chunk; after=0"))) == sum(map(len, speak(client))) - 4800


def test_missing_usage_and_cut_answers(client: OpenAI) -> None:
    """Usage can be missing everywhere; the content filter and the length limit end an answer with their reason."""
    fault = {"x-stagelight-fault": "missing_usage"}
    response = client.responses.create(model="gpt-4o-mini", input="Why?", extra_headers=fault)
    embedding = client.embeddings.with_raw_response.create(
        model="text-embedding-3-small", input="a", extra_headers=fault
    )

    assert chat(client, "missing_usage").usage is None
    assert all(chunk.usage is None for chunk in read(client, "missing_usage"))
    assert response.usage is None
    assert "usage" not in json.loads(embedding.text)
    for name, reason, told in (
        ("content_filter; after=2", "content_filter", "I was"),
        ("length_cut; tokens=3", "length", "I was given"),
    ):
        choice = chat(client, name).choices[0]
        assert (choice.finish_reason, choice.message.content) == (reason, told)
        chunks = [chunk for chunk in read(client, name) if chunk.choices]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == told
        assert chunks[-1].choices[0].finish_reason == reason


def test_several_faults_at_once(client: OpenAI) -> None:
    """A header may name several faults, separated by commas."""
    choice = chat(client, "missing_usage, length_cut; tokens=1, slow_first_token; delay=0.01")

    assert (choice.usage, choice.choices[0].finish_reason) == (None, "length")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flood", "fault is 'flood'; accepted: rate_limit, quota"),
        ("rate_limit; after=1", "rate_limit has no option 'after'; accepted: retry_after"),
        ("server_error; status=404", "server_error.status is 404; accepted: a number from 500 to 599"),
        ("server_error; status", "server_error: 'status' is not readable; accepted: name=number"),
    ],
)
def test_a_wrong_fault_says_what_is_accepted(client: OpenAI, text: str, message: str) -> None:
    """A header that cannot be read gets 400 with the values accepted."""
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, text)

    assert f"x-stagelight-fault: {message}" in caught.value.message


def test_a_fault_made_in_code_is_checked_too() -> None:
    """The same rules hold for a fault made in Python; options left out take their default."""
    assert Fault("rate_limit")["retry_after"] == 1
    with pytest.raises(FaultError, match="accepted: a number from 0 to 3600"):
        Fault("rate_limit", {"retry_after": -1})


def test_chunk_one_arrives_while_chunk_two_is_held(sim: Simulator, client: OpenAI) -> None:
    """The caller has chunk 1 while the server stands before chunk 2; after the release the rest comes."""
    with sim.hold("chunk", 2, path="/v1/chat/completions") as hold:
        stream = chat(client, "", stream=True)
        first = next(stream)
        assert hold.wait_reached(LIMIT_S)
        speak(client)  # another path is not held
        hold.release()
        rest = list(stream)

    assert first.choices[0].delta.role == "assistant"
    assert rest[-1].choices[0].finish_reason == "stop"


def test_a_held_response_sends_nothing(sim: Simulator) -> None:
    """A hold before the response lets a client time out; the asynchronous client can be cancelled there."""

    async def ask() -> bool:
        async with AsyncOpenAI(base_url=sim.url, api_key="any", max_retries=0) as client:
            with sim.hold("response") as hold:
                task = asyncio.create_task(client.chat.completions.create(**CHAT))
                reached = await asyncio.to_thread(hold.wait_reached, LIMIT_S)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return reached

    assert asyncio.run(ask())


def test_a_header_holds_and_the_server_releases(sim: Simulator, client: OpenAI) -> None:
    """A request may ask for a hold by header; ``release`` or a POST lets it go on."""
    for release in (sim.release, lambda: httpx2.post(sim.url.replace("/v1", "/simulator/release"))):
        stream = client.chat.completions.create(**CHAT, stream=True, extra_headers={"x-stagelight-hold": "2"})
        next(stream)
        late = threading.Timer(0.05, release)
        late.start()
        assert len(list(stream)) > 2
        late.join()
