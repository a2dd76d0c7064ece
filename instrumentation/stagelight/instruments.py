"""Facts -> metric records, per profile. Call sites record facts; only this module knows which instrument takes them.

Every label passes ``_labels``, which bounds free text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import Counter, Histogram, Meter

from stagelight._attributes import cost_status, real_time_factor
from stagelight._bounds import OTHER, LabelBounds
from stagelight._labels import BoundedLabels, Labels
from stagelight._operations import operation_name
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.conventions.metrics import METRICS
from stagelight.facts import CallFacts, Component, Identity, Partial, Request, Stage, TurnFacts, Unpriced, Usage
from stagelight.settings import Profile

__all__ = ["Instruments"]

_EXPECTED: Mapping[Stage, tuple[Component, ...]] = {
    "llm": ("input", "output", "cache_read"),
    "embedding": ("input",),
    "tts": ("characters",),
    "stt": ("audio_seconds",),
}
"""Components that start at 0 when a model is first called, so that its first spend is an increase."""

_ANNOUNCED_LIMIT = 512


_OBSERVED = (
    m.STAGELIGHT_TELEMETRY_MADE,
    m.STAGELIGHT_TELEMETRY_DELIVERED,
    m.STAGELIGHT_TELEMETRY_DROPPED,
    m.STAGELIGHT_LABELS_BOUNDED,
    m.STAGELIGHT_MISUSES,
    m.STAGELIGHT_INTERNAL_ERRORS,
)
"""Counters whose totals are kept elsewhere and read by callbacks (``_self_metrics``)."""


class Instruments:
    """The instruments of one meter, and the mapping onto them.

    Args:
        meter: where the instruments are made.
        profile: generation of upstream names.
        bounds: the table of admitted label values; default a new one.
    """

    def __init__(self, meter: Meter, profile: Profile = "released", bounds: LabelBounds | None = None) -> None:
        self.meter = meter
        self.bounds = LabelBounds() if bounds is None else bounds
        self._labels = BoundedLabels(self.bounds)
        self._latest = profile == "latest"
        self._histograms: dict[str, Histogram] = {}
        self._counters: dict[str, Counter] = {}
        self._announced: set[tuple[object, ...]] = set()
        self.rate_limits: dict[tuple[str, str], dict[str, int]] = {}
        for metric in METRICS.values():
            if profile not in metric.profiles:
                continue
            if metric.instrument == "histogram":
                self._histograms[metric.name] = meter.create_histogram(
                    metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
                )
            elif metric.instrument == "counter" and not metric.name.startswith(_OBSERVED):
                self._counters[metric.name] = meter.create_counter(metric.name, metric.unit, metric.description)

    def _observe(self, metric: str, value: float, labels: Mapping[str, Any], context: Context | None = None) -> None:
        self._histograms[metric].record(value, self._labels.bound(metric, labels), context)

    def _add(self, metric: str, value: float, labels: Mapping[str, Any], context: Context | None = None) -> None:
        self._counters[metric].add(value, self._labels.bound(metric, labels), context)

    @staticmethod
    def _client_labels(stage: Stage, request: Request, response_model: str | None) -> Labels:
        return {
            a.GEN_AI_OPERATION_NAME: operation_name(stage, request),
            a.GEN_AI_PROVIDER_NAME: request.provider,
            a.GEN_AI_REQUEST_MODEL: request.model,
            a.GEN_AI_RESPONSE_MODEL: response_model,
            a.SERVER_ADDRESS: request.server_address,
            a.SERVER_PORT: request.server_port,
        }

    # calls

    def call(self, facts: CallFacts, context: Context | None = None) -> None:
        """Record an ended call: its duration, stream, tokens, results and speech."""
        request, response = facts.request, facts.response
        labels = self._client_labels(facts.stage, request, response.model if response is not None else None)
        if response is not None and response.service_tier is not None:
            labels[a.OPENAI_RESPONSE_SERVICE_TIER] = response.service_tier
        self._duration(facts, labels, context)
        if facts.usage is not None:
            self._tokens(facts, facts.usage, labels, context)
        labels.pop(a.OPENAI_RESPONSE_SERVICE_TIER, None)
        if facts.first_chunk_s is not None:
            name = (
                m.GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK
                if self._latest
                else m.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK
            )
            self._observe(name, facts.first_chunk_s, labels, context)
        if facts.gaps_s:
            self._record_gaps(facts.gaps_s, labels, context)
        if facts.chunks is not None:
            self._add(
                m.STAGELIGHT_STREAM_OUTCOMES,
                1,
                {
                    a.STAGELIGHT_STAGE: facts.stage,
                    a.GEN_AI_PROVIDER_NAME: request.provider,
                    a.GEN_AI_REQUEST_MODEL: request.model,
                    a.STAGELIGHT_OUTCOME: facts.outcome,
                },
            )
        if facts.stage == "retrieval":
            self._retrieval(facts, context)
        elif facts.stage in {"tts", "stt"}:
            self._speech(facts, context)
        if response is not None and response.rate_limit is not None:
            self._rate_limit(facts)

    def gaps(self, stage: Stage, request: Request, gaps_s: tuple[float, ...], context: Context | None = None) -> None:
        """Record the times between chunks of a stream that still runs."""
        self._record_gaps(gaps_s, self._client_labels(stage, request, None), context)

    def _record_gaps(self, gaps_s: tuple[float, ...], labels: Labels, context: Context | None) -> None:
        name = (
            m.GEN_AI_CLIENT_INFERENCE_TIME_PER_OUTPUT_CHUNK
            if self._latest
            else m.GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK
        )
        histogram, admitted = self._histograms[name], self._labels.bound(name, labels)
        for gap in gaps_s:
            histogram.record(gap, admitted, context)

    def _duration(self, facts: CallFacts, labels: Labels, context: Context | None) -> None:
        operation = labels[a.GEN_AI_OPERATION_NAME]
        if facts.stage == "tool":
            kept = {a.GEN_AI_TOOL_NAME: facts.request.name, a.ERROR_TYPE: facts.error_type}
            self._observe(m.GEN_AI_EXECUTE_TOOL_DURATION, facts.duration_s, kept, context)
        elif operation is None:
            kept = {
                a.STAGELIGHT_STAGE: facts.stage,
                a.GEN_AI_PROVIDER_NAME: facts.request.provider,
                a.GEN_AI_REQUEST_MODEL: facts.request.model,
                a.STAGELIGHT_OUTCOME: facts.outcome,
                a.ERROR_TYPE: facts.error_type,
            }
            self._observe(m.STAGELIGHT_STAGE_DURATION, facts.duration_s, kept, context)
        else:
            inference = self._latest and facts.stage == "llm"
            name = m.GEN_AI_CLIENT_INFERENCE_DURATION if inference else m.GEN_AI_CLIENT_OPERATION_DURATION
            self._observe(name, facts.duration_s, {**labels, a.ERROR_TYPE: facts.error_type}, context)

    def _tokens(self, facts: CallFacts, usage: Usage, labels: Labels, context: Context | None) -> None:
        counts = {"input": usage.input_tokens, "output": usage.output_tokens}
        if not self._latest:
            for kind, count in counts.items():
                if count is not None:
                    self._observe(m.GEN_AI_CLIENT_TOKEN_USAGE, count, {**labels, a.GEN_AI_TOKEN_TYPE: kind}, context)
            return
        if facts.stage != "llm":
            return
        labels = {key: value for key, value in labels.items() if key != a.OPENAI_RESPONSE_SERVICE_TIER}
        for name, count in (
            (m.GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS, usage.input_tokens),
            (m.GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS, usage.output_tokens),
        ):
            if count is not None:
                self._observe(name, count, labels, context)
        for name, modality, count in _modal_counts(usage):
            self._add(name, count, {**labels, a.GEN_AI_TOKEN_MODALITY: modality}, context)

    def _retrieval(self, facts: CallFacts, context: Context | None) -> None:
        found = facts.response.retrieved if facts.response is not None else None
        if found is None:
            return
        place = {
            a.GEN_AI_DATA_SOURCE_ID: facts.request.source,
            a.STAGELIGHT_RETRIEVAL_MODE: facts.request.mode,
        }
        owner = {**place, a.GEN_AI_PROVIDER_NAME: facts.request.provider}
        self._observe(m.STAGELIGHT_RETRIEVAL_RESULTS, found.count, owner, context)
        self._add(m.STAGELIGHT_RETRIEVAL_SEARCHES, 1, {**owner, a.STAGELIGHT_RETRIEVAL_EMPTY: found.count == 0})
        if found.scores and found.metric is not None:
            best_first = sorted(found.scores, reverse=found.higher_is_better is not False)
            measured = {**place, a.STAGELIGHT_RETRIEVAL_METRIC: found.metric}
            self._observe(m.STAGELIGHT_RETRIEVAL_TOP_SCORE, best_first[0], measured, context)
            if len(best_first) > 1:
                self._observe(m.STAGELIGHT_RETRIEVAL_MARGIN, abs(best_first[0] - best_first[1]), measured, context)

    def _speech(self, facts: CallFacts, context: Context | None) -> None:
        request, usage = facts.request, facts.usage
        labels = {a.GEN_AI_PROVIDER_NAME: request.provider, a.GEN_AI_REQUEST_MODEL: request.model}
        seconds = usage.audio_seconds if usage is not None else None
        if facts.stage == "stt":
            if seconds:
                self._add(m.STAGELIGHT_STT_AUDIO_SECONDS, seconds, labels)
            return
        characters = (usage.characters if usage is not None else None) or request.characters
        if characters:
            self._add(m.STAGELIGHT_TTS_CHARACTERS, characters, labels)
        if seconds:
            self._add(m.STAGELIGHT_TTS_AUDIO_SECONDS, seconds, labels)
        factor = real_time_factor(facts)
        if factor is not None:
            self._observe(m.STAGELIGHT_TTS_REAL_TIME_FACTOR, factor, labels, context)

    def _rate_limit(self, facts: CallFacts) -> None:
        limit = facts.response.rate_limit if facts.response is not None else None
        if limit is None:
            return
        key = (
            self.bounds.admit("provider", facts.request.provider or OTHER),
            self.bounds.admit("model", facts.request.model or OTHER),
        )
        left = self.rate_limits.setdefault(key, {})
        for name, value in (
            (m.STAGELIGHT_RATELIMIT_REMAINING_REQUESTS, limit.remaining_requests),
            (m.STAGELIGHT_RATELIMIT_REMAINING_TOKENS, limit.remaining_tokens),
        ):
            if value is not None:
                left[name] = value

    # money

    def _cost_labels(self, stage: Stage, request: Request, identity: Identity, status: str) -> Labels:
        return {
            a.STAGELIGHT_STAGE: stage,
            a.GEN_AI_OPERATION_NAME: operation_name(stage, request),
            a.GEN_AI_PROVIDER_NAME: request.provider,
            a.GEN_AI_REQUEST_MODEL: request.model,
            a.STAGELIGHT_FEATURE: identity.feature,
            a.STAGELIGHT_TENANT: identity.tenant,
            a.STAGELIGHT_COST_STATUS: status,
        }

    def announce(self, stage: Stage, request: Request, identity: Identity) -> None:
        """Start the counters a first call of this model will increase at 0."""
        for component in _EXPECTED.get(stage, ()):
            labels = self._cost_labels(stage, request, identity, "exact")
            self._add(m.STAGELIGHT_USAGE_COST, 0, {**labels, a.STAGELIGHT_COST_COMPONENT: component})

    def is_new(self, stage: Stage, request: Request, identity: Identity) -> bool:
        """Whether this stage, provider, model and owner are called for the first time in this process."""
        key = (stage, request.provider, request.model, identity.feature, identity.tenant)
        if key in self._announced or len(self._announced) >= _ANNOUNCED_LIMIT:
            return False
        self._announced.add(key)
        return True

    def billed(self, facts: CallFacts, identity: Identity, context: Context | None = None) -> None:
        """Record what a call cost, or that its cost is not known."""
        cost = facts.cost
        if cost is None:
            return
        if not isinstance(cost, Unpriced):
            labels = self._cost_labels(facts.stage, facts.request, identity, cost_status(cost))
            for component, amount in cost.components.items():
                value = {**labels, a.STAGELIGHT_COST_COMPONENT: component}
                self._add(m.STAGELIGHT_USAGE_COST, float(amount), value, context)
        if isinstance(cost, Unpriced | Partial):
            reason = cost.reason if isinstance(cost, Unpriced) else "unit_not_priced"
            self._add(
                m.STAGELIGHT_USAGE_UNPRICED,
                1,
                {
                    a.STAGELIGHT_STAGE: facts.stage,
                    a.GEN_AI_PROVIDER_NAME: facts.request.provider,
                    a.GEN_AI_REQUEST_MODEL: facts.request.model,
                    a.STAGELIGHT_COST_REASON: reason,
                },
            )

    # turns

    def turn(self, facts: TurnFacts, identity: Identity, context: Context | None = None) -> None:
        """Record an ended turn or job."""
        if facts.kind == "job":
            labels = {
                a.STAGELIGHT_JOB_NAME: facts.name,
                a.STAGELIGHT_OUTCOME: facts.outcome,
                a.ERROR_TYPE: facts.error_type,
            }
            self._observe(m.STAGELIGHT_JOB_DURATION, facts.duration_s, labels, context)
            return
        name = {a.GEN_AI_WORKFLOW_NAME: facts.name}
        error = {**name, a.ERROR_TYPE: facts.error_type}
        self._observe(m.GEN_AI_INVOKE_WORKFLOW_DURATION, facts.duration_s, error, context)
        owner = {
            **name,
            a.STAGELIGHT_FEATURE: identity.feature,
            a.STAGELIGHT_TENANT: identity.tenant,
            a.STAGELIGHT_VARIANT: identity.variant,
            a.STAGELIGHT_ROUTE: identity.route,
        }
        duration = {**owner, a.STAGELIGHT_OUTCOME: facts.outcome}
        self._observe(m.STAGELIGHT_TURN_DURATION, facts.duration_s, duration, context)
        for metric, value in (
            (m.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN, facts.time_to_first_token_s),
            (m.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO, facts.time_to_first_audio_s),
            (m.STAGELIGHT_TURN_COST, None if facts.cost is None else float(facts.cost)),
        ):
            if value is not None:
                self._observe(metric, value, owner, context)
        for stage, seconds in facts.self_time_s.items():
            labels = {**name, a.STAGELIGHT_STAGE: stage}
            self._observe(m.STAGELIGHT_TURN_STAGE_SELF_TIME, seconds, labels, context)
            if facts.duration_s > 0:
                self._observe(m.STAGELIGHT_TURN_STAGE_SHARE, seconds / facts.duration_s, labels, context)

    # facts that are not calls

    def cache(self, name: str, hit: bool) -> None:
        """Record one cache lookup."""
        result = "hit" if hit else "miss"
        self._add(m.STAGELIGHT_CACHE_LOOKUPS, 1, {a.STAGELIGHT_CACHE_NAME: name, a.STAGELIGHT_CACHE_RESULT: result})

    def feedback(self, score: float, labels: Labels) -> None:
        """Record a user's feedback."""
        self._observe(m.STAGELIGHT_FEEDBACK_SCORES, score, labels)

    def evaluation(self, score: float, labels: Labels) -> None:
        """Record an evaluation's score."""
        self._observe(m.STAGELIGHT_EVALUATION_SCORES, score, labels)


def _modal_counts(usage: Usage) -> list[tuple[str, str, int]]:
    """Generation 2 counters with their modality; text is what the other modalities leave."""
    rows: list[tuple[str, str, int]] = []
    for name, total, audio, image in (
        (
            m.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS,
            usage.input_tokens,
            usage.audio_input_tokens,
            usage.image_input_tokens,
        ),
        (
            m.GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS,
            usage.output_tokens,
            usage.audio_output_tokens,
            usage.image_output_tokens,
        ),
        (m.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS, usage.cache_read_tokens,
         usage.audio_cache_read_tokens, None),
    ):  # fmt: skip
        if total is None:
            continue
        rows.append((name, "text", max(total - (audio or 0) - (image or 0), 0)))
        rows += [(name, kind, count) for kind, count in (("audio", audio), ("image", image)) if count]
    written = usage.cache_write_tokens
    if written is not None:
        count = sum(written.values()) if isinstance(written, Mapping) else written
        rows.append((m.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS, "text", count))
    if usage.reasoning_tokens is not None:
        rows.append((m.GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS, "text", usage.reasoning_tokens))
    return rows
