"""Polly's speech: watched while the caller reads it; billed characters, voice, format, bytes and seconds."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
import stagelight
from aws_clients import KINDS, AwsWorld
from botocore.config import Config
from botocore.stub import Stubber
from integrations.cancelling import cancel_while_held
from retrying import check_retried, refusing
from stagelight.conventions import attributes as a
from stagelight.integrations.bedrock import BedrockInstrumentor
from stagelight.integrations.polly import PollyInstrumentor
from stagelight.sim import Simulator
from stagelight.testing import Clock, capture

TEXT = "The tide comes in, the tide goes out."
SECONDS = len(TEXT) / 15  # the simulator speaks 15 characters per second
SPEECH = {"Text": TEXT, "VoiceId": "Joanna", "OutputFormat": "pcm", "Engine": "neural"}


CLIENT = "polly"
pytestmark = [
    pytest.mark.usefixtures("recorded"),
    # The client leaves the socket of an unread answer to the garbage collection, without us as well.
    pytest.mark.filterwarnings("ignore:.*(socket|Connection):pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(params=KINDS)
def polly(request: pytest.FixtureRequest, simulator: Simulator) -> AwsWorld:
    """The simulator, by a sync and by an async client."""
    simulator.forget()
    return AwsWorld(request.param, simulator, "polly", "aws.polly")


async def listen(script: Any, stream: Any, size: int) -> None:
    """Read as many bytes as named: one read of the async client returns what has come so far."""
    while size > 0:
        data = await script.now(stream.read(size))
        assert data, f"the audio ended {size} bytes early"
        size -= len(data)


def without_cost(call: Any) -> dict[str, Any]:
    """The attributes of a call, without its price."""
    return {key: value for key, value in call.attributes.items() if ".cost." not in key}


@pytest.mark.parametrize("way", ["read", "iter_chunks", "iterated"])
def test_speech(polly: AwsWorld, script: Any, way: str) -> None:
    """However the audio is read, the call ends at its last byte, with what Polly bills and what passed."""
    heard: list[bytes] = []
    answers: list[Any] = []

    async def scenario(client: Any) -> None:
        with stagelight.turn("speak"):
            answers.append(await script.now(client.synthesize_speech(**SPEECH)))
            stream = answers[0]["AudioStream"]
            if way == "read":
                heard.append(await script.now(stream.read()))
            else:
                source = stream.iter_chunks(4096) if way == "iter_chunks" else stream
                heard.extend([data async for data in script.each(source)])

    captured = polly.run(scenario, clock=Clock())
    call = captured.call("tts")
    gap = {} if way == "read" else {a.STAGELIGHT_STREAM_LONGEST_GAP: 0.0}
    seconds = sum(map(len, heard)) / 32_000

    assert call.name == "text_to_speech neural"
    assert without_cost(call) == {
        a.STAGELIGHT_STAGE: "tts",
        a.GEN_AI_OPERATION_NAME: "text_to_speech",
        a.GEN_AI_PROVIDER_NAME: "aws.polly",
        a.GEN_AI_REQUEST_MODEL: "neural",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: polly.port,
        a.GEN_AI_OUTPUT_TYPE: "speech",
        a.GEN_AI_RESPONSE_ID: answers[0]["ResponseMetadata"]["RequestId"],
        a.STAGELIGHT_TTS_VOICE: "Joanna",
        a.STAGELIGHT_TTS_FORMAT: "pcm",
        a.STAGELIGHT_TTS_SAMPLE_RATE: 16_000,
        a.STAGELIGHT_TTS_CHARACTERS: len(TEXT),
        a.STAGELIGHT_USAGE_CHARACTERS: len(TEXT),
        a.STAGELIGHT_TTS_AUDIO_BYTES: sum(map(len, heard)),
        a.STAGELIGHT_TTS_AUDIO_SECONDS: seconds,
        a.STAGELIGHT_USAGE_AUDIO_SECONDS: seconds,
        a.STAGELIGHT_TTS_REAL_TIME_FACTOR: 0.0,
        a.STAGELIGHT_OUTCOME: "completed",
        a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.0,
        a.STAGELIGHT_STREAM_CHUNKS: len(heard),
        **gap,
    }
    assert seconds == pytest.approx(SECONDS, abs=0.01)
    # 16 USD per million characters: https://aws.amazon.com/polly/pricing/
    assert (call.cost, call.cost_status) == (len(TEXT) * Decimal(16) / 10**6, "estimated")
    assert captured.turn("speak").time_to_first_audio_s == 0.0


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"OutputFormat": "pcm", "SampleRate": "8000"}, {a.STAGELIGHT_TTS_SAMPLE_RATE: 8000}),
        ({"OutputFormat": "mp3"}, {a.STAGELIGHT_TTS_AUDIO_SECONDS: None, a.STAGELIGHT_TTS_SAMPLE_RATE: None}),
        ({"OutputFormat": "mp3", "SampleRate": "22050"}, {a.STAGELIGHT_TTS_SAMPLE_RATE: 22_050}),
        (
            {"TextType": "ssml", "Text": "<speak>Tides <break time='1s'/>&amp; moon</speak>"},
            {a.STAGELIGHT_USAGE_CHARACTERS: len("Tides & moon"), a.STAGELIGHT_TTS_CHARACTERS: len("Tides & moon")},
        ),
    ],
)
def test_formats_and_texts(polly: AwsWorld, script: Any, asked: dict[str, Any], expected: dict[str, Any]) -> None:
    """Rate and seconds are known where the format tells them; characters are those that are billed."""

    async def scenario(client: Any) -> None:
        answer = await script.now(client.synthesize_speech(**{**SPEECH, **asked}))
        await script.now(answer["AudioStream"].read())

    call = polly.run(scenario).call("tts")

    assert {key: call.attributes.get(key) for key in expected} == expected
    assert call.attributes[a.STAGELIGHT_TTS_AUDIO_BYTES] > 1000


def test_the_engine_of_a_call_that_names_none(polly: AwsWorld, script: Any) -> None:
    """A call that worked without an engine was served by the standard one, whose price it has."""

    async def scenario(client: Any) -> None:
        asked = {key: value for key, value in SPEECH.items() if key != "Engine"}
        await script.now((await script.now(client.synthesize_speech(**asked)))["AudioStream"].read())

    call = polly.run(scenario).call("tts")

    assert (call.name, call.attributes[a.GEN_AI_RESPONSE_MODEL]) == ("text_to_speech", "standard")
    assert call.cost == len(TEXT) * Decimal(4) / 10**6


def test_times_of_words_are_no_sound(polly: AwsWorld, script: Any) -> None:
    """Speech marks are billed as speech, and are no first audio."""
    marks: list[Any] = []

    async def scenario(client: Any) -> None:
        with stagelight.turn("speak"):
            asked = {**SPEECH, "OutputFormat": "json", "SpeechMarkTypes": ["word"]}
            answer = await script.now(client.synthesize_speech(**asked))
            marks.extend([json.loads(line) async for line in script.each(answer["AudioStream"].iter_lines())])

    captured = polly.run(scenario)
    call = captured.call("tts")

    assert [mark["value"] for mark in marks][:2] == ["The", "tide"]
    assert (call.outcome, call.attributes[a.GEN_AI_OUTPUT_TYPE]) == ("completed", "json")
    assert call.attributes[a.STAGELIGHT_USAGE_CHARACTERS] == len(TEXT)
    assert a.STAGELIGHT_TTS_AUDIO_BYTES not in call.attributes
    assert captured.turn("speak").time_to_first_audio_s is None


def test_audio_is_not_held_back(polly: AwsWorld, script: Any) -> None:
    """The caller hears the first block while the server keeps the second, and the turn's first audio is that moment."""
    hold = polly.simulator.hold("chunk", 2, path="/v1/speech")
    clock = Clock()

    async def scenario(client: Any) -> None:
        with stagelight.turn("speak"):
            clock.advance(1.0)
            stream = (await script.now(client.synthesize_speech(**SPEECH)))["AudioStream"]
            await listen(script, stream, 9600)
            assert hold.wait_reached(30)
            clock.advance(2.0)
            hold.release()
            while await script.now(stream.read(9600)):
                pass

    captured = polly.run(scenario, clock=clock)

    assert captured.turn("speak").time_to_first_audio_s == 1.0
    assert captured.call("tts").attributes[a.STAGELIGHT_STREAM_LONGEST_GAP] == 2.0


def test_speech_that_is_cut_short(polly: AwsWorld, script: Any) -> None:
    """A caller who stops listening abandons the call: the whole text is billed, the seconds are those heard."""

    async def scenario(client: Any) -> None:
        stream = (await script.now(client.synthesize_speech(**SPEECH)))["AudioStream"]
        await listen(script, stream, 16_000)
        await script.now(stream.close())

    call = polly.run(scenario).call("tts")

    assert (call.outcome, call.error_type) == ("client_abandoned", None)
    assert call.attributes[a.STAGELIGHT_USAGE_CHARACTERS] == len(TEXT)
    assert call.attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] == 0.5


def test_speech_that_breaks(polly: AwsWorld, script: Any) -> None:
    """A connection that is lost while audio comes is the provider's failure."""

    async def scenario(client: Any) -> None:
        stream = (await script.now(client.synthesize_speech(**SPEECH)))["AudioStream"]

        async def reading() -> None:
            while await script.now(stream.read(9600)):
                pass

        with pytest.raises(Exception, match=r"broken|closed|payload|read"):
            await reading()

    call = polly.run(scenario, headers={"x-stagelight-fault": "stream_cut;after=2"}).call("tts")

    assert call.outcome == "provider_aborted"
    assert call.error_type is not None
    assert 0 < call.attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] < SECONDS


@pytest.mark.parametrize(
    ("asked", "fault", "kind", "status"),
    [
        ({"Text": "x" * 3001}, "", "TextLengthExceededException", 400),
        ({"SampleRate": "11025"}, "", "InvalidSampleRateException", 400),
        ({"TextType": "ssml"}, "", "InvalidSsmlException", 400),
        ({}, "server_error;status=503", "ClientError", 503),
    ],
)
def test_a_refused_speech_costs_nothing(
    polly: AwsWorld, script: Any, asked: dict[str, str], fault: str, kind: str, status: int
) -> None:
    """Characters are billed when the service accepted them."""

    async def scenario(client: Any) -> None:
        with pytest.raises(Exception, match="SynthesizeSpeech"):
            await script.now(client.synthesize_speech(**{**SPEECH, **asked}))

    call = polly.run(scenario, headers={"x-stagelight-fault": fault} if fault else {}).call("tts")

    assert (call.outcome, call.cost) == ("error", None)
    assert str(call.error_type).rpartition(".")[2] == kind
    assert call.attributes[a.HTTP_RESPONSE_STATUS_CODE] == status
    assert a.STAGELIGHT_USAGE_CHARACTERS not in call.attributes


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_repeated_request_is_one_call(polly: AwsWorld, script: Any, status: int) -> None:
    """The client's own repetition belongs to one call, which counts it."""

    async def scenario(client: Any) -> None:
        answer = await script.now(client.synthesize_speech(**SPEECH))
        await script.now(answer["AudioStream"].read())

    with refusing(status) as simulator:
        world = AwsWorld(polly.kind, simulator, polly.service, polly.provider)
        captured = world.run(scenario, config=Config(retries={"total_max_attempts": 2, "mode": "standard"}))

        check_retried(captured, simulator, 2)


def test_a_cancelled_speech(simulator: Simulator) -> None:
    """A task that is cancelled while it waits for audio was cancelled, which is no error."""
    if "async" not in KINDS:
        return  # only a task can be cancelled
    world = AwsWorld("async", simulator, "polly", "aws.polly")
    hold = simulator.hold("chunk", 2, path="/v1/speech")

    async def scenario(client: Any) -> None:
        stream = (await client.synthesize_speech(**SPEECH))["AudioStream"]

        async def reading() -> None:
            while await stream.read(9600):
                pass

        await cancel_while_held(reading(), hold)

    call = world.run(scenario).call("tts")

    assert (call.outcome, call.error_type) == ("cancelled", None)


def test_a_manual_block_is_that_call(polly: AwsWorld, script: Any) -> None:
    """A client inside a manual block of the same stage fills it: one span, one cost."""

    async def scenario(client: Any) -> None:
        with stagelight.tts(provider="aws.polly", model="neural", voice="mine"):
            await script.now((await script.now(client.synthesize_speech(**SPEECH)))["AudioStream"].read())

    call = polly.run(scenario).call("tts")

    assert (call.attributes[a.STAGELIGHT_TTS_VOICE], call.outcome) == ("mine", "completed")
    assert call.attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] == pytest.approx(SECONDS, abs=0.01)


def test_two_speeches_side_by_side(polly: AwsWorld, script: Any) -> None:
    """Two speeches read in turns are two calls."""

    async def scenario(client: Any) -> None:
        answers = [
            await script.now(client.synthesize_speech(**{**SPEECH, "VoiceId": voice}))
            for voice in ("Joanna", "Matthew")
        ]
        for _ in range(2):
            for answer in answers:
                await script.now(answer["AudioStream"].read(4800))
        for answer in answers:
            await script.now(answer["AudioStream"].read())

    calls = polly.run(scenario).calls

    assert [call.attributes[a.STAGELIGHT_TTS_VOICE] for call in calls] == ["Joanna", "Matthew"]
    assert {call.outcome for call in calls} == {"completed"}
    assert all(call.attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] == pytest.approx(SECONDS, abs=0.01) for call in calls)


def test_one_function_serves_two_integrations(simulator: Simulator) -> None:
    """Bedrock's and Polly's integrations wrap one function; each records its own service once."""
    both = (BedrockInstrumentor(), PollyInstrumentor())
    bedrock = AwsWorld("sync", simulator, "bedrock-runtime", "").sync_client()
    polly = AwsWorld("sync", simulator, "polly", "").sync_client()
    stages = []
    both[0].switch_on()
    for leaving in both:
        with capture() as captured:
            bedrock.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "Hi"}]}])
            polly.synthesize_speech(**SPEECH)["AudioStream"].read()
        stages.append([call.stage for call in captured.calls])
        leaving.uninstrument()
    with capture() as captured, Stubber(polly) as stubber:
        stubber.add_response("describe_voices", {"Voices": []})
        polly.describe_voices()
    both[1].switch_on()

    assert stages == [["llm", "tts"], ["tts"]]
    assert captured.spans == ()
