"""Turns of a voice assistant as OTLP requests, with fixed figures: what the page tests look at."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from stagelight.conventions import attributes as names
from stagelight.conventions import events
from stored import any_value

MS = 1_000_000
SECOND = 1_000_000_000
CHAT_INPUT_RATE, CHAT_CACHED_RATE, CHAT_OUTPUT_RATE = Decimal("0.15"), Decimal("0.075"), Decimal("0.60")
SPEECH_RATE, EMBEDDING_RATE = Decimal(15), Decimal("0.02")
MILLION = Decimal(1_000_000)


@dataclass
class Traffic:
    """Spans and log records under construction; ids are drawn from a seed."""

    service: str = "voice-assistant"
    seed: int = 7
    traces: ExportTraceServiceRequest = field(default_factory=ExportTraceServiceRequest)
    logs: ExportLogsServiceRequest = field(default_factory=ExportLogsServiceRequest)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        resource_spans = self.traces.resource_spans.add()
        resource_logs = self.logs.resource_logs.add()
        for resource in (resource_spans.resource, resource_logs.resource):
            resource.attributes.add(key=names.SERVICE_NAME, value=any_value(self.service))
        self._spans = resource_spans.scope_spans.add()
        self._spans.scope.name = "stagelight"
        self._logs = resource_logs.scope_logs.add()

    def trace_id(self) -> bytes:
        """A new trace id."""
        return self.random.randbytes(16)

    def span(
        self,
        trace_id: bytes,
        name: str,
        start_ns: int,
        duration_ns: int,
        *,
        parent: bytes = b"",
        kind: int = Span.SPAN_KIND_INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> bytes:
        """Add a span and give its id."""
        span_id = self.random.randbytes(8)
        span = self._spans.spans.add(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent,
            name=name,
            kind=kind,
            start_time_unix_nano=start_ns,
            end_time_unix_nano=start_ns + duration_ns,
        )
        given = dict(attributes or {})
        if error:
            given[names.ERROR_TYPE] = error
            span.status.code = Status.STATUS_CODE_ERROR
        for key, item in given.items():
            span.attributes.add(key=key, value=any_value(item))
        return span_id

    def log(
        self, time_ns: int, body: str, *, trace_id: bytes = b"", span_id: bytes = b"", severity: str = "INFO"
    ) -> None:
        """Add a log line."""
        number = {"INFO": 9, "WARN": 13, "ERROR": 17}[severity]
        record = self._logs.log_records.add(
            time_unix_nano=time_ns, severity_text=severity, severity_number=number, trace_id=trace_id, span_id=span_id
        )
        record.body.string_value = body

    def ledger(self, time_ns: int, trace_id: bytes, span_id: bytes, attributes: Mapping[str, Any]) -> None:
        """Add the usage event of a call: what spend is summed from."""
        record = self._logs.log_records.add(
            time_unix_nano=time_ns, event_name=events.STAGELIGHT_USAGE_RECORDED, trace_id=trace_id, span_id=span_id
        )
        given = {names.STAGELIGHT_RECORD_KIND: "usage", **attributes}
        for key, item in given.items():
            record.attributes.add(key=key, value=any_value(item))

    def call(
        self,
        trace_id: bytes,
        name: str,
        start_ns: int,
        duration_ns: int,
        *,
        parent: bytes,
        attributes: Mapping[str, Any],
        error: str | None = None,
    ) -> bytes:
        """Add a call of a provider and, when it carries a cost status, its ledger event."""
        client = Span.SPAN_KIND_CLIENT
        event = {names.STAGELIGHT_OUTCOME: "error" if error else "completed", **attributes}
        # The components of a price are in the ledger only.
        given = {key: item for key, item in event.items() if not key.startswith(names.STAGELIGHT_COST_COMPONENTS)}
        span_id = self.span(
            trace_id, name, start_ns, duration_ns, parent=parent, kind=client, attributes=given, error=error
        )
        if names.STAGELIGHT_COST_STATUS in given:
            self.ledger(start_ns + duration_ns, trace_id, span_id, event)
        return span_id


def priced(components: Mapping[str, Decimal], source: str, model: str) -> dict[str, Any]:
    """Attributes of an exact cost."""
    total = sum(components.values(), Decimal(0))
    return {
        names.STAGELIGHT_COST_AMOUNT: float(total),
        names.STAGELIGHT_COST_CURRENCY: "USD",
        names.STAGELIGHT_COST_STATUS: "exact",
        names.STAGELIGHT_COST_SOURCE: "local",
        names.STAGELIGHT_COST_PRICE_SOURCE: source,
        names.STAGELIGHT_COST_MODEL: model,
        **{f"{names.STAGELIGHT_COST_COMPONENTS}.{part}": float(amount) for part, amount in components.items()},
    }


@dataclass(frozen=True)
class Turn:
    """Figures of one turn."""

    start_ns: int
    slowness: float = 1.0
    feature: str = "help"
    chat_error: str | None = None
    speech: bool = True
    chat_model: str = "gpt-4o-mini"
    input_tokens: int = 900
    cached_tokens: int = 512
    output_tokens: int = 120
    characters: int = 280
    outcome: str = "completed"


def add_turn(traffic: Traffic, turn: Turn) -> bytes:
    """Add a turn with its calls, ledger and log lines; give its trace id."""
    trace_id = traffic.trace_id()
    ms = MS * turn.slowness
    start, at = turn.start_ns, lambda offset: turn.start_ns + round(offset * ms)
    embedding, chat, speech = EMBEDDING_RATE * 14 / MILLION, _chat_cost(turn), SPEECH_RATE * turn.characters / MILLION
    failed = turn.chat_error is not None
    total = embedding + (Decimal(0) if failed else sum(chat.values(), Decimal(0)))
    total += speech if turn.speech and not failed else 0
    length = round((1180 if failed else 2140 if turn.speech else 1460) * ms)
    shares = {"embedding": 0.04, "retrieval": 0.02, "llm": 0.51, "tts": 0.38, "other": 0.05}
    if not turn.speech or failed:
        shares = {"embedding": 0.06, "retrieval": 0.03, "llm": 0.84, "other": 0.07}
    given: dict[str, Any] = {
        names.STAGELIGHT_STAGE: "turn",
        names.GEN_AI_OPERATION_NAME: "invoke_workflow",
        names.GEN_AI_WORKFLOW_NAME: "answer",
        names.STAGELIGHT_FEATURE: turn.feature,
        names.STAGELIGHT_TENANT: "acme",
        names.USER_HASH: "h1:k1:9f2c7a01d4",
        names.GEN_AI_CONVERSATION_ID: "c-1042",
        names.STAGELIGHT_OUTCOME: "error" if failed else turn.outcome,
        names.STAGELIGHT_TURN_COST: float(total),
        names.STAGELIGHT_TURN_COST_STATUS: "exact",
        names.STAGELIGHT_TURN_CALLS: 3 if failed or not turn.speech else 4,
        names.STAGELIGHT_TURN_INPUT_TOKENS: 14 + (0 if failed else turn.input_tokens),
        names.STAGELIGHT_TURN_OUTPUT_TOKENS: 0 if failed else turn.output_tokens,
        **{f"{names.STAGELIGHT_TURN_SHARE}.{stage}": share for stage, share in shares.items()},
    }
    if not failed:
        given[names.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN] = 0.52 * turn.slowness
        if turn.speech:
            given[names.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO] = 1.61 * turn.slowness
    root = traffic.span(trace_id, "invoke_workflow answer", start, length, attributes=given, error=turn.chat_error)
    shared = {names.STAGELIGHT_FEATURE: turn.feature, names.STAGELIGHT_TENANT: "acme"}
    _embedding(traffic, trace_id, root, (at(6), round(88 * ms)), shared)
    _retrieval(traffic, trace_id, root, (at(98), round(46 * ms)), shared)
    _chat(traffic, trace_id, root, turn, (at(150), round((1020 if failed else 1290) * ms)), shared)
    if turn.speech and not failed:
        _speech(traffic, trace_id, root, turn, (at(1445), round(690 * ms)), shared)
    traffic.log(at(148), "5 passages found for the question", trace_id=trace_id, span_id=root)
    if failed:
        traffic.log(at(1175), "the model could not be reached", trace_id=trace_id, span_id=root, severity="ERROR")
    return trace_id


def _chat_cost(turn: Turn) -> dict[str, Decimal]:
    return {
        "input": CHAT_INPUT_RATE * (turn.input_tokens - turn.cached_tokens) / MILLION,
        "cache_read": CHAT_CACHED_RATE * turn.cached_tokens / MILLION,
        "output": CHAT_OUTPUT_RATE * turn.output_tokens / MILLION,
    }


def _embedding(
    traffic: Traffic, trace_id: bytes, root: bytes, time: tuple[int, int], shared: Mapping[str, Any]
) -> None:
    model = "text-embedding-3-small"
    attributes = {
        **shared,
        names.STAGELIGHT_STAGE: "embedding",
        names.GEN_AI_OPERATION_NAME: "embeddings",
        names.GEN_AI_PROVIDER_NAME: "openai",
        names.GEN_AI_REQUEST_MODEL: model,
        names.GEN_AI_RESPONSE_MODEL: model,
        names.GEN_AI_USAGE_INPUT_TOKENS: 14,
        names.GEN_AI_EMBEDDINGS_DIMENSION_COUNT: 1536,
        names.SERVER_ADDRESS: "api.openai.com",
        **priced({"input": EMBEDDING_RATE * 14 / MILLION}, "genai-prices@0.2.3", f"openai/{model}"),
    }
    traffic.call(trace_id, f"embeddings {model}", *time, parent=root, attributes=attributes)


def _retrieval(
    traffic: Traffic, trace_id: bytes, root: bytes, time: tuple[int, int], shared: Mapping[str, Any]
) -> None:
    attributes = {
        **shared,
        names.STAGELIGHT_STAGE: "retrieval",
        names.GEN_AI_OPERATION_NAME: "retrieval",
        names.DB_SYSTEM_NAME: "qdrant",
        names.GEN_AI_DATA_SOURCE_ID: "docs",
        names.GEN_AI_RETRIEVAL_TOP_K: 5,
        names.STAGELIGHT_RETRIEVAL_MODE: "dense",
        names.STAGELIGHT_RETRIEVAL_COUNT: 5,
        names.STAGELIGHT_RETRIEVAL_EMPTY: False,
        names.STAGELIGHT_RETRIEVAL_METRIC: "cosine",
        names.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER: True,
        names.STAGELIGHT_RETRIEVAL_TOP_SCORE: 0.84,
        names.STAGELIGHT_RETRIEVAL_MARGIN: 0.07,
        names.STAGELIGHT_RETRIEVAL_MIN_SCORE: 0.41,
    }
    traffic.call(trace_id, "retrieval docs", *time, parent=root, attributes=attributes)


def _chat(
    traffic: Traffic, trace_id: bytes, root: bytes, turn: Turn, time: tuple[int, int], shared: Mapping[str, Any]
) -> None:
    attributes: dict[str, Any] = {
        **shared,
        names.STAGELIGHT_STAGE: "llm",
        names.GEN_AI_OPERATION_NAME: "chat",
        names.GEN_AI_PROVIDER_NAME: "openai",
        names.GEN_AI_REQUEST_MODEL: turn.chat_model,
        names.GEN_AI_REQUEST_STREAM: True,
        names.GEN_AI_REQUEST_TEMPERATURE: 0.2,
        names.GEN_AI_REQUEST_MAX_TOKENS: 400,
        names.SERVER_ADDRESS: "api.openai.com",
        names.SERVER_PORT: 443,
    }
    if turn.chat_error is None:
        attributes |= {
            names.GEN_AI_RESPONSE_MODEL: f"{turn.chat_model}-2024-07-18",
            names.GEN_AI_RESPONSE_ID: "chatcmpl-8Qx1",
            names.GEN_AI_RESPONSE_FINISH_REASONS: ["stop"],
            names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.37 * turn.slowness,
            names.STAGELIGHT_STREAM_CHUNKS: 118,
            names.STAGELIGHT_STREAM_LONGEST_GAP: 0.041 * turn.slowness,
            names.GEN_AI_USAGE_INPUT_TOKENS: turn.input_tokens,
            names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: turn.cached_tokens,
            names.GEN_AI_USAGE_OUTPUT_TOKENS: turn.output_tokens,
            **priced(_chat_cost(turn), "genai-prices@0.2.3", f"openai/{turn.chat_model}"),
        }
    span_id = traffic.call(
        trace_id, f"chat {turn.chat_model}", *time, parent=root, attributes=attributes, error=turn.chat_error
    )
    http = {names.SERVER_ADDRESS: "api.openai.com", "http.request.method": "POST", "http.response.status_code": 200}
    traffic.span(trace_id, "POST", time[0] + MS, round(time[1] * 0.3), parent=span_id, kind=3, attributes=http)


def _speech(
    traffic: Traffic, trace_id: bytes, root: bytes, turn: Turn, time: tuple[int, int], shared: Mapping[str, Any]
) -> None:
    attributes = {
        **shared,
        names.STAGELIGHT_STAGE: "tts",
        names.GEN_AI_OPERATION_NAME: "text_to_speech",
        names.GEN_AI_PROVIDER_NAME: "openai",
        names.GEN_AI_REQUEST_MODEL: "tts-1",
        names.STAGELIGHT_TTS_VOICE: "coral",
        names.STAGELIGHT_TTS_FORMAT: "wav",
        names.STAGELIGHT_TTS_CHARACTERS: turn.characters,
        names.STAGELIGHT_TTS_AUDIO_SECONDS: 18.6,
        names.STAGELIGHT_TTS_REAL_TIME_FACTOR: 0.037,
        names.STAGELIGHT_USAGE_CHARACTERS: turn.characters,
        names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.165 * turn.slowness,
        **priced({"characters": SPEECH_RATE * turn.characters / MILLION}, "stagelight@2026-11-21", "openai/tts-1"),
    }
    traffic.call(trace_id, "text_to_speech tts-1", *time, parent=root, attributes=attributes)


def day(traffic: Traffic, until_ns: int, turns: int = 60, *, spread_ns: int = 3_000 * SECOND) -> list[bytes]:
    """A mixed load that ends at ``until_ns``: mostly good turns, some without speech, one failure in twenty."""
    chance = traffic.random
    found = []
    for index in range(turns):
        start_ns = until_ns - 4 * SECOND - round(spread_ns * (1 - index / turns)) - chance.randrange(20 * SECOND)
        turn = Turn(
            start_ns=start_ns,
            slowness=chance.choice((0.7, 0.8, 0.9, 1.0, 1.0, 1.1, 1.3, 1.9)),
            feature=chance.choice(("help", "help", "billing", "onboarding")),
            speech=chance.random() > 0.25,
            chat_model=chance.choice(("gpt-4o-mini", "gpt-4o-mini", "gpt-4.1-mini")),
            input_tokens=chance.randrange(700, 1500),
            output_tokens=chance.randrange(40, 220),
            characters=chance.randrange(120, 600),
            chat_error="rate_limit_exceeded" if index % 20 == 13 else None,
            outcome="client_abandoned" if index % 17 == 5 else "completed",
        )
        found.append(add_turn(traffic, turn))
    return found


HOSTILE = (
    "<script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=2">',
    "{{7*7}}${7*7}",
    "a\u202egnp.exe\u2066",
    "\x1b[31mred\x00",
    "javascript:window.pwned=3",
    "' onmouseover='window.pwned=4",
    "</title></svg><svg onload=window.pwned=5>",
)


def add_strange_turn(traffic: Traffic, start_ns: int) -> bytes:
    """A turn whose every text is hostile: names, attribute keys and values, stage, model, errors and log lines."""
    trace_id = traffic.trace_id()
    every = " ".join(HOSTILE)
    hostile = {f"{text}.{index}": text for index, text in enumerate(HOSTILE)}
    fields = (
        names.GEN_AI_WORKFLOW_NAME, names.STAGELIGHT_FEATURE, names.STAGELIGHT_TENANT, names.USER_HASH,
        names.GEN_AI_CONVERSATION_ID, names.STAGELIGHT_OUTCOME, names.STAGELIGHT_TURN_COST_STATUS,
    )  # fmt: skip
    given = {names.STAGELIGHT_STAGE: "turn", **dict.fromkeys(fields, every), **hostile}
    root = traffic.span(trace_id, every, start_ns, SECOND, attributes=given, error=every)
    call = {
        names.STAGELIGHT_STAGE: HOSTILE[0],
        names.GEN_AI_PROVIDER_NAME: every,
        names.GEN_AI_REQUEST_MODEL: every,
        names.STAGELIGHT_COST_STATUS: "unpriced",
        names.STAGELIGHT_COST_REASON: every,
        names.STAGELIGHT_RETRIEVAL_METRIC: every,
        names.STAGELIGHT_RETRIEVAL_TOP_SCORE: 0.5,
        names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 1e18,
        names.GEN_AI_USAGE_INPUT_TOKENS: -5,
        names.GEN_AI_RESPONSE_FINISH_REASONS: list(HOSTILE),
        **hostile,
    }
    traffic.call(trace_id, every, start_ns + MS, 800 * MS, parent=root, attributes=call, error=every)
    traffic.log(start_ns + MS, every, trace_id=trace_id, span_id=root, severity="ERROR")
    return trace_id


def add_many_spans(traffic: Traffic, start_ns: int, count: int) -> bytes:
    """A trace of ``count`` spans: a turn, and calls below it and below each other."""
    trace_id = traffic.trace_id()
    attributes: dict[str, Any] = {names.STAGELIGHT_STAGE: "turn", names.GEN_AI_WORKFLOW_NAME: "crawl"}
    parents = [traffic.span(trace_id, "invoke_workflow crawl", start_ns, 30 * SECOND, attributes=attributes)]
    chance = traffic.random
    for index in range(count - 1):
        stage = "llm" if index % 3 else "tool"
        parents.append(
            traffic.span(
                trace_id,
                f"{stage} {index}",
                start_ns + round(index / count * 29 * SECOND),
                chance.randrange(1, 900) * MS,
                parent=chance.choice(parents[-40:]) if index % 5 else parents[0],
                attributes={names.STAGELIGHT_STAGE: stage, names.GEN_AI_REQUEST_MODEL: "gpt-4o-mini"},
                error="timeout" if index % 997 == 5 else None,
            )
        )
    return trace_id
