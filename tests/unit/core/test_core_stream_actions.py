"""A stream under any order of actions: same items and errors as its source, one end, one outcome, nothing leaked."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from typing import Any, NamedTuple

import stagelight
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from stagelight.testing import capture
from stream_sources import ASOURCES, SOURCES, CallerError, HandledError, one_end

MODEL = {"provider": "acme", "model": "acme-1"}


class Seen(NamedTuple):
    """What one action gave."""

    kind: str
    value: object = None


ERRORS = (CallerError, HandledError, TimeoutError, asyncio.CancelledError, KeyboardInterrupt)

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
        assert one_end(captured) == _expected(actions, expected)


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
        assert one_end(captured) == _aexpected(actions, expected)
