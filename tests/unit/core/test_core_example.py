"""The example of the documentation, as an application would write it, and what a test of that application sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
import stagelight
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.facts import STAGES
from stagelight.testing import Clock, capture

openai = pytest.importorskip("openai.types")


class Hit(NamedTuple):
    """A result of the search."""

    text: str
    score: float


class Order(NamedTuple):
    """What the tool finds."""

    key: str


SENT: list[str] = []
PLAYED: list[bytes] = []


def create() -> Any:
    """The embeddings of the real SDK."""
    return openai.CreateEmbeddingResponse.model_validate(
        {
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
            "usage": {"prompt_tokens": 8, "total_tokens": 8},
        }
    )


def search(vector: Any) -> list[Hit]:
    return [Hit("a", 0.9), Hit("b", 0.7)]


def generate(question: str, hits: list[Hit]) -> Iterator[str]:
    yield from ("It ", "does.")


async def speak(answer: str) -> AsyncIterator[bytes]:
    yield answer.encode()


@stagelight.tool("lookup_order")
async def lookup_order(order_id: str) -> Order:
    return Order(order_id)


async def answer(question: str) -> str:
    with stagelight.turn("answer", conversation_id="c-1", feature="help", variant="B"):
        stagelight.identify(user_id="user-1", tenant="acme")

        with stagelight.embedding(provider="openai", model="text-embedding-3-small") as call:
            response = create()
            call.record(response)

        with stagelight.retrieval(provider="qdrant", source="docs", top_k=5, mode="hybrid") as call:
            hits = search(response.data[0].embedding)
            call.results(scores=[hit.score for hit in hits], metric="cosine", higher_is_better=True)

        text = ""
        with stagelight.llm(provider="acme", model="acme-large", stream=True) as call:
            for delta in call.stream(generate(question, hits)):
                SENT.append(delta)
                text += delta
            call.usage(input_tokens=900, output_tokens=120, cache_read_tokens=512)
            call.response(model="acme-large-2", finish_reasons=["stop"])

        async with stagelight.tts(provider="openai", model="tts-1", voice="coral") as call:
            async for audio in call.stream(speak(text)):
                PLAYED.append(audio)  # noqa: PERF401 - as the documentation has it
            call.usage(characters=len(text))

        stagelight.cache("embedding", hit=True)
        stagelight.evaluation("groundedness", score=0.91)
        stagelight.feedback(score=1, comment_theme="too long")
        await lookup_order("o-1")
    return text


def test_the_example_runs_as_written() -> None:
    """Every line does what the documentation says: stages in order, exact costs, one line of the ledger per price."""
    with capture(clock=Clock(tick_s=0.125), ids=True, id_key="0123456789abcdef" * 2) as captured:
        assert asyncio.run(answer("Does it?")) == "It does."
        turn = captured.turn("answer")
        shares = [value for key, value in turn.attributes.items() if key.startswith(f"{a.STAGELIGHT_TURN_SHARE}.")]

        assert [(call.name, call.cost_status) for call in turn.calls] == [
            ("embeddings text-embedding-3-small", "exact"),
            ("retrieval docs", None),
            ("chat acme-large", "unpriced"),
            ("text_to_speech tts-1", "exact"),
            ("execute_tool lookup_order", None),
        ]
        assert captured.call("embedding").attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == 8
        assert turn.cost == captured.cost == Decimal("0.00000016") + 8 * Decimal("0.000015")
        assert turn.cost_status == "partial"
        assert turn.time_to_first_token_s is not None
        assert turn.time_to_first_audio_s is not None
        assert turn.time_to_first_token_s < turn.time_to_first_audio_s < turn.duration_s
        assert sum(shares) == pytest.approx(1.0)
        assert [event.name for event in captured.events if event.name != "stagelight.usage.recorded"] == [
            "gen_ai.evaluation.result",
            "stagelight.feedback.recorded",
        ]
        assert len(captured.ledger) == 3
        assert [point.value for point in captured.metric(m.STAGELIGHT_CACHE_LOOKUPS)] == [1]


def test_the_example_does_the_same_unconfigured() -> None:
    """Where nothing is configured the application behaves the same."""
    assert asyncio.run(answer("Does it?")) == "It does."


def test_the_verbs_are_the_stages() -> None:
    """Every stage has a verb of its name, and the public names are those of the documentation."""
    facts = {"identify", "cache", "evaluation", "feedback", "current"}
    life = {"configure", "flush", "shutdown"}

    assert set(stagelight.__all__) == {"turn", "job", *STAGES, *facts, *life, "__version__"}


def test_capture_finds_one_or_says_what_there_is() -> None:
    """A lookup that is not unique names what ended."""
    with capture() as captured:
        for name in ("one", "one", "two"):
            with stagelight.turn(name):
                pass

        assert captured.turn("two").calls == ()
        with pytest.raises(LookupError, match="2 turns are named 'one'"):
            captured.turn("one")
        with pytest.raises(LookupError, match="0 calls have the stage 'llm'"):
            captured.call("llm")


def test_captures_nest_and_restore() -> None:
    """A capture inside a capture takes what happens in it; the outer one, its clock and prices come back."""
    clock = Clock()
    with capture(clock=clock) as outer:
        with capture() as inner, stagelight.tool("inner"):
            pass
        with stagelight.tool("outer"):
            clock.advance(1.0)

    assert [span.name for span in inner.spans] == ["execute_tool inner"]
    assert [(call.name, call.duration_s) for call in outer.calls] == [("execute_tool outer", 1.0)]
