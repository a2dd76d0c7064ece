"""Spans of other instrumentations on the same providers: whose calls they record, so that none is counted twice."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from stagelight.conventions import attributes as a

__all__ = ["ForeignSpans"]

_GENERATING = frozenset({"chat", "generate_content", "text_completion", None})
"""Operations whose answer has an id of its own; agents repeat those of their calls, and fetching is no call."""


class ForeignSpans(SpanProcessor):
    """Tells of every answer of a language model that another instrumentation has recorded.

    Args:
        own: name of our own instrumentation scope.
        recorded: called with the answer's id, its provider and the name of the instrumentation.
    """

    def __init__(self, own: str, recorded: Callable[[str, str | None, str], None]) -> None:
        self._own = own
        self._recorded = recorded

    def on_end(self, span: ReadableSpan) -> None:
        """Look at an ended span."""
        attributes, scope = span.attributes or {}, span.instrumentation_scope
        response_id = attributes.get(a.GEN_AI_RESPONSE_ID)
        if not isinstance(response_id, str) or scope is None or scope.name == self._own:
            return
        provider = attributes.get(a.GEN_AI_PROVIDER_NAME)
        if attributes.get(a.GEN_AI_OPERATION_NAME) in _GENERATING:
            self._recorded(response_id, provider if isinstance(provider, str) else None, scope.name)
