"""Facts -> attributes of spans and of ledger events. Absent facts give no attribute."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from stagelight._operations import operation_name, span_name
from stagelight.conventions import attributes as a
from stagelight.facts import (
    COMPONENTS,
    CallFacts,
    Cost,
    Identity,
    Partial,
    Priced,
    Request,
    Stage,
    TurnFacts,
    Unpriced,
    Usage,
)

__all__ = [
    "call_attributes",
    "ledger_attributes",
    "started",
    "turn_attributes",
    "turn_start_attributes",
]

Attributes = dict[str, Any]

_REQUEST: tuple[tuple[str, str], ...] = (
    (a.GEN_AI_REQUEST_STREAM, "stream"),
    (a.GEN_AI_REQUEST_TEMPERATURE, "temperature"),
    (a.GEN_AI_REQUEST_TOP_P, "top_p"),
    (a.GEN_AI_REQUEST_FREQUENCY_PENALTY, "frequency_penalty"),
    (a.GEN_AI_REQUEST_PRESENCE_PENALTY, "presence_penalty"),
    (a.GEN_AI_REQUEST_MAX_TOKENS, "max_tokens"),
    (a.GEN_AI_REQUEST_STOP_SEQUENCES, "stop_sequences"),
    (a.GEN_AI_REQUEST_SEED, "seed"),
    (a.GEN_AI_REQUEST_REASONING_LEVEL, "reasoning_level"),
    (a.GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID, "previous_response_id"),
    (a.GEN_AI_REQUEST_ENCODING_FORMATS, "encoding_formats"),
    (a.GEN_AI_OUTPUT_TYPE, "output_type"),
    (a.GEN_AI_CONVERSATION_ID, "conversation_id"),
    (a.OPENAI_REQUEST_SERVICE_TIER, "service_tier"),
    (a.GEN_AI_EMBEDDINGS_DIMENSION_COUNT, "dimensions"),
    (a.STAGELIGHT_RETRIEVAL_MODE, "mode"),
    (a.STAGELIGHT_RETRIEVAL_FILTERED, "filtered"),
    (a.STAGELIGHT_TTS_VOICE, "voice"),
    (a.STAGELIGHT_TTS_FORMAT, "audio_format"),
    (a.STAGELIGHT_TTS_SAMPLE_RATE, "sample_rate"),
    (a.GEN_AI_TOOL_CALL_ID, "tool_call_id"),
)

_START: tuple[tuple[str, str], ...] = (
    (a.GEN_AI_PROVIDER_NAME, "provider"),
    (a.GEN_AI_REQUEST_MODEL, "model"),
    (a.SERVER_ADDRESS, "server_address"),
    (a.SERVER_PORT, "server_port"),
    (a.GEN_AI_TOOL_TYPE, "tool_type"),
)

_TOKENS: tuple[tuple[str, str], ...] = (
    (a.GEN_AI_USAGE_INPUT_TOKENS, "input_tokens"),
    (a.GEN_AI_USAGE_OUTPUT_TOKENS, "output_tokens"),
    (a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, "cache_read_tokens"),
    (a.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, "reasoning_tokens"),
    (a.GEN_AI_USAGE_AUDIO_INPUT_TOKENS, "audio_input_tokens"),
    (a.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS, "audio_output_tokens"),
    (a.GEN_AI_USAGE_IMAGE_INPUT_TOKENS, "image_input_tokens"),
    (a.GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS, "image_output_tokens"),
    (a.GEN_AI_USAGE_AUDIO_CACHE_READ_INPUT_TOKENS, "audio_cache_read_tokens"),
    (a.GEN_AI_USAGE_TEXT_INPUT_TOKENS, "text_input_tokens"),
    (a.GEN_AI_USAGE_TEXT_OUTPUT_TOKENS, "text_output_tokens"),
)

_UNITS: tuple[tuple[str, str], ...] = (
    (a.STAGELIGHT_USAGE_CHARACTERS, "characters"),
    (a.STAGELIGHT_USAGE_AUDIO_SECONDS, "audio_seconds"),
    (a.STAGELIGHT_USAGE_SEARCHES, "searches"),
    (a.STAGELIGHT_USAGE_TOOLS, "tools"),
    (a.STAGELIGHT_USAGE_REQUESTS, "requests"),
    (a.STAGELIGHT_USAGE_COMPUTE_SECONDS, "compute_seconds"),
)


def _put(into: Attributes, rows: tuple[tuple[str, str], ...], record: object) -> None:
    for key, name in rows:
        value = getattr(record, name)
        if value is not None:
            into[key] = value


def start_attributes(stage: Stage, request: Request) -> Attributes:
    """What is set when the span starts, so that samplers can use it."""
    found: Attributes = {a.STAGELIGHT_STAGE: stage}
    operation = operation_name(stage, request)
    if operation is not None:
        found[a.GEN_AI_OPERATION_NAME] = operation
    _put(found, _START, request)
    if stage == "retrieval" and request.source is not None:
        found[a.GEN_AI_DATA_SOURCE_ID] = request.source
    if request.name is not None:
        found[a.GEN_AI_TOOL_NAME if stage == "tool" else a.STAGELIGHT_NAME] = request.name
    return found


_STARTED_LIMIT = 1024
_started: dict[tuple[Any, ...], tuple[str, Attributes]] = {}


def started(stage: Stage, request: Request) -> tuple[str, Attributes]:
    """Span name and start attributes of a call, from a cache: most calls of a process start alike."""
    key = (
        stage,
        request.operation,
        request.provider,
        request.model,
        request.server_address,
        request.server_port,
        request.source,
        request.name,
        request.tool_type,
    )
    found = _started.get(key)
    if found is None:
        found = span_name(stage, request), start_attributes(stage, request)
        if len(_started) < _STARTED_LIMIT:
            _started[key] = found
    return found


def _identity(into: Attributes, identity: Identity) -> None:
    for key, value in (
        (a.STAGELIGHT_FEATURE, identity.feature),
        (a.STAGELIGHT_VARIANT, identity.variant),
        (a.STAGELIGHT_TENANT, identity.tenant),
        (a.STAGELIGHT_ROUTE, identity.route),
        (a.USER_HASH, identity.user),
        (a.SESSION_ID, identity.session),
        (a.GEN_AI_CONVERSATION_ID, identity.conversation),
    ):
        if value is not None:
            into.setdefault(key, value)


def _usage(into: Attributes, usage: Usage | None) -> None:
    if usage is None:
        return
    _put(into, _TOKENS, usage)
    _put(into, _UNITS, usage)
    written = usage.cache_write_tokens
    if written is not None:
        total = sum(written.values()) if isinstance(written, Mapping) else written
        into[a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS] = total
    if usage.counted:
        into[a.STAGELIGHT_USAGE_COUNTED] = True


def _cost(into: Attributes, cost: Cost | None) -> None:
    if cost is None:
        return
    if isinstance(cost, Unpriced):
        into[a.STAGELIGHT_COST_STATUS] = "unpriced"
        into[a.STAGELIGHT_COST_REASON] = cost.reason
    else:
        into[a.STAGELIGHT_COST_AMOUNT] = float(cost.amount)
        into[a.STAGELIGHT_COST_CURRENCY] = cost.currency
        into[a.STAGELIGHT_COST_SOURCE] = cost.source
        into[a.STAGELIGHT_COST_STATUS] = cost_status(cost)
        into[a.STAGELIGHT_COST_PRICE_SOURCE] = cost.price_source
        if cost.model is not None:
            into[a.STAGELIGHT_COST_MODEL] = cost.model
    missing = () if isinstance(cost, Priced) else cost.missing
    if missing:
        into[a.STAGELIGHT_COST_MISSING] = missing


def cost_status(cost: Cost) -> str:
    """The value of ``stagelight.cost.status``."""
    if isinstance(cost, Priced):
        return cost.status
    return "partial" if isinstance(cost, Partial) else "unpriced"


def _upstream_cost(into: Attributes, cost: Cost | None) -> None:
    if isinstance(cost, Priced | Partial):
        into[a.GEN_AI_USAGE_COST_AMOUNT] = float(cost.amount)
        into[a.GEN_AI_USAGE_COST_CURRENCY] = cost.currency
        into[a.GEN_AI_USAGE_COST_SOURCE] = cost.source


def real_time_factor(facts: CallFacts) -> float | None:
    """Generation time divided by audio duration; absent when the duration is unknown."""
    seconds = facts.usage.audio_seconds if facts.usage is not None else None
    return facts.duration_s / seconds if facts.stage == "tts" and seconds else None


def _speech(into: Attributes, facts: CallFacts) -> None:
    usage = facts.usage
    seconds = usage.audio_seconds if usage is not None else None
    if facts.stage == "stt":
        if seconds is not None:
            into[a.STAGELIGHT_STT_AUDIO_SECONDS] = seconds
        return
    characters = (usage.characters if usage is not None else None) or facts.request.characters
    factor = real_time_factor(facts)
    for key, value in (
        (a.STAGELIGHT_TTS_CHARACTERS, characters),
        (a.STAGELIGHT_TTS_AUDIO_SECONDS, seconds),
        (a.STAGELIGHT_TTS_REAL_TIME_FACTOR, factor),
    ):
        if value is not None:
            into[key] = value


def _response(into: Attributes, facts: CallFacts) -> None:
    response = facts.response
    if response is None:
        return
    for key, value in (
        (a.GEN_AI_RESPONSE_MODEL, response.model),
        (a.GEN_AI_RESPONSE_ID, response.id),
        (a.GEN_AI_RESPONSE_FINISH_REASONS, response.finish_reasons),
        (a.OPENAI_RESPONSE_SERVICE_TIER, response.service_tier),
        (a.GEN_AI_EMBEDDINGS_DIMENSION_COUNT, response.embedding_dimensions),
        (a.HTTP_RESPONSE_STATUS_CODE, response.http_status),
        (a.STAGELIGHT_RESPONSE_SERVER_TIME, response.server_time_s),
        (a.STAGELIGHT_RESPONSE_GUARDRAIL, response.guardrail),
        (a.STAGELIGHT_TTS_AUDIO_BYTES, response.audio_bytes),
        (a.STAGELIGHT_USAGE_CREDITS, response.credits),
    ):
        if value is not None:
            into[key] = value
    found = response.retrieved
    if found is None:
        return
    into[a.STAGELIGHT_RETRIEVAL_COUNT] = found.count
    into[a.STAGELIGHT_RETRIEVAL_EMPTY] = found.count == 0
    if found.metric is not None:
        into[a.STAGELIGHT_RETRIEVAL_METRIC] = found.metric
    if found.higher_is_better is not None:
        into[a.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER] = found.higher_is_better
    if found.scores:
        best_first = sorted(found.scores, reverse=found.higher_is_better is not False)
        into[a.STAGELIGHT_RETRIEVAL_TOP_SCORE] = best_first[0]
        into[a.STAGELIGHT_RETRIEVAL_MIN_SCORE] = min(found.scores)
        if len(best_first) > 1:
            into[a.STAGELIGHT_RETRIEVAL_MARGIN] = abs(best_first[0] - best_first[1])


def call_attributes(facts: CallFacts, identity: Identity, *, upstream_cost: bool = False) -> Attributes:
    """Everything a call's span carries at its end."""
    request = facts.request
    found = start_attributes(facts.stage, request)
    _put(found, _REQUEST, request)
    if request.choice_count is not None and request.choice_count != 1:
        found[a.GEN_AI_REQUEST_CHOICE_COUNT] = request.choice_count
    if request.top_k is not None:
        found[a.GEN_AI_RETRIEVAL_TOP_K if facts.stage == "retrieval" else a.GEN_AI_REQUEST_TOP_K] = request.top_k
    _identity(found, identity)
    _response(found, facts)
    _usage(found, facts.usage)
    _cost(found, facts.cost)
    if upstream_cost:
        _upstream_cost(found, facts.cost)
    if facts.stage in {"tts", "stt"}:
        _speech(found, facts)
    found[a.STAGELIGHT_OUTCOME] = facts.outcome
    if facts.error_type is not None:
        found[a.ERROR_TYPE] = facts.error_type
    if facts.first_chunk_s is not None:
        found[a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = facts.first_chunk_s
    if facts.chunks is not None:
        found[a.STAGELIGHT_STREAM_CHUNKS] = facts.chunks
    if facts.longest_gap_s is not None:
        found[a.STAGELIGHT_STREAM_LONGEST_GAP] = facts.longest_gap_s
    if facts.attempts > 1:
        found[a.STAGELIGHT_ATTEMPTS] = facts.attempts
    return found


_COMPONENT_KEYS = {component: f"{a.STAGELIGHT_COST_COMPONENTS}.{component}" for component in COMPONENTS}


def ledger_attributes(facts: CallFacts, identity: Identity) -> Attributes:
    """The usage event of one priced or unpriced call: enough to sum spend by anything, without the span."""
    found = start_attributes(facts.stage, facts.request)
    found[a.STAGELIGHT_RECORD_KIND] = "usage"
    _identity(found, identity)
    response = facts.response
    if response is not None:
        if response.model is not None:
            found[a.GEN_AI_RESPONSE_MODEL] = response.model
        if response.id is not None:
            found[a.GEN_AI_RESPONSE_ID] = response.id
    _usage(found, facts.usage)
    _cost(found, facts.cost)
    if isinstance(facts.cost, Priced | Partial):
        for component, amount in facts.cost.components.items():
            found[_COMPONENT_KEYS[component]] = float(amount)
    found[a.STAGELIGHT_OUTCOME] = facts.outcome
    if facts.error_type is not None:
        found[a.ERROR_TYPE] = facts.error_type
    return found


def turn_start_attributes(kind: str, name: str, identity: Identity) -> Attributes:
    """What a turn's or job's span carries from its start."""
    found: Attributes = {a.STAGELIGHT_STAGE: kind}
    if kind == "turn":
        found[a.GEN_AI_OPERATION_NAME] = "invoke_workflow"
        found[a.GEN_AI_WORKFLOW_NAME] = name
    else:
        found[a.STAGELIGHT_JOB_NAME] = name
    _identity(found, identity)
    return found


def _money(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)


def turn_attributes(facts: TurnFacts, identity: Identity) -> Attributes:
    """What a turn's span carries at its end."""
    found = turn_start_attributes(facts.kind, facts.name, identity)
    found[a.STAGELIGHT_OUTCOME] = facts.outcome
    found[a.STAGELIGHT_TURN_CALLS] = facts.calls
    for key, value in (
        (a.ERROR_TYPE, facts.error_type),
        (a.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN, facts.time_to_first_token_s),
        (a.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO, facts.time_to_first_audio_s),
        (a.STAGELIGHT_TURN_INPUT_TOKENS, facts.input_tokens),
        (a.STAGELIGHT_TURN_OUTPUT_TOKENS, facts.output_tokens),
        (a.STAGELIGHT_TURN_COST, _money(facts.cost)),
        (a.STAGELIGHT_TURN_COST_STATUS, facts.cost_status),
    ):
        if value is not None:
            found[key] = value
    for stage, seconds in facts.self_time_s.items():
        found[f"{a.STAGELIGHT_TURN_SELF_TIME}.{stage}"] = seconds
        if facts.duration_s > 0:
            found[f"{a.STAGELIGHT_TURN_SHARE}.{stage}"] = seconds / facts.duration_s
    return found
