"""Work of a turn in threads, pools and tasks: every call is counted, in its own turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import stagelight
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from stagelight.conventions import attributes as a
from stagelight.testing import capture

LLM = {"provider": "acme", "model": "acme-1"}


def _in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)


def _in_pool(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(2) as pool:
        futures: list[Future[None]] = [pool.submit(work)]
        for future in futures:
            future.result(60)


def _in_timer(work: Callable[[], None]) -> None:
    timer = threading.Timer(0.0, work)
    timer.start()
    timer.join(60)


async def _in_task(work: Callable[[], None]) -> None:
    async def task() -> None:
        work()

    await asyncio.create_task(task())


async def _to_thread(work: Callable[[], None]) -> None:
    await asyncio.to_thread(work)


async def _in_executor(work: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)


@pytest.fixture
def threads_carry_context() -> Iterator[None]:
    """What ``configure`` does for threads and executors."""
    instrumentor = ThreadingInstrumentor()
    was = instrumentor.is_instrumented_by_opentelemetry
    if not was:
        instrumentor.instrument()
    yield
    if not was:
        instrumentor.uninstrument()


def _work(name: str) -> Callable[[], None]:
    def work() -> None:
        with stagelight.tool(name), stagelight.llm(provider=name, model="m") as call:
            call.cost("0.1")

    return work


@pytest.mark.usefixtures("threads_carry_context")
@pytest.mark.parametrize("place", [_in_thread, _in_pool, _in_timer, _in_task, _to_thread, _in_executor])
def test_two_turns_at_once_never_mix(place: Any) -> None:
    """Two concurrent turns that hand work to threads, pools or tasks each get their own calls and cost."""

    def turns(name: str, meeting: threading.Barrier) -> None:
        with stagelight.turn(name):
            meeting.wait(60)
            for _ in range(3):
                place(_work(name))
            meeting.wait(60)

    async def aturn(name: str) -> None:
        async with stagelight.turn(name):
            for _ in range(3):
                await place(_work(name))
                await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(aturn("one"), aturn("two"))

    with capture() as captured:
        if asyncio.iscoroutinefunction(place):
            asyncio.run(both())
        else:
            meeting = threading.Barrier(2)
            threads = [threading.Thread(target=turns, args=(name, meeting)) for name in ("one", "two")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
        found = {name: captured.turn(name) for name in ("one", "two")}

    assert {name: turn.cost for name, turn in found.items()} == {"one": Decimal("0.3"), "two": Decimal("0.3")}
    assert {
        name: sorted({str(call.attributes.get(a.GEN_AI_PROVIDER_NAME, call.name)) for call in turn.calls})
        for name, turn in found.items()
    } == {"one": ["execute_tool one", "one"], "two": ["execute_tool two", "two"]}


def test_many_calls_of_one_turn_are_all_counted() -> None:
    """Calls that end in eight threads at once lose nothing."""

    def work(turn: Any) -> None:
        with turn.active():
            for _ in range(100):
                with stagelight.llm(**LLM) as call:
                    call.usage(input_tokens=1)
                    call.cost("0.01")

    with capture() as captured:
        with stagelight.turn("answer") as turn:
            threads = [threading.Thread(target=work, args=(turn,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
        found = captured.turn("answer")

        assert found.cost == Decimal("8.00") == captured.cost
        assert found.attributes[a.STAGELIGHT_TURN_CALLS] == found.attributes[a.STAGELIGHT_TURN_INPUT_TOKENS] == 800
        assert len(captured.ledger) == 800
