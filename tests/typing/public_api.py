"""Every public call as an application would write it; checked by mypy in strict mode, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import assert_type

import stagelight
from stagelight.stages import Call, Turn
from stagelight.testing import Clock, capture


def words() -> Iterator[str]:
    yield "a"


async def later_words() -> AsyncIterator[str]:
    yield "a"


def configuring() -> None:
    done = stagelight.configure(semconv="latest", strict=True, instrument=False)
    assert_type(done.joined, bool)
    assert_type(done.instrumented, tuple[str, ...])
    assert_type(stagelight.flush(1.0), bool)
    assert_type(stagelight.flush(timeout=1.0), bool)
    assert_type(stagelight.shutdown(), bool)
    assert_type(stagelight.__version__, str)


def a_turn() -> None:
    with stagelight.turn(
        "answer",
        conversation_id="c",
        feature="help",
        variant="B",
        tenant="acme",
        route="/ask",
        user_id="u",
        session_id="s",
    ) as turn:
        assert_type(turn.cost_so_far, Decimal)
        stagelight.identify(
            user_id="u", session_id=None, tenant="acme", feature="f", variant="v", route="r", conversation_id="c"
        )
        for word in turn.stream(words()):
            assert_type(word, str)
    with stagelight.job("ingest", feature="docs", tenant="acme"):
        pass


def stages() -> None:
    with stagelight.embedding(
        provider="openai", model="m", dimensions=8, server_address="localhost", server_port=1
    ) as call:
        assert_type(call, Call)
        call.record(object())
    with stagelight.retrieval(provider="qdrant", source="docs", top_k=5, mode="hybrid", filtered=False) as call:
        call.results(scores=[0.5], metric="cosine", higher_is_better=True)
        call.results(count=3)
    with stagelight.rerank(provider="cohere", model="m", top_k=3):
        pass
    with stagelight.llm(
        provider="acme",
        model="m",
        operation="chat",
        stream=True,
        temperature=0.5,
        top_p=1,
        max_tokens=10,
        service_tier="flex",
        conversation_id="c",
        server_address="localhost",
        server_port=1,
    ) as call:
        for word in call.stream(words()):
            assert_type(word, str)
        call.usage(
            input_tokens=1,
            output_tokens=2,
            cache_read_tokens=3,
            cache_write_tokens={"5m": 1},
            counted=True,
            searches=None,
        )
        call.usage(audio_seconds=1.5)
        call.response(model="m", id="r", finish_reasons=["stop"])
        call.cost(Decimal("0.1"))
        call.cost("0.1", currency="USD")
    with stagelight.tts(
        provider="openai", model="m", voice="v", format="wav", characters=3, server_address="a", server_port=1
    ) as call:
        call.usage(characters=3)
    with stagelight.stt(provider="openai", model="m"), stagelight.tool("t"), stagelight.memory():
        pass
    with stagelight.parse("pdf", provider="own"), stagelight.chunk(), stagelight.enrich(), stagelight.store("x"):
        pass


async def asynchronous() -> None:
    async with stagelight.turn("answer"), stagelight.llm(provider="acme", model="m") as call:
        async for word in call.stream(later_words()):
            assert_type(word, str)


def by_hand() -> None:
    call = stagelight.llm.start(provider="acme", model="m")
    assert_type(call, Call)
    with call.active():
        pass
    call.end(outcome="client_abandoned")
    call.fail(ValueError())
    assert_type(call.live, bool)
    turn = stagelight.turn.start("answer")
    turn.end()
    assert isinstance(turn, Turn)


def facts() -> None:
    stagelight.cache("embedding", hit=True)
    stagelight.evaluation("groundedness", score=0.9, label="pass")
    stagelight.feedback(score=1, comment_theme="too long", kind="thumbs")
    current = stagelight.current()
    current.usage(input_tokens=1)
    current.response(model="m")
    current.results(count=1)
    current.cost(1)
    current.record(object())
    current.end()
    for word in current.stream(words()):
        assert_type(word, str)
    with current.active():
        pass


@stagelight.tool("lookup")
async def lookup(key: str) -> int:
    return len(key)


@stagelight.turn("answer", feature="help")
def answer(question: str) -> Iterator[str]:
    yield question


@stagelight.job("ingest")
def ingest() -> None:
    return None


async def decorated() -> None:
    assert_type(await lookup("k"), int)
    assert_type(next(answer("q")), str)
    ingest()


def a_test_of_an_application() -> None:
    with capture(clock=Clock(tick_s=0.1), ids=True, id_key="0123456789abcdef" * 2) as captured:
        pass
    assert_type(captured.turn("answer").cost, Decimal | None)
    assert_type(captured.call("llm").outcome, str)
    assert_type(captured.cost, Decimal)
    for call in captured.calls:
        assert_type(call.duration_s, float)
    for point in captured.metric("gen_ai.client.operation.duration"):
        assert_type(point.value, float)
