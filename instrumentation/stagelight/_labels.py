"""Labels of metric points: only those with a value, with free text bounded in values and in series."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stagelight._bounds import OTHER, LabelBounds, SeriesBudget
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m

__all__ = ["LABEL_KEYS", "BoundedLabels", "Labels"]

Labels = dict[str, Any]

_BOUNDED: Mapping[str, str] = {
    a.GEN_AI_REQUEST_MODEL: "model",
    a.GEN_AI_RESPONSE_MODEL: "model",
    a.GEN_AI_PROVIDER_NAME: "provider",
    a.SERVER_ADDRESS: "host",
    a.SERVER_PORT: "port",
    a.OPENAI_RESPONSE_SERVICE_TIER: "tier",
    a.GEN_AI_OPERATION_NAME: "operation",
    a.ERROR_TYPE: "error",
    a.STAGELIGHT_OUTCOME: "outcome",
    a.STAGELIGHT_FEATURE: "feature",
    a.STAGELIGHT_VARIANT: "variant",
    a.STAGELIGHT_TENANT: "tenant",
    a.STAGELIGHT_ROUTE: "route",
    a.GEN_AI_WORKFLOW_NAME: "workflow",
    a.STAGELIGHT_JOB_NAME: "job",
    a.GEN_AI_TOOL_NAME: "tool",
    a.GEN_AI_DATA_SOURCE_ID: "source",
    a.STAGELIGHT_RETRIEVAL_METRIC: "search",
    a.STAGELIGHT_RETRIEVAL_MODE: "search",
    a.STAGELIGHT_CACHE_NAME: "cache",
    a.GEN_AI_EVALUATION_NAME: "evaluation",
    a.GEN_AI_EVALUATION_SCORE_LABEL: "evaluation",
    a.STAGELIGHT_FEEDBACK_KIND: "feedback",
    a.STAGELIGHT_FEEDBACK_THEME: "feedback",
    a.STAGELIGHT_INSTRUMENTATIONS: "instrumentations",
}
"""Kind of bound of each label whose values come from the application or a provider."""

_SMALL = frozenset({a.GEN_AI_OPERATION_NAME, a.STAGELIGHT_OUTCOME})
"""Bounded only because an application may invent values: few in practice, so that they outlive the series budget."""

_OWNERS = frozenset(
    {
        a.STAGELIGHT_FEATURE,
        a.STAGELIGHT_VARIANT,
        a.STAGELIGHT_TENANT,
        a.STAGELIGHT_ROUTE,
        a.GEN_AI_WORKFLOW_NAME,
        a.ERROR_TYPE,
        a.SERVER_ADDRESS,
        a.SERVER_PORT,
        a.GEN_AI_RESPONSE_MODEL,
    }
)
"""Folded first when a metric's budget is spent: provider and model say most about a figure."""


_CLIENT = (
    a.GEN_AI_OPERATION_NAME,
    a.GEN_AI_PROVIDER_NAME,
    a.GEN_AI_REQUEST_MODEL,
    a.GEN_AI_RESPONSE_MODEL,
    a.SERVER_ADDRESS,
    a.SERVER_PORT,
)
_TIERED = (*_CLIENT, a.OPENAI_RESPONSE_SERVICE_TIER)
_OWNER = (
    a.GEN_AI_WORKFLOW_NAME,
    a.STAGELIGHT_FEATURE,
    a.STAGELIGHT_TENANT,
    a.STAGELIGHT_VARIANT,
    a.STAGELIGHT_ROUTE,
)
_PLACE = (a.GEN_AI_DATA_SOURCE_ID, a.STAGELIGHT_RETRIEVAL_MODE)
_MODEL = (a.GEN_AI_PROVIDER_NAME, a.GEN_AI_REQUEST_MODEL)
_STAGED_MODEL = (a.STAGELIGHT_STAGE, *_MODEL)

LABEL_KEYS: Mapping[str, tuple[str, ...]] = {
    m.GEN_AI_CLIENT_OPERATION_DURATION: (*_TIERED, a.ERROR_TYPE),
    m.GEN_AI_CLIENT_INFERENCE_DURATION: (*_TIERED, a.ERROR_TYPE),
    m.GEN_AI_CLIENT_TOKEN_USAGE: (*_TIERED, a.ERROR_TYPE, a.GEN_AI_TOKEN_TYPE),
    m.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK: _CLIENT,
    m.GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK: _CLIENT,
    m.GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK: _CLIENT,
    m.GEN_AI_CLIENT_INFERENCE_TIME_PER_OUTPUT_CHUNK: _CLIENT,
    m.GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS: _TIERED,
    m.GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS: _TIERED,
    m.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS: (*_TIERED, a.GEN_AI_TOKEN_MODALITY),
    m.GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS: (*_TIERED, a.GEN_AI_TOKEN_MODALITY),
    m.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS: (*_TIERED, a.GEN_AI_TOKEN_MODALITY),
    m.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS: (*_TIERED, a.GEN_AI_TOKEN_MODALITY),
    m.GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS: (*_TIERED, a.GEN_AI_TOKEN_MODALITY),
    m.GEN_AI_EXECUTE_TOOL_DURATION: (a.GEN_AI_TOOL_NAME, a.GEN_AI_TOOL_TYPE, a.ERROR_TYPE),
    m.STAGELIGHT_STAGE_DURATION: (*_STAGED_MODEL, a.STAGELIGHT_OUTCOME, a.ERROR_TYPE),
    m.STAGELIGHT_STREAM_OUTCOMES: (*_STAGED_MODEL, a.STAGELIGHT_OUTCOME),
    m.STAGELIGHT_RETRIEVAL_RESULTS: (*_PLACE, a.GEN_AI_PROVIDER_NAME),
    m.STAGELIGHT_RETRIEVAL_SEARCHES: (*_PLACE, a.GEN_AI_PROVIDER_NAME, a.STAGELIGHT_RETRIEVAL_EMPTY),
    m.STAGELIGHT_RETRIEVAL_TOP_SCORE: (*_PLACE, a.STAGELIGHT_RETRIEVAL_METRIC),
    m.STAGELIGHT_RETRIEVAL_MARGIN: (*_PLACE, a.STAGELIGHT_RETRIEVAL_METRIC),
    m.STAGELIGHT_TTS_CHARACTERS: _MODEL,
    m.STAGELIGHT_TTS_AUDIO_SECONDS: _MODEL,
    m.STAGELIGHT_TTS_REAL_TIME_FACTOR: _MODEL,
    m.STAGELIGHT_STT_AUDIO_SECONDS: _MODEL,
    m.STAGELIGHT_USAGE_COST: (
        a.STAGELIGHT_STAGE,
        a.GEN_AI_OPERATION_NAME,
        *_MODEL,
        a.STAGELIGHT_FEATURE,
        a.STAGELIGHT_TENANT,
        a.STAGELIGHT_COST_STATUS,
        a.STAGELIGHT_COST_COMPONENT,
    ),
    m.STAGELIGHT_USAGE_UNPRICED: (*_STAGED_MODEL, a.STAGELIGHT_COST_REASON),
    m.STAGELIGHT_JOB_DURATION: (a.STAGELIGHT_JOB_NAME, a.STAGELIGHT_OUTCOME, a.ERROR_TYPE),
    m.GEN_AI_INVOKE_WORKFLOW_DURATION: (a.GEN_AI_WORKFLOW_NAME, a.ERROR_TYPE),
    m.STAGELIGHT_TURN_DURATION: (*_OWNER, a.STAGELIGHT_OUTCOME),
    m.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN: _OWNER,
    m.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO: _OWNER,
    m.STAGELIGHT_TURN_COST: _OWNER,
    m.STAGELIGHT_TURN_STAGE_SELF_TIME: (a.GEN_AI_WORKFLOW_NAME, a.STAGELIGHT_STAGE),
    m.STAGELIGHT_TURN_STAGE_SHARE: (a.GEN_AI_WORKFLOW_NAME, a.STAGELIGHT_STAGE),
    m.STAGELIGHT_RETRIES: _STAGED_MODEL,
    m.STAGELIGHT_DOUBLE_COUNTED: (a.GEN_AI_PROVIDER_NAME, a.STAGELIGHT_INSTRUMENTATIONS),
    m.STAGELIGHT_UNINSTRUMENTED_CALLS: (a.SERVER_ADDRESS, a.STAGELIGHT_HTTP_CLIENT),
    m.STAGELIGHT_CACHE_LOOKUPS: (a.STAGELIGHT_CACHE_NAME, a.STAGELIGHT_CACHE_RESULT),
    m.STAGELIGHT_FEEDBACK_SCORES: (
        a.STAGELIGHT_FEEDBACK_KIND,
        a.STAGELIGHT_FEEDBACK_THEME,
        a.STAGELIGHT_FEATURE,
        a.STAGELIGHT_VARIANT,
    ),
    m.STAGELIGHT_EVALUATION_SCORES: (
        a.GEN_AI_EVALUATION_NAME,
        a.GEN_AI_EVALUATION_SCORE_LABEL,
        a.STAGELIGHT_FEATURE,
        a.STAGELIGHT_VARIANT,
    ),
}
"""The labels of every recorded metric, in the order in which its values are given."""


class BoundedLabels:
    """Bounds the labels of all metrics of a process.

    Args:
        bounds: the table of admitted values.
    """

    def __init__(self, bounds: LabelBounds) -> None:
        self._bounds = bounds
        self._budget = SeriesBudget()

    def bound(self, metric: str, labels: Mapping[str, Any]) -> Labels:
        """The labels a point of ``metric`` is recorded with.

        Once the metric's budget of series is spent, its owners become ``other``, then all free text.
        """
        admitted: Labels = {}
        for key, value in labels.items():
            if value is not None:
                kind = _BOUNDED.get(key)
                admitted[key] = value if kind is None else self._admitted(kind, value)
        if admitted.get(a.SERVER_PORT) == OTHER:
            del admitted[a.SERVER_PORT]  # a number, which has no other
        for folded in (admitted, _folded(admitted, _OWNERS)):
            if self._budget.allows(metric, tuple(folded.items())):
                return folded
        return _folded(admitted, _BOUNDED.keys() - _SMALL)

    def _admitted(self, kind: str, value: Any) -> Any:
        text = value if isinstance(value, str) else str(value)
        name = self._bounds.admit(kind, text)
        return value if name == text else name


def _folded(labels: Labels, keys: Collection[str]) -> Labels:
    return {key: OTHER if key in keys else value for key, value in labels.items() if key != a.SERVER_PORT}
