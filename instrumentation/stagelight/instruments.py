"""Facts -> metric records, per profile. Call sites record facts; only this module knows which instrument takes them.

Every label passes ``_labels``, which bounds free text. A series is looked up by its raw values and kept, so that a
record costs one look-up and one addition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stagelight._attributes import cost_status, real_time_factor
from stagelight._bounds import OTHER, LabelBounds
from stagelight._labels import LABEL_KEYS, BoundedLabels
from stagelight._modalities import modal_counts
from stagelight._operations import operation_name
from stagelight.conventions import metrics as m
from stagelight.conventions.metrics import METRICS
from stagelight.export.accumulators import Backend, Series, Where
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

_LARGEST = 2.0**53
"""No count of tokens or seconds is larger, and sums of larger ones leave the 64 bits that every later push needs."""

Values = tuple[Any, ...]


class Instruments:
    """The metrics of one process, and the mapping of facts onto them.

    Args:
        backend: what the series are made of.
        profile: generation of upstream names.
        bounds: the table of admitted label values; default a new one.
    """

    def __init__(self, backend: Backend, profile: Profile = "released", bounds: LabelBounds | None = None) -> None:
        self.bounds = LabelBounds() if bounds is None else bounds
        self._backend = backend
        self._labels = BoundedLabels(self.bounds)
        self._latest = profile == "latest"
        self._known: dict[tuple[str, Values], Series] = {}
        self._announced: set[Values] = set()
        self.rate_limits: dict[tuple[str, str], dict[str, int]] = {}

    def _add(self, metric: str, value: float, values: Values, where: Where | None = None) -> None:
        """Add to the series of ``metric`` whose labels have these raw values, in the order of ``LABEL_KEYS``."""
        if abs(value) > _LARGEST:
            return
        series = self._known.get((metric, values))
        if series is None:
            series = self._find(metric, values)
        series.add(value, where)

    def _find(self, metric: str, values: Values) -> Series:
        given = {key: value for key, value in zip(LABEL_KEYS[metric], values, strict=True) if value is not None}
        labels = self._labels.bound(metric, given)
        series = self._backend.series(METRICS[metric], labels)
        if labels == given:  # bounded in number like the labels themselves
            self._known[metric, values] = series
        return series

    # calls

    def call(self, facts: CallFacts, where: Where | None = None) -> None:
        """Record an ended call: its duration, stream, tokens, results and speech."""
        request, response = facts.request, facts.response
        client = _client(facts.stage, request, response.model if response is not None else None)
        tier = response.service_tier if response is not None else None
        if facts.own:
            self._of_client(facts, client, tier, where)
        if facts.attempts > 1:
            self._add(m.STAGELIGHT_RETRIES, facts.attempts - 1, (facts.stage, request.provider, request.model))
        if facts.chunks is not None:
            self._add(m.STAGELIGHT_STREAM_OUTCOMES, 1, (facts.stage, request.provider, request.model, facts.outcome))
        if facts.stage == "retrieval":
            self._retrieval(facts, where)
        elif facts.stage in {"tts", "stt"}:
            self._speech(facts, where)
        if response is not None and response.rate_limit is not None:
            self._rate_limit(facts)

    def _of_client(self, facts: CallFacts, client: Values, tier: str | None, where: Where | None) -> None:
        """What every instrumentation of a client records, under the names of the conventions."""
        self._duration(facts, client, tier, where)
        if client[0] is None:  # upstream's metrics are by operation
            return
        if facts.usage is not None:
            self._tokens(facts, facts.usage, client, tier, where)
        if facts.first_chunk_s is not None:
            name = (
                m.GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK
                if self._latest
                else m.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK
            )
            self._add(name, facts.first_chunk_s, client, where)
        if facts.gaps_s:
            self._record_gaps(facts.gaps_s, client, where)

    def gaps(self, stage: Stage, request: Request, gaps_s: tuple[float, ...], where: Where | None = None) -> None:
        """Record the times between chunks of a stream that still runs."""
        client = _client(stage, request, None)
        if client[0] is not None:
            self._record_gaps(gaps_s, client, where)

    def _record_gaps(self, gaps_s: tuple[float, ...], client: Values, where: Where | None) -> None:
        name = (
            m.GEN_AI_CLIENT_INFERENCE_TIME_PER_OUTPUT_CHUNK
            if self._latest
            else m.GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK
        )
        for gap in gaps_s:
            self._add(name, gap, client, where)

    def _duration(self, facts: CallFacts, client: Values, tier: str | None, where: Where | None) -> None:
        request = facts.request
        if facts.stage == "tool":
            ran = (request.name, request.tool_type, facts.error_type)
            self._add(m.GEN_AI_EXECUTE_TOOL_DURATION, facts.duration_s, ran, where)
        elif client[0] is None:
            values = (facts.stage, request.provider, request.model, facts.outcome, facts.error_type)
            self._add(m.STAGELIGHT_STAGE_DURATION, facts.duration_s, values, where)
        else:
            inference = self._latest and facts.stage == "llm"
            name = m.GEN_AI_CLIENT_INFERENCE_DURATION if inference else m.GEN_AI_CLIENT_OPERATION_DURATION
            self._add(name, facts.duration_s, (*client, tier, facts.error_type), where)

    def _tokens(self, facts: CallFacts, usage: Usage, client: Values, tier: str | None, where: Where | None) -> None:
        if not self._latest:
            for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                if count is not None:
                    values = (*client, tier, facts.error_type, kind)
                    self._add(m.GEN_AI_CLIENT_TOKEN_USAGE, count, values, where)
            return
        if facts.stage != "llm":
            return
        for name, total in (
            (m.GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS, usage.input_tokens),
            (m.GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS, usage.output_tokens),
        ):
            if total is not None:
                self._add(name, total, (*client, tier), where)
        for name, modality, part in modal_counts(usage):
            self._add(name, part, (*client, tier, modality), where)

    def _retrieval(self, facts: CallFacts, where: Where | None) -> None:
        found = facts.response.retrieved if facts.response is not None else None
        if found is None:
            return
        request = facts.request
        place = (request.source, request.mode)
        owner = (*place, request.provider)
        self._add(m.STAGELIGHT_RETRIEVAL_RESULTS, found.count, owner, where)
        self._add(m.STAGELIGHT_RETRIEVAL_SEARCHES, 1, (*owner, found.count == 0))
        if found.scores and found.metric is not None:
            best_first = sorted(found.scores, reverse=found.higher_is_better is not False)
            measured = (*place, found.metric)
            self._add(m.STAGELIGHT_RETRIEVAL_TOP_SCORE, best_first[0], measured, where)
            if len(best_first) > 1:
                self._add(m.STAGELIGHT_RETRIEVAL_MARGIN, abs(best_first[0] - best_first[1]), measured, where)

    def _speech(self, facts: CallFacts, where: Where | None) -> None:
        request, usage = facts.request, facts.usage
        model = (request.provider, request.model)
        seconds = usage.audio_seconds if usage is not None else None
        if facts.stage == "stt":
            if seconds:
                self._add(m.STAGELIGHT_STT_AUDIO_SECONDS, seconds, model)
            return
        characters = (usage.characters if usage is not None else None) or request.characters
        if characters:
            self._add(m.STAGELIGHT_TTS_CHARACTERS, characters, model)
        if seconds:
            self._add(m.STAGELIGHT_TTS_AUDIO_SECONDS, seconds, model)
        factor = real_time_factor(facts)
        if factor is not None:
            self._add(m.STAGELIGHT_TTS_REAL_TIME_FACTOR, factor, model, where)

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

    def is_new(self, stage: Stage, request: Request, identity: Identity) -> bool:
        """Whether this stage, provider, model and owner are called for the first time in this process."""
        key = (stage, request.provider, request.model, identity.feature, identity.tenant)
        if key in self._announced or len(self._announced) >= _ANNOUNCED_LIMIT:
            return False
        self._announced.add(key)
        return True

    def announce(self, stage: Stage, request: Request, identity: Identity) -> None:
        """Start the counters a first call of this model will increase at 0."""
        owner = _payer(stage, request, identity)
        for component in _EXPECTED.get(stage, ()):
            self._add(m.STAGELIGHT_USAGE_COST, 0, (*owner, "exact", component))

    def billed(self, facts: CallFacts, identity: Identity) -> None:
        """Record what a call cost, or that its cost is not known."""
        cost, request = facts.cost, facts.request
        if cost is None:
            return
        if not isinstance(cost, Unpriced):
            owner, status = _payer(facts.stage, request, identity), cost_status(cost)
            for component, amount in cost.components.items():
                self._add(m.STAGELIGHT_USAGE_COST, float(amount), (*owner, status, component))
        if isinstance(cost, Unpriced | Partial):
            reason = cost.reason if isinstance(cost, Unpriced) else "unit_not_priced"
            self._add(m.STAGELIGHT_USAGE_UNPRICED, 1, (facts.stage, request.provider, request.model, reason))

    # turns

    def turn(self, facts: TurnFacts, identity: Identity, where: Where | None = None) -> None:
        """Record an ended turn or job."""
        if facts.kind == "job":
            values = (facts.name, facts.outcome, facts.error_type)
            self._add(m.STAGELIGHT_JOB_DURATION, facts.duration_s, values, where)
            return
        self._add(m.GEN_AI_INVOKE_WORKFLOW_DURATION, facts.duration_s, (facts.name, facts.error_type), where)
        owner = (facts.name, identity.feature, identity.tenant, identity.variant, identity.route)
        self._add(m.STAGELIGHT_TURN_DURATION, facts.duration_s, (*owner, facts.outcome), where)
        for metric, value in (
            (m.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN, facts.time_to_first_token_s),
            (m.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO, facts.time_to_first_audio_s),
            (m.STAGELIGHT_TURN_COST, None if facts.cost is None else float(facts.cost)),
        ):
            if value is not None:
                self._add(metric, value, owner, where)
        for stage, seconds in facts.self_time_s.items():
            self._add(m.STAGELIGHT_TURN_STAGE_SELF_TIME, seconds, (facts.name, stage), where)
            if facts.duration_s > 0:
                self._add(m.STAGELIGHT_TURN_STAGE_SHARE, seconds / facts.duration_s, (facts.name, stage), where)

    # facts that are not calls

    def cache(self, name: str, hit: bool) -> None:
        """Record one cache lookup."""
        self._add(m.STAGELIGHT_CACHE_LOOKUPS, 1, (name, "hit" if hit else "miss"))

    def double_counted(self, provider: str | None, instrumentations: str) -> None:
        """Record that one call was recorded by two instrumentations."""
        self._add(m.STAGELIGHT_DOUBLE_COUNTED, 1, (provider, instrumentations))

    def uninstrumented(self, host: str, client: str) -> None:
        """Record an HTTP request to an AI provider outside any stage."""
        self._add(m.STAGELIGHT_UNINSTRUMENTED_CALLS, 1, (host, client))

    def feedback(self, score: float, labels: Mapping[str, Any]) -> None:
        """Record a user's feedback."""
        self._score(m.STAGELIGHT_FEEDBACK_SCORES, score, labels)

    def evaluation(self, score: float, labels: Mapping[str, Any]) -> None:
        """Record an evaluation's score."""
        self._score(m.STAGELIGHT_EVALUATION_SCORES, score, labels)

    def _score(self, metric: str, score: float, labels: Mapping[str, Any]) -> None:
        self._add(metric, score, tuple(labels.get(key) for key in LABEL_KEYS[metric]))


def _client(stage: Stage, request: Request, response_model: str | None) -> Values:
    return (
        operation_name(stage, request),
        request.provider,
        request.model,
        response_model,
        request.server_address,
        request.server_port,
    )


def _payer(stage: Stage, request: Request, identity: Identity) -> Values:
    operation = operation_name(stage, request)
    return (stage, operation, request.provider, request.model, identity.feature, identity.tenant)
