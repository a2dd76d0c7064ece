"""Decorated functions of every kind behave as before, and each invocation is a scope of its own."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest
import stagelight
from opentelemetry import context as otel_context
from stagelight._calls import Call
from stagelight._turns import Turn
from stagelight.conventions import attributes as a
from stagelight.testing import Captured, capture

DECORATORS: dict[str, tuple[Callable[[], Any], str]] = {
    "turn": (lambda: stagelight.turn("work", feature="f"), "invoke_workflow work"),
    "job": (lambda: stagelight.job("work"), "job work"),
    "tool": (lambda: stagelight.tool("work"), "execute_tool work"),
}


class WorkError(Exception):
    """What decorated functions raise."""


def plain(left: int, right: int = 2, *, error: bool = False) -> int:
    """Add."""
    if error:
        raise WorkError
    return left + right


async def awaited(left: int, right: int = 2, *, error: bool = False) -> int:
    """Add later."""
    await asyncio.sleep(0)
    return plain(left, right, error=error)


def generated(count: int, *, error: bool = False) -> Generator[Any, Any, str]:
    """Count, echo, handle."""
    for number in range(count):
        try:
            sent = yield number
        except LookupError:
            sent = "handled"
        while sent is not None:
            sent = yield ("echo", sent)
    if error:
        raise WorkError
    return "done"


async def async_generated(count: int, *, error: bool = False) -> Any:
    """Count, echo, handle, later."""
    for number in range(count):
        await asyncio.sleep(0)
        try:
            sent = yield number
        except LookupError:
            sent = "handled"
        while sent is not None:
            sent = yield ("echo", sent)
    if error:
        raise WorkError


def _outcomes(captured: Captured) -> list[tuple[str, str, str | None]]:
    return [
        (span.name, str((span.attributes or {})[a.STAGELIGHT_OUTCOME]), (span.attributes or {}).get(a.ERROR_TYPE))  # type: ignore[misc]
        for span in captured.spans
    ]


@pytest.mark.parametrize("function", [plain, awaited, generated, async_generated])
def test_a_decorated_function_looks_the_same(function: Any) -> None:
    """Name, documentation, signature and kind are those of the function."""
    decorated = stagelight.tool("work")(function)

    assert (decorated.__name__, decorated.__doc__) == (function.__name__, function.__doc__)
    assert inspect.signature(decorated) == inspect.signature(function)
    for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert kind(decorated) == kind(function)


@pytest.mark.parametrize(("make", "name"), DECORATORS.values(), ids=DECORATORS)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_every_invocation_is_one_scope(make: Callable[[], Any], name: str, is_async: bool) -> None:
    """Values and errors pass; each invocation ends with its own outcome, also when several run at once."""
    decorate = make()
    if is_async:
        later = decorate(awaited)

        async def main() -> list[Any]:
            return await asyncio.gather(*(later(n) for n in range(3)), later(1, error=True), return_exceptions=True)

    else:
        now = decorate(plain)

        async def main() -> list[Any]:
            results: list[Any] = [now(number) for number in range(3)]
            with pytest.raises(WorkError) as raised:
                now(1, error=True)
            return [*results, raised.value]

    with capture() as captured:
        *values, error = asyncio.run(main())

        assert values == [2, 3, 4]
        assert type(error) is WorkError
        assert sorted(_outcomes(captured), key=str) == [
            *[(name, "completed", None)] * 3,
            (name, "error", f"{__name__}.WorkError"),
        ]


def test_the_scope_is_current_inside() -> None:
    """Inside a decorated tool ``current`` is its call, and calls inside a decorated turn are in the turn."""

    @stagelight.tool("inner")
    def inner() -> Any:
        return stagelight.current()

    @stagelight.turn("outer")
    def outer() -> Any:
        return inner()

    with capture() as captured:
        assert isinstance(outer(), Call)
        assert [call.name for call in captured.turn("outer").calls] == ["execute_tool inner"]


def _drive(generator: Any, steps: list[tuple[str, Any]]) -> list[Any]:
    seen: list[Any] = []
    for verb, argument in steps:
        try:
            seen.append(next(generator) if verb == "next" else getattr(generator, verb)(*argument))
        except StopIteration as end:
            seen.append(("stop", end.value))
        except BaseException as error:  # noqa: BLE001 - compared with what the function itself raises
            seen.append(type(error))
    return seen


async def _adrive(generator: Any, steps: list[tuple[str, Any]]) -> list[Any]:
    seen: list[Any] = []
    for verb, argument in steps:
        try:
            if verb == "next":
                seen.append(await anext(generator))
            else:
                seen.append(await getattr(generator, f"a{verb}")(*argument))
        except StopAsyncIteration:
            seen.append("stop")
        except BaseException as error:  # noqa: BLE001 - compared with what the function itself raises
            seen.append(type(error))
    return seen


STEPS: dict[str, tuple[list[tuple[str, Any]], bool, str, str | None]] = {
    "exhausted": ([("next", ())] * 4, False, "completed", None),
    "sent to": ([("next", ()), ("send", ("x",)), *[("next", ())] * 3], False, "completed", None),
    "handled": ([("next", ()), ("throw", (LookupError(),)), *[("next", ())] * 4], False, "completed", None),
    "thrown out": ([("next", ()), ("throw", (WorkError(),)), ("next", ())], False, "error", "WorkError"),
    "closed": ([("next", ()), ("close", ()), ("next", ())], False, "client_abandoned", None),
    "failed": ([("next", ())] * 4, True, "error", "WorkError"),
    "cancelled": ([("next", ()), ("throw", (asyncio.CancelledError(),))], False, "cancelled", None),
}


@pytest.mark.parametrize(("make", "name"), DECORATORS.values(), ids=DECORATORS)
@pytest.mark.parametrize(("steps", "error", "outcome", "kind"), STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_generator_is_driven_as_before(
    make: Callable[[], Any],
    name: str,
    steps: list[tuple[str, Any]],
    error: bool,
    outcome: str,
    kind: str | None,
    is_async: bool,
) -> None:
    """send, throw and close reach the function, its values, errors and return value come back, one scope ends."""

    async def compared() -> tuple[list[Any], list[Any]]:
        before = otel_context.get_current()
        decorated = make()(async_generated)(3, error=error)
        seen = await _adrive(decorated, steps)
        assert otel_context.get_current() is before
        return seen, await _adrive(async_generated(3, error=error), steps)

    with capture() as captured:
        if is_async:
            seen, expected = asyncio.run(compared())
        else:
            before = otel_context.get_current()
            seen = _drive(make()(generated)(3, error=error), steps)
            assert otel_context.get_current() is before
            expected = _drive(generated(3, error=error), steps)

        assert seen == expected
        assert _outcomes(captured) == [(name, outcome, kind and f"{__name__}.{kind}")]


def test_a_generator_that_never_runs_is_nothing() -> None:
    """Laziness is the function's: without a first step there is no scope."""

    @stagelight.turn("work")
    def work() -> Iterator[int]:
        yield 1

    with capture() as captured:
        work()
        gc.collect()

        assert captured.spans == ()


def test_a_dropped_generator_is_abandoned() -> None:
    """A generator left in the middle ends its scope when it is collected."""

    @stagelight.turn("work")
    async def later() -> AsyncIterator[int]:
        yield 1
        yield 2

    @stagelight.turn("work")
    def now() -> Iterator[int]:
        yield 1
        yield 2

    async def main() -> None:
        async for _ in later():
            break
        gc.collect()
        await asyncio.sleep(0.01)

    with capture() as captured:
        next(iter(now()))
        asyncio.run(main())

        assert _outcomes(captured) == [("invoke_workflow work", "client_abandoned", None)] * 2


def test_methods_keep_their_object() -> None:
    """A decorated method is a method."""

    class Store:
        @stagelight.tool("read")
        def read(self, key: str) -> tuple[Any, str]:
            return self, key

        @classmethod
        @stagelight.tool("make")
        def make(cls) -> Any:
            return cls

    with capture() as captured:
        store = Store()

        assert store.read("k") == (store, "k")
        assert Store.make() is Store
        assert [span.name for span in captured.spans] == ["execute_tool read", "execute_tool make"]


def test_recursion_nests() -> None:
    """A decorated function that calls itself is one scope per level."""

    @stagelight.turn("down")
    def down(levels: int) -> int:
        return down(levels - 1) + 1 if levels else 0

    with capture() as captured:
        assert down(3) == 3

        ids = [
            (span.context.span_id, span.parent.span_id if span.parent else None)
            for span in captured.spans
            if span.context
        ]
        assert [parent for _, parent in ids] == [*[own for own, _ in ids[1:]], None]


def test_a_decorator_is_made_before_configuration() -> None:
    """Decorating happens at import: the scope records to whatever is configured when the function is called."""
    work = stagelight.turn("work")(plain)
    with capture() as first:
        work(1)
    with capture() as second:
        work(1)

    assert (len(first.spans), len(second.spans)) == (1, 1)
    assert isinstance(stagelight.turn("work"), Turn)


def test_a_bare_decorator_takes_the_functions_name() -> None:
    """``@stagelight.tool`` without a name must not replace the function by a decorator."""

    @stagelight.tool
    def add(number: int) -> int:
        return number + 1

    @stagelight.turn
    async def answer() -> int:
        return add(3)

    with capture() as captured:
        assert asyncio.run(answer()) == 4

    assert ([call.name for call in captured.calls], [turn.name for turn in captured.turns]) == (
        ["execute_tool add"],
        ["invoke_workflow answer"],
    )
