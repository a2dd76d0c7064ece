"""Labels of metric points: only those with a value, with free text bounded in values and in series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stagelight._bounds import OTHER, LabelBounds, SeriesBudget
from stagelight.conventions import attributes as a

__all__ = ["BoundedLabels", "Labels"]

Labels = dict[str, Any]

_BOUNDED: Mapping[str, str] = {
    a.GEN_AI_REQUEST_MODEL: "model",
    a.GEN_AI_RESPONSE_MODEL: "model",
    a.GEN_AI_PROVIDER_NAME: "provider",
    a.SERVER_ADDRESS: "host",
    a.ERROR_TYPE: "error",
    a.STAGELIGHT_FEATURE: "feature",
    a.STAGELIGHT_VARIANT: "feature",
    a.STAGELIGHT_TENANT: "tenant",
    a.STAGELIGHT_ROUTE: "route",
    a.GEN_AI_DATA_SOURCE_ID: "name",
    a.GEN_AI_WORKFLOW_NAME: "name",
    a.GEN_AI_TOOL_NAME: "name",
    a.STAGELIGHT_JOB_NAME: "name",
    a.STAGELIGHT_CACHE_NAME: "name",
    a.STAGELIGHT_RETRIEVAL_METRIC: "name",
    a.STAGELIGHT_RETRIEVAL_MODE: "name",
    a.GEN_AI_OPERATION_NAME: "name",
    a.GEN_AI_EVALUATION_NAME: "name",
    a.GEN_AI_EVALUATION_SCORE_LABEL: "name",
    a.STAGELIGHT_FEEDBACK_KIND: "name",
    a.STAGELIGHT_FEEDBACK_THEME: "name",
    a.OPENAI_RESPONSE_SERVICE_TIER: "name",
}
"""Kind of bound of each label whose values come from the application or a provider."""


class BoundedLabels:
    """Bounds the labels of all metrics of a process.

    Args:
        bounds: the table of admitted values.
    """

    def __init__(self, bounds: LabelBounds) -> None:
        self._bounds = bounds
        self._budget = SeriesBudget()

    def bound(self, metric: str, labels: Mapping[str, Any]) -> Labels:
        """The labels a point of ``metric`` is recorded with; all free text is ``other`` once its budget is spent."""
        admitted: Labels = {}
        for key, value in labels.items():
            if value is not None:
                kind = _BOUNDED.get(key)
                admitted[key] = value if kind is None else self._bounds.admit(kind, str(value))
        if self._budget.allows(metric, tuple(admitted.items())):
            return admitted
        return {key: OTHER if key in _BOUNDED else value for key, value in admitted.items()}
