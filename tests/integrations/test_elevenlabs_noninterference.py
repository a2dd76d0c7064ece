"""The ElevenLabs client beside Stagelight: the same objects, bytes and requests, at the same time."""

from __future__ import annotations

from typing import Any

import pytest
import stagelight
from elevenlabs.core.api_error import ApiError
from integrations.elevenlabs_speeches import SPEECH, Voices
from stagelight.conventions import attributes as a
from stagelight.integrations.elevenlabs import ElevenLabsInstrumentor
from stagelight.testing import Clock

CLIENT = "elevenlabs"
pytestmark = pytest.mark.usefixtures("recorded")


def test_nothing_is_sent_before_the_caller_asks(voices: Voices, script: Any) -> None:
    """A generator that nobody reads sends nothing and leaves nothing."""

    async def scenario(client: Any) -> None:
        client.text_to_speech.convert(**SPEECH)
        client.text_to_speech.stream_with_timestamps(**SPEECH)

    assert voices.run(scenario).spans == ()
    assert voices.simulator.requests == []


@pytest.mark.parametrize("way", ["convert", "stream", "stream_with_timestamps"])
def test_audio_is_not_held_back(voices: Voices, script: Any, way: str) -> None:
    """The caller hears the first block while the server keeps the second, and the turn's first audio is that moment."""
    hold = voices.simulator.hold("chunk", 2)
    clock = Clock()

    async def scenario(client: Any) -> None:
        with stagelight.turn("speak"):
            clock.advance(1.0)
            blocks = aiter(script.each(getattr(client.text_to_speech, way)(**SPEECH)))
            await anext(blocks)
            assert hold.wait_reached(30)
            clock.advance(2.0)
            hold.release()
            async for _ in blocks:
                pass

    captured = voices.run(scenario, clock=clock)

    assert captured.turn("speak").time_to_first_audio_s == 1.0
    assert captured.call("tts").attributes[a.STAGELIGHT_STREAM_LONGEST_GAP] == 2.0


def test_what_is_sent_is_what_is_sent_without_us(voices: Voices, script: Any) -> None:
    """Types, values and every byte and header on the wire are those of the client alone."""

    async def everything(client: Any) -> list[Any]:
        speech, seen = client.text_to_speech, list[Any]()
        for way in ("convert", "stream", "stream_with_timestamps"):
            source = getattr(speech, way)(**SPEECH)
            seen += [
                type(source),
                [item if isinstance(item, bytes) else repr(item) async for item in script.each(source)],
            ]
        answer = await script.now(speech.convert_with_timestamps(**SPEECH))
        seen += [type(answer), answer.model_dump_json()]
        raw = speech.with_raw_response.convert(**SPEECH)
        async with script.inside(raw) as response:
            seen += [type(raw), type(response), type(response.data), type(response._response.stream).__mro__[-2:]]
            seen += [[data async for data in script.each(response.data)]]
        try:
            await script.now(speech.convert_with_timestamps(**{**SPEECH, "text": None}))
        except ApiError as error:
            seen += [type(error), str(error), type(error.__cause__), type(error.__context__)]
        return seen

    def run() -> tuple[list[Any], list[Any]]:
        voices.simulator.forget()
        seen: list[Any] = []

        async def scenario(client: Any) -> None:
            seen.extend(await everything(client))

        voices.run(scenario)
        return seen, voices.simulator.requests

    observed = run()
    ElevenLabsInstrumentor().uninstrument()
    alone = run()
    ElevenLabsInstrumentor().switch_on()

    assert observed[0] == alone[0]
    assert observed[1] == alone[1]
    assert len(alone[1]) == 6
