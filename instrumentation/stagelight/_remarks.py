"""What an application says beside its calls: for whom a turn is, cache lookups, evaluations and feedback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import context as otel_context

from stagelight import _runtime
from stagelight._guard import guard, misuse
from stagelight._inbound import current_inbound
from stagelight._ledger import record_event
from stagelight._turns import current_turn
from stagelight._validation import checked_score, checked_text
from stagelight.conventions import attributes as a
from stagelight.conventions import events as e
from stagelight.facts import Identity

__all__ = ["cache", "evaluation", "feedback", "identify", "owner_of"]


def _pseudonym(call: str, name: str, value: Any) -> str | None:
    text = checked_text(call, name, value)
    if text is None:
        return None
    pseudonyms = _runtime.current().pseudonyms
    return None if pseudonyms is None else pseudonyms.of(text)


def owner_of(call: str, **given: Any) -> Identity:
    """The accepted facts of whose work a turn is; user and session become pseudonyms or are dropped."""
    plain = {name: checked_text(call, name, given.get(name)) for name in ("feature", "variant", "tenant", "route")}
    return Identity(
        **plain,
        user=_pseudonym(call, "user_id", given.get("user_id")),
        session=_pseudonym(call, "session_id", given.get("session_id")),
        conversation=checked_text(call, "conversation_id", given.get("conversation_id")),
    )


def identify(
    *,
    user_id: str | None = None,
    session_id: str | None = None,
    tenant: str | None = None,
    feature: str | None = None,
    variant: str | None = None,
    route: str | None = None,
    conversation_id: str | None = None,
) -> None:
    """Say for whom the current turn is, whenever it becomes known; arguments as for ``turn``."""
    with guard("identify"):
        given = owner_of(
            "identify",
            user_id=user_id,
            session_id=session_id,
            tenant=tenant,
            feature=feature,
            variant=variant,
            route=route,
            conversation_id=conversation_id,
        )
        inside = current_turn() or current_inbound()
        if inside is None:
            misuse("state", "identify():", "outside a turn it has no effect; accepted: inside a turn, job or request")
            return
        known = {name: value for name, value in given._asdict().items() if value is not None}
        inside.identity = inside.identity._replace(**known)


def cache(name: str, *, hit: bool) -> None:
    """Count one lookup in a cache.

    Args:
        name: the cache, low cardinality: ``embedding``.
        hit: whether it had the value.
    """
    with guard("cache"):
        instruments = _runtime.current().instruments
        checked = checked_text("cache", "name", name)
        if checked is not None:
            instruments.cache(checked, bool(hit))


def _labels(own: Mapping[str, str | None]) -> dict[str, Any]:
    inside = current_turn()
    owner = inside.identity if inside is not None else Identity()
    labels = {**own, a.STAGELIGHT_FEATURE: owner.feature, a.STAGELIGHT_VARIANT: owner.variant}
    return {key: value for key, value in labels.items() if value is not None}


def evaluation(name: str, *, score: float, label: str | None = None) -> None:
    """Record an evaluation of the current turn: an event and a histogram.

    Args:
        name: what was judged, low cardinality: ``groundedness``.
        score: a finite number; its scale is yours. A negative score is in the event only.
        label: the verdict in a word, low cardinality.
    """
    with guard("evaluation"):
        value = checked_score("evaluation", score)
        if value is None:
            return
        judged = checked_text("evaluation", "name", name)
        verdict = checked_text("evaluation", "label", label)
        if judged is None:
            return
        labels = _labels({a.GEN_AI_EVALUATION_NAME: judged, a.GEN_AI_EVALUATION_SCORE_LABEL: verdict})
        _score(e.GEN_AI_EVALUATION_RESULT, {**labels, a.GEN_AI_EVALUATION_SCORE_VALUE: value})
        if value >= 0:
            _runtime.current().instruments.evaluation(value, labels)


def feedback(*, score: float, comment_theme: str | None = None, kind: str | None = None) -> None:
    """Record a user's feedback on the current turn: an event and a histogram.

    Args:
        score: a finite number; 1 for good and 0 for bad unless your scale is another. Histograms take no negative
            values: a negative score is in the event only.
        comment_theme: theme of the comment, low cardinality; never the comment itself.
        kind: how it was given, low cardinality: ``thumbs``, ``stars``.
    """
    with guard("feedback"):
        value = checked_score("feedback", score)
        if value is None:
            return
        theme = checked_text("feedback", "comment_theme", comment_theme)
        given = checked_text("feedback", "kind", kind)
        labels = _labels({a.STAGELIGHT_FEEDBACK_THEME: theme, a.STAGELIGHT_FEEDBACK_KIND: given})
        _score(e.STAGELIGHT_FEEDBACK_RECORDED, {**labels, a.STAGELIGHT_FEEDBACK_SCORE: value})
        inside = current_turn()
        if inside is not None:  # for tail sampling, which keeps what users complain about
            inside.span.set_attribute(a.STAGELIGHT_FEEDBACK_SCORE, value)
        if value >= 0:
            _runtime.current().instruments.feedback(value, labels)


def _score(event: str, attributes: dict[str, Any]) -> None:
    kept = {a.STAGELIGHT_RECORD_KIND: "app", **attributes}
    record_event(_runtime.current().logger, event, kept, otel_context.get_current())
