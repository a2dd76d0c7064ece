"""Faults by header and scenario, holds, pace and the life of the server."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from stagelight.sim import Fault, FaultError, Scenario, ScenarioError, Simulator
from stagelight.sim.delivery import Pace
from stagelight.sim.models import Latency
from stagelight.sim.wire import Chunk

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


def test_pace_waits_once_for_the_first_token_and_then_for_each() -> None:
    """Early chunks do not wait; the delay comes once; all is divided by the speed."""
    pace = Pace(Latency(first_s=1, rate=10, jitter=0), Random(1), speed=2, delay_s=3)
    chunks = [Chunk(b"", early=True), Chunk(b""), Chunk(b"", work=1), Chunk(b"", work=4)]

    assert [pace.due_s(chunk) for chunk in chunks] == [0, 2, 2.05, 2.25]


def test_jitter_stays_within_its_share() -> None:
    """A wait differs from the usual one by at most the jitter."""
    paces = [Pace(Latency(1, 10, 0.25), Random(seed), speed=1, delay_s=0) for seed in range(200)]
    waits = [pace.due_s(Chunk(b"")) for pace in paces]

    assert 0.75 <= min(waits) < 0.8
    assert 1.2 < max(waits) <= 1.25


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


SCENARIO = """
latency:
  gpt-4o*: instant
rules:
  - fault: {kind: rate_limit, retry_after: 0}
    when: {path: /v1/chat/*, requests: [2, 3]}
  - fault: server_error
    when: {model: text-embedding-*, every: 2}
  - fault: {kind: server_error, status: 502}
    when: {path: /v1/responses, probability: 0.5}
"""


def statuses(call: Callable[[], Any], count: int) -> list[int]:
    """Status of each of several calls."""
    found = []
    for _ in range(count):
        try:
            call()
            found.append(200)
        except openai.APIStatusError as error:
            found.append(error.status_code)
    return found


def test_a_scenario_decides_which_requests_fail(tmp_path: Path) -> None:
    """Rules count the requests they match: by number, every n-th, or by a chance that the seed decides."""
    file = tmp_path / "faults.yaml"
    file.write_text(SCENARIO, encoding="utf-8")

    def play(seed: int) -> list[list[int]]:
        with (
            Simulator(seed=seed, latency="instant", scenario=file) as simulator,
            OpenAI(base_url=simulator.url, api_key="any", max_retries=0) as client,
        ):
            return [
                statuses(lambda: client.chat.completions.create(**CHAT), 4),
                statuses(lambda: client.embeddings.create(model="text-embedding-3-small", input="a"), 4),
                statuses(lambda: client.responses.create(model="gpt-4o", input="a"), 12),
            ]

    first = play(1)
    assert first[:2] == [[200, 429, 429, 200], [200, 500, 200, 500]]
    assert set(first[2]) == {200, 502}
    assert play(1) == first
    assert play(2)[2] != first[2]


def test_the_clients_own_retry_gets_through() -> None:
    """A retry is a request of its own: after one 429 the second attempt succeeds."""
    rules = Scenario.parse("rules: [{fault: {kind: rate_limit, retry_after: 0.01}, when: {requests: 1}}]")
    with (
        Simulator(latency="instant", scenario=rules) as simulator,
        OpenAI(base_url=simulator.url, api_key="any", max_retries=2) as client,
    ):
        client.chat.completions.create(**CHAT)

        assert [request.header("x-stainless-retry-count") for request in simulator.requests] == ["0", "1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: 3", "s.yaml:1: scenario.rules is '3'; accepted: a list"),
        ("speed: 3", "s.yaml:1: key of scenario is 'speed'; accepted: rules, latency"),
        ("latency:\n  gpt-4o: warp", "s.yaml:2: scenario.latency.gpt-4o is 'warp'; accepted: instant, fast-chat"),
        (
            "rules:\n  - when: {every: 2}",
            "s.yaml:2: scenario.rules[0] is 'a list or mapping'; accepted: a mapping with fault",
        ),
        ("rules:\n  - fault: flood", "s.yaml:2: scenario.rules[0].fault: fault is 'flood'; accepted: rate_limit"),
        (
            "rules:\n  - fault: quota\n    when:\n      probability: 2",
            "s.yaml:4: scenario.rules[0].when.probability is '2'; accepted: a number from 0 to 1",
        ),
        (
            "rules:\n  - fault: quota\n    when: {requests: [1, 0]}",
            "s.yaml:3: scenario.rules[0].when.requests[1] is '0'; accepted: a whole number, 1 or more",
        ),
        (
            "rules:\n  - fault: {kind: quota, after: 3}",
            "s.yaml:2: scenario.rules[0].fault: quota has no option 'after'",
        ),
        ("rules: [", "s.yaml: not readable as YAML"),
    ],
)
def test_a_wrong_scenario_says_where_and_what_is_accepted(text: str, message: str) -> None:
    """Errors of scenario files name file, line, value and the values accepted."""
    with pytest.raises(ScenarioError) as caught:
        Scenario.parse(text, name="s.yaml")

    assert str(caught.value).startswith(message)


def test_a_missing_scenario_file_is_one_sentence(tmp_path: Path) -> None:
    """A scenario that does not exist is an error of its own kind; an empty one has no rules."""
    with pytest.raises(ScenarioError, match="No such file"):
        Scenario.read(tmp_path / "none.yaml")

    assert Scenario.parse("") == Scenario()


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


def test_speed_divides_all_waits() -> None:
    """Pace follows the latency row, divided by the speed; the same request has the same jitter."""

    def seconds(speed: float) -> float:
        with Simulator(speed=speed) as simulator, OpenAI(base_url=simulator.url, api_key="any") as client:
            client.models.list()
            started = time.monotonic()
            list(chat(client, "", stream=True))
            return time.monotonic() - started

    # fast-chat: 0.38 s to the first token, then 110 tokens per second, 22 tokens, jitter 25 %.
    slow, fast = seconds(0.5), [seconds(4)]
    while fast[-1] >= slow and len(fast) < 10:  # the machine was busy
        fast.append(seconds(4))
    assert min(fast) >= 0.10
    assert slow >= max(0.80, min(fast))


def test_stop_is_bounded_while_a_client_hangs() -> None:
    """A hanging and a held response do not keep the server from stopping."""
    simulator = Simulator(latency="instant").start()
    simulator.hold("chunk", 1, path="/v1/embeddings")
    with OpenAI(base_url=simulator.url, api_key="any", max_retries=0, timeout=2 * LIMIT_S) as client:

        def ask() -> None:
            with pytest.raises(openai.APIConnectionError):
                chat(client, "timeout")

        waiting = threading.Thread(target=ask)
        waiting.start()
        while not simulator.requests:
            time.sleep(0.005)
        started = time.monotonic()
        simulator.stop()
        stopped_s = time.monotonic() - started
        waiting.join(LIMIT_S)

    assert stopped_s < LIMIT_S
    assert not waiting.is_alive()
    simulator.stop()
    port = int(simulator.url.split(":")[2].removesuffix("/v1"))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_settings_are_checked() -> None:
    """A wrong speed or latency is named with the values accepted; a taken port is an OSError."""
    with pytest.raises(ValueError, match=r"speed is 0; accepted: a number above 0"):
        Simulator(speed=0)
    with pytest.raises(ValueError, match=r"latency is 'warp'; accepted: instant"):
        Simulator(latency="warp")
    with Simulator() as simulator, pytest.raises(RuntimeError, match="running already"):
        simulator.start()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Simulator(port=taken.getsockname()[1]).start()


def test_as_a_process_it_prints_its_url_and_ends_on_a_signal() -> None:
    """``python -m stagelight.sim`` prints the base URL, answers, and ends with status 0 when terminated."""
    command = [sys.executable, "-m", "stagelight.sim", "--port", "0", "--speed", "50", "--seed", "7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with OpenAI(base_url=url, api_key="any") as client:
                assert client.models.list().data
        finally:
            process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_as_a_process_wrong_settings_are_one_sentence(tmp_path: Path) -> None:
    """A wrong scenario ends the process with status 2 and the message."""
    file = tmp_path / "s.yaml"
    file.write_text("rules: 3", encoding="utf-8")
    command = [sys.executable, "-m", "stagelight.sim", "--scenario", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)

    assert (ended.returncode, ended.stderr) == (2, f"{file}:1: scenario.rules is '3'; accepted: a list\n")
