"""What is known of one span, grouped by the question it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from stagelight.conventions import attributes as names
from stagelight.embedded.pages import units
from stagelight.sources.model import AttributeValue, SpanRow

__all__ = ["Fact", "Group", "group", "number", "written"]

_LONGEST = 4_000  # characters of one value; the JSON has all of them

_ASKED = {
    names.GEN_AI_PROVIDER_NAME: "Provider",
    names.DB_SYSTEM_NAME: "Database",
    names.GEN_AI_OPERATION_NAME: "Operation",
    names.DB_OPERATION_NAME: "Database operation",
    names.GEN_AI_REQUEST_MODEL: "Model",
    names.GEN_AI_DATA_SOURCE_ID: "Data source",
    names.DB_COLLECTION_NAME: "Collection",
    names.GEN_AI_WORKFLOW_NAME: "Workflow",
    names.STAGELIGHT_JOB_NAME: "Job",
    names.GEN_AI_TOOL_NAME: "Tool",
    names.GEN_AI_TOOL_TYPE: "Tool type",
    names.GEN_AI_TOOL_CALL_ID: "Tool call id",
    names.STAGELIGHT_NAME: "Name",
    names.GEN_AI_REQUEST_STREAM: "Streamed",
    names.GEN_AI_OUTPUT_TYPE: "Output type",
    names.GEN_AI_REQUEST_TEMPERATURE: "Temperature",
    names.GEN_AI_REQUEST_TOP_P: "Top p",
    names.GEN_AI_REQUEST_TOP_K: "Top k",
    names.GEN_AI_REQUEST_FREQUENCY_PENALTY: "Frequency penalty",
    names.GEN_AI_REQUEST_PRESENCE_PENALTY: "Presence penalty",
    names.GEN_AI_REQUEST_MAX_TOKENS: "Most tokens",
    names.GEN_AI_REQUEST_STOP_SEQUENCES: "Stop sequences",
    names.GEN_AI_REQUEST_SEED: "Seed",
    names.GEN_AI_REQUEST_CHOICE_COUNT: "Choices",
    names.GEN_AI_REQUEST_REASONING_LEVEL: "Reasoning level",
    names.GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID: "Previous response",
    names.GEN_AI_REQUEST_ENCODING_FORMATS: "Encoding formats",
    names.OPENAI_REQUEST_SERVICE_TIER: "Service tier",
    names.GEN_AI_RETRIEVAL_TOP_K: "Results wanted",
    names.STAGELIGHT_RETRIEVAL_MODE: "Search mode",
    names.STAGELIGHT_RETRIEVAL_FILTERED: "Filtered",
    names.STAGELIGHT_TTS_CHARACTERS: "Text to speak",
    names.STAGELIGHT_TTS_VOICE: "Voice",
    names.STAGELIGHT_TTS_FORMAT: "Audio format",
    names.STAGELIGHT_CACHE_NAME: "Cache",
    names.SERVER_ADDRESS: "Server",
    names.SERVER_PORT: "Port",
    names.GEN_AI_SYSTEM_INSTRUCTIONS: "System instructions",
    names.GEN_AI_INPUT_MESSAGES: "Input messages",
    names.GEN_AI_TOOL_DEFINITIONS: "Tool definitions",
    names.GEN_AI_TOOL_CALL_ARGUMENTS: "Tool arguments",
    names.GEN_AI_RETRIEVAL_QUERY_TEXT: "Query",
    names.DB_QUERY_TEXT: "Database query",
}

_ANSWERED = {
    names.STAGELIGHT_OUTCOME: "Outcome",
    names.GEN_AI_RESPONSE_MODEL: "Model that answered",
    names.GEN_AI_RESPONSE_ID: "Response id",
    names.GEN_AI_RESPONSE_FINISH_REASONS: "Finish reasons",
    names.OPENAI_RESPONSE_SERVICE_TIER: "Service tier used",
    names.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN: "First token of the turn",
    names.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO: "First audio of the turn",
    names.STAGELIGHT_TURN_CALLS: "Calls",
    names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: "First chunk",
    names.STAGELIGHT_STREAM_CHUNKS: "Chunks",
    names.STAGELIGHT_STREAM_LONGEST_GAP: "Longest gap",
    names.GEN_AI_EMBEDDINGS_DIMENSION_COUNT: "Dimensions",
    names.STAGELIGHT_TTS_AUDIO_SECONDS: "Audio",
    names.STAGELIGHT_TTS_REAL_TIME_FACTOR: "Real-time factor",
    names.STAGELIGHT_STT_AUDIO_SECONDS: "Audio heard",
    names.STAGELIGHT_CACHE_RESULT: "Cache result",
    names.GEN_AI_OUTPUT_MESSAGES: "Output messages",
    names.GEN_AI_TOOL_CALL_RESULT: "Tool result",
    names.GEN_AI_RETRIEVAL_DOCUMENTS: "Documents",
}

_RETRIEVED = {
    names.STAGELIGHT_RETRIEVAL_COUNT: "Results",
    names.STAGELIGHT_RETRIEVAL_EMPTY: "Empty",
    names.STAGELIGHT_RETRIEVAL_METRIC: "Metric",
    names.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER: "Higher is better",
    names.STAGELIGHT_RETRIEVAL_TOP_SCORE: "Best score",
    names.STAGELIGHT_RETRIEVAL_MARGIN: "Margin to the second",
    names.STAGELIGHT_RETRIEVAL_MIN_SCORE: "Lowest score",
}

_FAILED = {
    names.ERROR_TYPE: "Error type",
    names.EXCEPTION_TYPE: "Exception",
    names.EXCEPTION_MESSAGE: "Message",
    names.EXCEPTION_STACKTRACE: "Stack trace",
    names.DB_RESPONSE_STATUS_CODE: "Database status",
}

_CONTEXT = {
    names.STAGELIGHT_FEATURE: "Feature",
    names.STAGELIGHT_VARIANT: "Variant",
    names.STAGELIGHT_ROUTE: "Route",
    names.STAGELIGHT_TENANT: "Tenant",
    names.USER_HASH: "User",
    names.SESSION_ID: "Session",
    names.GEN_AI_CONVERSATION_ID: "Conversation",
}

_TOKENS = {
    names.GEN_AI_USAGE_INPUT_TOKENS: "Input tokens",
    names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: "of which cached",
    names.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: "of which put in the cache",
    names.GEN_AI_USAGE_AUDIO_INPUT_TOKENS: "of which audio",
    names.GEN_AI_USAGE_IMAGE_INPUT_TOKENS: "of which images",
    names.GEN_AI_USAGE_OUTPUT_TOKENS: "Output tokens",
    names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: "of which reasoning",
    names.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS: "of which audio",
    names.GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS: "of which images",
    names.STAGELIGHT_TURN_INPUT_TOKENS: "Input tokens",
    names.STAGELIGHT_TURN_OUTPUT_TOKENS: "Output tokens",
    names.STAGELIGHT_USAGE_CHARACTERS: "Billed characters",
    names.STAGELIGHT_USAGE_AUDIO_SECONDS: "Billed audio",
    names.STAGELIGHT_USAGE_SEARCHES: "Searches",
    names.STAGELIGHT_USAGE_TOOLS: "Billed tool executions",
    names.STAGELIGHT_USAGE_REQUESTS: "Billed requests",
    names.STAGELIGHT_USAGE_COMPUTE_SECONDS: "Compute time",
    names.STAGELIGHT_USAGE_COUNTED: "Counted by the caller",
}

_SECONDS = frozenset(
    {
        names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
        names.STAGELIGHT_STREAM_LONGEST_GAP,
        names.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN,
        names.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO,
        names.STAGELIGHT_TTS_AUDIO_SECONDS,
        names.STAGELIGHT_STT_AUDIO_SECONDS,
        names.STAGELIGHT_USAGE_AUDIO_SECONDS,
        names.STAGELIGHT_USAGE_COMPUTE_SECONDS,
    }
)
_COUNTED = {
    names.STAGELIGHT_TTS_CHARACTERS: "characters",
    names.STAGELIGHT_USAGE_CHARACTERS: "characters",
    names.STAGELIGHT_STREAM_CHUNKS: "",
    names.STAGELIGHT_TURN_CALLS: "",
    names.STAGELIGHT_RETRIEVAL_COUNT: "",
    **{key: "" for key in _TOKENS if key.endswith("_tokens")},
}

# Written out elsewhere on the page: the head of the panel, the arithmetic of the price, the shares of the turn.
_SHOWN_ELSEWHERE = frozenset({names.STAGELIGHT_STAGE})
_PRICED = (
    names.STAGELIGHT_COST_AMOUNT,
    names.STAGELIGHT_COST_CURRENCY,
    names.STAGELIGHT_COST_SOURCE,
    names.STAGELIGHT_COST_STATUS,
    names.STAGELIGHT_COST_PRICE_SOURCE,
    names.STAGELIGHT_COST_REASON,
    names.STAGELIGHT_COST_MISSING,
    names.STAGELIGHT_COST_MODEL,
    names.STAGELIGHT_TURN_COST,
    names.STAGELIGHT_TURN_COST_STATUS,
)
_TEMPLATES = (
    names.STAGELIGHT_TURN_SHARE + ".",
    names.STAGELIGHT_TURN_SELF_TIME + ".",
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One line: a label, its value as text and the attribute it comes from."""

    label: str
    value: str
    attribute: str
    is_long: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Facts under one heading."""

    asked: list[Fact] = field(default_factory=list)
    answered: list[Fact] = field(default_factory=list)
    tokens: list[Fact] = field(default_factory=list)
    retrieved: list[Fact] = field(default_factory=list)
    failed: list[Fact] = field(default_factory=list)
    context: list[Fact] = field(default_factory=list)
    other: list[Fact] = field(default_factory=list)
    """Attributes that this package does not know, under their own names."""
    resource: list[Fact] = field(default_factory=list)
    """Attributes of the process that sent the span."""


def group(span: SpanRow) -> Group:
    """Group the attributes of a span; each one that was sent is in exactly one group or in the price."""
    given = span.attributes
    groups = Group(
        asked=_known(given, _ASKED),
        answered=_known(given, _ANSWERED),
        tokens=_known(given, _TOKENS),
        retrieved=_known(given, _RETRIEVED),
        failed=_known(given, _FAILED),
        context=_known(given, _CONTEXT),
        resource=_raw(span.resource.items()),
    )
    if span.status_message:
        groups.failed.append(_fact("Status message", span.status_message, ""))
    known = {*_ASKED, *_ANSWERED, *_TOKENS, *_RETRIEVED, *_FAILED, *_CONTEXT, *_PRICED, *_SHOWN_ELSEWHERE}
    rest = ((key, value) for key, value in given.items() if key not in known and not key.startswith(_TEMPLATES))
    groups.other.extend(_raw(rest))
    return groups


def _known(given: Mapping[str, AttributeValue], labels: Mapping[str, str]) -> list[Fact]:
    return [_fact(label, given[key], key) for key, label in labels.items() if given.get(key) is not None]


def _raw(items: Iterable[tuple[str, AttributeValue]]) -> list[Fact]:
    return [_fact(key, value, key) for key, value in sorted(items)]


def _fact(label: str, value: AttributeValue, attribute: str) -> Fact:
    text = _write(attribute)(value)
    return Fact(units.visible(label, 200), text, attribute, is_long=len(text) > 80 or "\n" in text)


def _write(attribute: str) -> Callable[[AttributeValue], str]:
    if attribute in _SECONDS:
        return lambda value: written(value) if number(value) is None else units.seconds(number(value))
    if attribute in _COUNTED:
        unit = _COUNTED[attribute]
        return lambda value: written(value) if type(value) is not int else f"{value:,} {unit}".rstrip()
    return written


def number(value: AttributeValue) -> float | None:
    """The value if it is a finite number, None otherwise: telemetry may send anything under any name."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None


def written(value: AttributeValue) -> str:
    """Any attribute as text: a list of plain values with commas, deeper ones as indented JSON; cut when very long."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.15g}"
    elif isinstance(value, list | tuple) and all(isinstance(item, str | int) for item in value):
        text = ", ".join(str(item) for item in value)
    elif isinstance(value, Mapping | list | tuple):
        text = json.dumps(value, ensure_ascii=False, indent=2, default=dict)
    else:
        text = units.visible(str(value))
    return units.visible(text, _LONGEST)
