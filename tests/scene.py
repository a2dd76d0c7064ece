"""A small scene of turns, calls, failures and a ledger, for the tests of the reading interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from stagelight.sources import Window
from stored import T0, S, logs, record, span, store, traces, usage

ALL = Window(T0, T0 + 100 * S)
TRACE = "0" * 31


def call(number: int, stage: str, *, trace: int, parent: int, at: float, lasts: float, **more: object) -> Span:
    """A call of a stage, as the instrumentation sends it."""
    attributes = {"stagelight.stage": stage, "stagelight.outcome": "completed", **more.pop("attributes", {})}  # type: ignore[dict-item]
    return span(number, trace=trace, parent=parent, at=at, lasts=lasts, attributes=attributes, **more)


def turn(number: int, *, trace: int, at: float, lasts: float, **more: object) -> Span:
    """A turn, as the instrumentation sends it."""
    attributes = {
        "stagelight.stage": "turn",
        "gen_ai.workflow.name": "answer",
        "stagelight.outcome": "completed",
        **more.pop("attributes", {}),  # type: ignore[dict-item]
    }
    return span(
        number, trace=trace, at=at, lasts=lasts, name="invoke_workflow answer", attributes=attributes, **more
    )  # fmt: skip


def _spans() -> list[Span]:
    """Trace 1: a server span over a turn over three calls, one nested. Trace 2: a turn in a turn, the inner one fails.
    Trace 3: a plain call. Trace 4: a root that failed by itself."""
    broken = {"error.type": "openai.RateLimitError", "stagelight.outcome": "error"}
    return [
        span(1, at=0, lasts=5, name="POST /ask", kind=Span.SPAN_KIND_SERVER),
        turn(
            2,
            trace=1,
            parent=1,
            at=0.5,
            lasts=4,
            attributes={
                "stagelight.feature": "help",
                "stagelight.tenant": "acme",
                "user.hash": "h1:k:1",
                "gen_ai.conversation.id": "c1",
                "stagelight.turn.time_to_first_token": 1.25,
                "stagelight.turn.time_to_first_audio": 2.5,
                "stagelight.turn.cost": 0.000412,
                "stagelight.turn.cost_status": "exact",
                "stagelight.turn.calls": 3,
                "stagelight.turn.input_tokens": 900,
                "stagelight.turn.output_tokens": 120,
                "stagelight.turn.share.llm": 0.75,
                "stagelight.turn.share.other": 0.25,
            },
        ),
        span(3, parent=2, at=1, lasts=3, name="work"),
        call(
            4,
            "llm",
            trace=1,
            parent=3,
            at=1,
            lasts=2,
            attributes={"gen_ai.request.model": "gpt", "gen_ai.response.time_to_first_chunk": 0.5},
        ),
        call(5, "embedding", trace=1, parent=2, at=0.5, lasts=0.25, attributes={"gen_ai.request.model": "emb"}),
        call(6, "tts", trace=1, parent=3, at=3, lasts=1, attributes={"gen_ai.request.model": "tts-1"}),
        turn(1, trace=2, at=10, lasts=2, error=True, attributes={**broken, "stagelight.turn.calls": 1}),
        turn(2, trace=2, parent=1, at=10.5, lasts=1, error=True, attributes=broken),
        call(
            3,
            "llm",
            trace=2,
            parent=2,
            at=10.5,
            lasts=1,
            error=True,
            attributes={**broken, "gen_ai.request.model": "gpt", "gen_ai.provider.name": "openai"},
        ),
        span(4, trace=2, parent=3, at=10.5, lasts=1, name="POST", kind=Span.SPAN_KIND_CLIENT, error=True),
        span(1, trace=3, at=20, lasts=4, attributes={"stagelight.stage": "llm", "gen_ai.request.model": "gpt"}),
        span(1, trace=4, at=30, lasts=1, name="job", error=True),
    ]


def _usage() -> list[object]:
    return [
        usage(
            2, trace=1, stage="llm", model="gpt", feature="help", tenant="acme", user="h1:k:1", cost=0.1,
            status="exact", input_tokens=900, output_tokens=120, cached_tokens=512,
        ),
        usage(3, trace=1, stage="tts", model="tts-1", feature="help", cost=0.2, status="estimated", characters=1200,
              audio_seconds=2.5),
        usage(11, trace=2, stage="llm", model="gpt", user="h1:k:1", cost=0.0000001, status="partial",
              missing=["audio_output"], input_tokens=10),
        usage(21, trace=3, stage="llm", model="new", status="unpriced", reason="unknown_model"),
        usage(22, stage="llm", status="unpriced", reason="no_usage"),
    ]  # fmt: skip


def requests() -> list[Any]:
    """The scene as a program sends it."""
    return [
        traces(*_spans()),
        logs(*_usage(), record("hello", at=1, trace=1, severity_number=17), record({"k": [1]}, at=40), service="app"),
        logs(record("other", at=41, event_name="tick"), service="other"),
    ]


def write_scene(path: Path) -> None:
    """Make a database with the scene."""
    store(path, *requests())
