"""A stream under any order of actions: same items and errors as its source, one end, one outcome, nothing leaked."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import pytest
import stagelight
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from stagelight._calls import Call
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.testing import Captured, Clock, capture

MODEL = {"provider": "acme", "model": "acme-1"}


class ProviderError(Exception):
    """What a source raises."""


class CallerError(Exception):
    """What a caller throws in, and no source handles."""


class HandledError(Exception):
    """What a caller throws in, and a patient source handles."""


class Seen(NamedTuple):
    """What one action gave."""

    kind: str
    value: object = None


ERRORS = (CallerError, HandledError, TimeoutError, asyncio.CancelledError, KeyboardInterrupt)
LENGTH = 4


def _generator() -> Iterator[Any]:
    for number in range(LENGTH):
        sent = yield number
        while sent is not None:
            sent = yield ("echo", sent)
    return "done"


def _patient() -> Iterator[Any]:
    for number in range(LENGTH):
        try:
            yield number
        except HandledError:
            yield "handled"


def _failing() -> Iterator[Any]:
    yield 0
    yield 1
    raise ProviderError


def _slow() -> Iterator[Any]:
    yield 0
    raise TimeoutError


class _Numbers:
    """An iterator that is no generator."""

    def __init__(self) -> None:
        self._numbers = iter(range(LENGTH))

    def __iter__(self) -> _Numbers:
        return self

    def __next__(self) -> int:
        return next(self._numbers)


class _Response:
    """An iterable with a ``close`` of its own, as the streams of client libraries are."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[int]:
        yield from range(LENGTH)

    def close(self) -> str:
        self.closed += 1
        return "closed"


SOURCES: dict[str, Callable[[], Any]] = {
    "generator": _generator,
    "patient generator": _patient,
    "failing generator": _failing,
    "slow generator": _slow,
    "iterator": _Numbers,
    "list": lambda: list(range(LENGTH)),
    "response": _Response,
}

Action = tuple[str, Any]
ACTIONS = st.lists(
    st.one_of(
        st.just(("next", None)),
        st.just(("next", None)),
        st.tuples(st.just("send"), st.sampled_from([None, "x"])),
        st.tuples(st.just("throw"), st.sampled_from(ERRORS)),
        st.just(("close", None)),
        st.just(("collect", None)),
    ),
    max_size=8,
)


class _Bare:
    """The source as a caller would use it without us: pulls go to its one iterator, the rest to itself."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._iterator = iter(source)

    def __next__(self) -> Any:
        return next(self._iterator)

    def __getattr__(self, name: str) -> Any:
        if name == "close" and not hasattr(self._source, "close"):
            return lambda: None  # closing a list is allowed of a stream and does nothing
        return getattr(self._source, name)


def _act(target: Any, action: Action) -> Seen:  # noqa: PLR0911 - one line per action
    verb, argument = action
    try:
        if verb == "collect":
            gc.collect(0)
            return Seen("collected")
        if verb == "next":
            return Seen("item", next(target))
        if verb == "send":
            return Seen("item", target.send(argument))
        if verb == "throw":
            return Seen("item", target.throw(argument()))
        return Seen("closed", target.close())
    except StopIteration as end:
        return Seen("stop", end.value)
    except BaseException as error:  # noqa: BLE001 - compared with what the bare source raises
        return Seen("raised", type(error))


_BY_CLASS = {TimeoutError: "timeout", asyncio.CancelledError: "cancelled", KeyboardInterrupt: "cancelled"}


def _expected(actions: list[Action], seen: list[Seen]) -> str:
    """The outcome that the first decisive action has."""
    for (verb, argument), result in zip(actions, seen, strict=True):
        if verb == "close":
            return "client_abandoned"
        if result.kind == "stop":
            return "completed"
        if result.kind == "raised" and result.value is not AttributeError:
            own = verb == "throw" and result.value is argument
            kind: Any = result.value
            return _BY_CLASS.get(kind, "client_abandoned" if own else "provider_aborted")
    return "client_abandoned"


def _one_end(captured: Captured) -> str:
    """The outcome of the one call, after checking that there is exactly one end everywhere."""
    (call,) = captured.calls
    (point,) = captured.metric(m.STAGELIGHT_STREAM_OUTCOMES) or captured.metric(m.GEN_AI_CLIENT_OPERATION_DURATION)
    assert (point.count or point.value) == 1
    assert {one.value for one in captured.metric(m.STAGELIGHT_CALLS_IN_FLIGHT)} == {0}
    return call.outcome


@settings(deadline=None, max_examples=250)
@given(name=st.sampled_from(sorted(SOURCES)), actions=ACTIONS)
def test_a_stream_is_its_source_and_ends_once(name: str, actions: list[Action]) -> None:
    """Any order of next, send, throw, close and garbage collection, dropped at the end if it has not ended."""
    bare = _Bare(SOURCES[name]())
    expected = [_act(bare, action) for action in actions]
    with capture() as captured:
        with stagelight.llm(**MODEL) as call:
            before = otel_context.get_current()
            stream = call.stream(SOURCES[name]())
            seen = []
            for action in actions:
                seen.append(_act(stream, action))
                assert otel_context.get_current() is before
            del stream
        assert stagelight.current().live is False

        assert seen == expected
        assert _one_end(captured) == _expected(actions, expected)


async def _agenerator() -> Any:
    for number in range(LENGTH):
        await asyncio.sleep(0)
        sent = yield number
        while sent is not None:
            sent = yield ("echo", sent)


async def _apatient() -> AsyncIterator[Any]:
    for number in range(LENGTH):
        await asyncio.sleep(0)
        try:
            yield number
        except HandledError:
            yield "handled"


async def _afailing() -> AsyncIterator[Any]:
    await asyncio.sleep(0)
    yield 0
    raise ProviderError


class _Anumbers:
    """An async iterator that is no generator."""

    def __init__(self) -> None:
        self._numbers = iter(range(LENGTH))

    def __aiter__(self) -> _Anumbers:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        try:
            return next(self._numbers)
        except StopIteration:
            raise StopAsyncIteration from None


class _Aresponse:
    """An async iterable with a coroutine ``close``, as the streams of client libraries are."""

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(LENGTH):
            await asyncio.sleep(0)
            yield number

    async def close(self) -> str:
        return "closed"


ASOURCES: dict[str, Callable[[], Any]] = {
    "generator": _agenerator,
    "patient generator": _apatient,
    "failing generator": _afailing,
    "iterator": _Anumbers,
    "response": _Aresponse,
}
AACTIONS = st.lists(
    st.one_of(
        st.just(("next", None)),
        st.just(("next", None)),
        st.tuples(st.just("send"), st.sampled_from([None, "x"])),
        st.tuples(st.just("throw"), st.sampled_from(ERRORS[:4])),
        st.just(("close", None)),
        st.just(("cancel", None)),
        st.just(("timeout", None)),
        st.just(("collect", None)),
    ),
    max_size=7,
)


class _Abare:
    """The source as a caller would use it without us."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._iterator = aiter(source)

    def __anext__(self) -> Awaitable[Any]:
        return self._iterator.__anext__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    async def aclose(self) -> Any:
        if hasattr(self._source, "aclose"):
            return await self._source.aclose()
        return await self._source.close() if hasattr(self._source, "close") else None


async def _aact(target: Any, action: Action) -> Seen:  # noqa: PLR0911 - one line per action
    verb, argument = action
    try:
        if verb == "collect":
            gc.collect(0)
            return Seen("collected")
        if verb == "next":
            return Seen("item", await target.__anext__())
        if verb == "send":
            return Seen("item", await target.asend(argument))
        if verb == "throw":
            return Seen("item", await target.athrow(argument()))
        if verb == "timeout":
            async with asyncio.timeout(0):
                return Seen("item", await target.__anext__())
        if verb == "cancel":
            task = asyncio.ensure_future(_pull(target))
            await asyncio.sleep(0)
            task.cancel()
            return Seen("item", await task)
        return Seen("closed", await target.aclose())
    except StopAsyncIteration:
        return Seen("stop")
    except BaseException as error:  # noqa: BLE001 - compared with what the bare source raises
        return Seen("raised", type(error))


async def _pull(target: Any) -> Any:
    return await target.__anext__()


def _aexpected(actions: list[Action], seen: list[Seen]) -> str:
    inside = [
        # The source of a timed-out pull sees the cancellation, the timeout is made around it.
        (
            action,
            Seen("raised", asyncio.CancelledError) if action[0] == "timeout" and one.value is TimeoutError else one,
        )
        for action, one in zip(actions, seen, strict=True)
    ]
    return _expected([action for action, _ in inside], [one for _, one in inside])


@settings(deadline=None, max_examples=250)
@given(name=st.sampled_from(sorted(ASOURCES)), actions=AACTIONS)
def test_an_async_stream_is_its_source_and_ends_once(name: str, actions: list[Action]) -> None:
    """Any order of anext, asend, athrow, aclose, cancellation of the consumer, timeouts and garbage collection."""

    async def bare() -> list[Seen]:
        target = _Abare(ASOURCES[name]())
        return [await _aact(target, action) for action in actions]

    async def ours() -> list[Seen]:
        seen = []
        async with stagelight.llm(**MODEL) as call:
            before = otel_context.get_current()
            stream = call.stream(ASOURCES[name]())
            for action in actions:
                seen.append(await _aact(stream, action))
                assert otel_context.get_current() is before
            del stream
        return seen

    expected = asyncio.run(bare())
    with capture() as captured:
        seen = asyncio.run(ours())
        gc.collect(0)

        assert seen == expected
        assert _one_end(captured) == _aexpected(actions, expected)


class _Manager:
    """A context manager whose block gives the items, as ``client.stream(...)``."""

    def __init__(self, items: Callable[[], Any], error: type[BaseException] | None = None) -> None:
        self._items = items
        self._error = error
        self.log: list[str] = []

    def _entered(self) -> Any:
        self.log.append("entered")
        self.inside: Any = stagelight.current()
        if self._error is not None:
            raise self._error
        return self._items()

    def _left(self, kind: type[BaseException] | None) -> bool:
        self.log.append("left" if kind is None else kind.__name__)
        return kind is HandledError

    def __enter__(self) -> Any:
        return self._entered()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return self._left(kind)


class _Amanager(_Manager):
    async def __aenter__(self) -> Any:
        return self._entered()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return self._left(kind)

    __enter__ = None  # type: ignore[assignment]  # an async manager only
    __exit__ = None  # type: ignore[assignment]


def _use(stream: Any, pulls: int, error: type[BaseException] | None) -> list[Any]:
    with stream as entered:
        got = [item for item, _ in zip(entered, range(pulls), strict=False)]
        if error is not None:
            raise error
    return got


async def _ause(stream: Any, pulls: int, error: type[BaseException] | None) -> list[Any]:
    got = []
    async with stream as entered:
        for _ in range(pulls):
            try:
                got.append(await anext(entered))
            except StopAsyncIteration:
                break
        if error is not None:
            raise error
    return got


BLOCKS = {
    "all": (LENGTH + 1, None, "completed", "left"),
    "part": (2, None, "client_abandoned", "left"),
    "none": (0, None, "client_abandoned", "left"),
    "error": (1, CallerError, "client_abandoned", "CallerError"),
    "swallowed": (1, HandledError, "client_abandoned", "HandledError"),
    "cancelled": (1, asyncio.CancelledError, "cancelled", "CancelledError"),
}


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("pulls", "error", "outcome", "left"), BLOCKS.values(), ids=BLOCKS)
def test_a_context_manager_keeps_its_block(
    pulls: int, error: type[BaseException] | None, outcome: str, left: str, awaited: bool
) -> None:
    """The manager is entered and left as without us, swallows what it swallows, and the stream ends with its block."""
    manager = _Amanager(_agenerator) if awaited else _Manager(_generator)
    with capture() as captured:
        with stagelight.llm(**MODEL) as call:
            stream: Any = call.stream(manager)
            caught: type[BaseException] | None = None
            try:
                asyncio.run(_ause(stream, pulls, error)) if awaited else _use(stream, pulls, error)
            except BaseException as raised:  # noqa: BLE001 - compared below
                caught = type(raised)
        assert manager.inside is call
        assert caught is (None if error is HandledError else error)

        assert manager.log == ["entered", left]
        assert _one_end(captured) == outcome


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
def test_a_manager_that_cannot_be_entered_is_the_providers_failure(awaited: bool) -> None:
    """What ``__enter__`` raises reaches the caller and is the outcome."""
    manager = _Amanager(_agenerator, ProviderError) if awaited else _Manager(_generator, ProviderError)
    with capture() as captured:
        with stagelight.llm(**MODEL) as call:
            stream: Any = call.stream(manager)
            with pytest.raises(ProviderError):
                asyncio.run(_ause(stream, 1, None)) if awaited else _use(stream, 1, None)

        assert _one_end(captured) == "provider_aborted"


def test_a_stream_is_of_its_sources_kind() -> None:
    """Frameworks tell sync from async by methods: the stand-in has those of its source and not the other's."""
    with capture(), stagelight.llm(**MODEL) as call:
        kinds = {
            name: (hasattr(stream, "__next__"), hasattr(stream, "__anext__"))
            for name, stream in {
                "sync": call.stream(_generator()),
                "async": call.stream(_agenerator()),
                "manager": call.stream(_Manager(_generator)),
                "list": call.stream([1]),
            }.items()
        }

    assert kinds == {"sync": (True, False), "async": (False, True), "manager": (True, False), "list": (True, False)}


def test_a_clients_stream_is_closed_itself() -> None:
    """``close`` goes to the source, which holds the connection, not to an iterator made of it."""
    source = _Response()
    with capture(), stagelight.llm(**MODEL) as call:
        stream: Any = call.stream(source)
        next(stream)

        assert (stream.close(), source.closed) == ("closed", 1)


def test_unknown_attributes_are_the_sources() -> None:
    """What the stand-in does not know is asked of the source; what neither knows is an ``AttributeError``."""
    source = _Response()
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
