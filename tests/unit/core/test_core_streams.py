"""A stream in its call: what it is to its user, what it costs in memory, when it ends, and what is measured of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import stagelight
from stagelight._calls import Call
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.testing import Clock, capture
from stream_sources import Manager, Response, agenerator, generator

MODEL = {"provider": "acme", "model": "acme-1"}


def test_a_stream_is_of_its_sources_kind() -> None:
    """Frameworks tell sync from async by methods: the stand-in has those of its source and not the other's."""
    with capture(), stagelight.llm(**MODEL) as call:
        kinds = {
            name: (hasattr(stream, "__next__"), hasattr(stream, "__anext__"))
            for name, stream in {
                "sync": call.stream(generator()),
                "async": call.stream(agenerator()),
                "manager": call.stream(Manager(generator)),
                "list": call.stream([1]),
            }.items()
        }

    assert kinds == {"sync": (True, False), "async": (False, True), "manager": (True, False), "list": (True, False)}


def test_a_clients_stream_is_closed_itself() -> None:
    """``close`` goes to the source, which holds the connection, not to an iterator made of it."""
    source = Response()
    with capture(), stagelight.llm(**MODEL) as call:
        stream: Any = call.stream(source)
        next(stream)

        assert (stream.close(), source.closed) == ("closed", 1)


def test_unknown_attributes_are_the_sources() -> None:
    """What the stand-in does not know is asked of the source; what neither knows is an ``AttributeError``."""
    source = Response()
    with capture(), stagelight.llm(**MODEL) as call:
        stream: Any = call.stream(source)

        assert stream.closed == 0
        with pytest.raises(AttributeError, match="missing"):
            _ = stream.missing


def test_a_block_inside_the_source_stays_inside() -> None:
    """A call around a ``yield`` of the source is current for the source only; its children are the stream's call's."""

    def source() -> Iterator[str]:
        with stagelight.tool("inner"):
            yield "a"
            with stagelight.tool("deep"):
                yield "b"

    with capture() as captured:
        with stagelight.llm(**MODEL) as call:
            stream = call.stream(source())
            currents = [(item, stagelight.current()) for item in stream]
            assert [current is call for _, current in currents] == [True, True]
        parents = {span.name: span.parent.span_id if span.parent else 0 for span in captured.spans}
        ids = {span.name: span.context.span_id for span in captured.spans if span.context}

    assert parents == {
        "execute_tool deep": ids["execute_tool inner"],
        "execute_tool inner": ids["chat acme-1"],
        "chat acme-1": 0,
    }


def test_a_source_with_a_block_closed_elsewhere_does_not_complain(caplog: pytest.LogCaptureFixture) -> None:
    """A source finished from another task, thread or collection detaches nothing it should not: no log, no leak."""

    async def source() -> AsyncIterator[int]:
        async with stagelight.tool("inner"):
            yield 1
            yield 2

    async def main() -> None:
        async with stagelight.llm(**MODEL) as call:
            stream = call.stream(source())
            await anext(stream)
            await asyncio.create_task(stream.aclose())  # type: ignore[attr-defined]  # an async generator has it
            assert stagelight.current() is call

    with capture() as captured:
        asyncio.run(main())

    assert [call.outcome for call in captured.calls] == ["client_abandoned", "client_abandoned"]
    assert "detach" not in caplog.text


def test_a_long_stream_takes_constant_memory() -> None:
    """200,000 chunks are counted and none is kept."""
    with capture() as captured:
        with stagelight.llm(**MODEL) as call:
            stream = iter(call.stream(iter(range(200_000))))
            blocks = []
            for _ in range(3):
                for _ in range(50_000):
                    next(stream)
                blocks.append(sys.getallocatedblocks())
            assert sum(1 for _ in stream) == 50_000
        gaps = captured.metric(m.GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK)

        assert captured.call("llm").attributes[a.STAGELIGHT_STREAM_CHUNKS] == 200_000
        assert sum(point.count or 0 for point in gaps) == 199_999
        assert max(blocks) - min(blocks) < 5_000


def test_a_stream_dropped_by_break_ends_at_the_block() -> None:
    """After ``break`` the call is abandoned, and its end is the later one: that of its block."""
    clock = Clock()
    with capture(clock=clock) as captured:
        with stagelight.turn("answer"), stagelight.llm(**MODEL) as call:
            for _ in call.stream(iter("abc")):
                clock.advance(1.0)
                break
            clock.advance(2.0)
        found = captured.call("llm")

        assert (found.outcome, found.duration_s) == ("client_abandoned", 3.0)
        assert (captured.turn("answer").duration_s, captured.turn("answer").outcome) == (3.0, "completed")
        assert captured.turn("answer").attributes[a.STAGELIGHT_TURN_CALLS] == 1


def test_facts_may_be_given_after_the_loop() -> None:
    """The call ends with its block, so usage after an exhausted stream still counts."""
    with capture() as captured:
        with stagelight.llm(**MODEL) as call:
            list(call.stream("abc"))
            call.usage(input_tokens=7)

        assert captured.call("llm").attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == 7


def test_a_timeout_around_the_consumer_is_a_timeout() -> None:
    """``asyncio.timeout`` inside the block cancels the pull; the error that leaves the block says what it was."""

    async def never() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async def main() -> None:
        async with stagelight.llm(**MODEL) as call, asyncio.timeout(0.01):
            async for _ in call.stream(never()):
                pass

    with capture() as captured:
        with pytest.raises(TimeoutError):
            asyncio.run(main())

        assert (captured.call("llm").outcome, captured.call("llm").error_type) == ("timeout", "TimeoutError")


class CallerError(Exception):
    """What the consumer of a stream raises."""


class ProviderError(Exception):
    """What the source of a stream raises."""


@pytest.mark.parametrize(
    ("error", "outcome", "kind"),
    [
        (CallerError, "error", f"{__name__}.CallerError"),
        (ProviderError, "provider_aborted", f"{__name__}.ProviderError"),
    ],
)
def test_the_error_that_leaves_the_block_counts(error: type[Exception], outcome: str, kind: str) -> None:
    """An error of the consumer is the call's error; one that came out of the source is the provider's."""
    with capture() as captured:
        with pytest.raises(error):
            _consume(error)

        assert (captured.call("llm").outcome, captured.call("llm").error_type) == (outcome, kind)


def _failing() -> Iterator[int]:
    yield 0
    yield 1
    raise ProviderError


def _consume(error: type[Exception]) -> None:
    with stagelight.llm(**MODEL) as call:
        for item in call.stream(_failing()):
            if error is CallerError and item == 1:
                raise error


def test_a_call_without_a_block_ends_only_by_hand() -> None:
    """``start`` and ``stream``: the stream's outcome is kept for ``end``, which is the caller's to call."""
    with capture() as captured:
        call = stagelight.llm.start(**MODEL)
        list(call.stream("ab"))
        assert captured.calls == ()
        call.end()

        assert captured.call("llm").outcome == "completed"


def test_empty_chunks_are_no_first_token() -> None:
    """Time to first chunk takes any chunk, time to first token the first that is not empty."""
    clock = Clock()

    def source(items: list[Any]) -> Iterator[Any]:
        for item in items:
            clock.advance(1.0)
            yield item

    with capture(clock=clock) as captured:
        with stagelight.turn("answer"):
            with stagelight.llm(**MODEL) as call:
                list(call.stream(source(["", None, b"", "text"])))
            with stagelight.tts(**MODEL) as call:
                list(call.stream(source([b"", bytearray(), memoryview(b""), memoryview(b"RIFF")])))
        turn = captured.turn("answer")

    assert captured.call("llm").attributes[a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] == 1.0
    assert (turn.time_to_first_token_s, turn.time_to_first_audio_s) == (4.0, 8.0)


def test_two_streams_of_one_call_end_it_together() -> None:
    """A call stays open until its block and all its streams have ended."""
    with capture() as captured:
        with stagelight.llm(**MODEL) as call:
            first, second = call.stream(iter("ab")), call.stream(iter("cd"))
        list(first)
        assert captured.calls == ()
        list(second)

        assert captured.call("llm").attributes[a.STAGELIGHT_STREAM_CHUNKS] == 4


def test_streaming_from_many_threads_ends_once() -> None:
    """Streams of one call pulled and dropped in threads at once: one end, all chunks counted."""
    from concurrent.futures import ThreadPoolExecutor

    def drain(call: Call) -> int:
        return sum(1 for _ in call.stream(range(100)))

    with capture() as captured:
        with stagelight.turn("answer"), stagelight.llm(**MODEL) as call, ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(drain, [call] * 16)) == 1600

        assert [one.outcome for one in captured.calls] == ["completed"]
        assert captured.turn("answer").outcome == "completed"
