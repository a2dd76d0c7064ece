"""Questions to Prometheus: the Collector's span metrics, which count every span before any is left out by sampling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from stagelight.conventions import attributes as names
from stagelight.sources._gateway_http import GatewayClient, understood
from stagelight.sources._loki import label
from stagelight.sources.model import LatencyDimension, LatencyRow, Window

__all__ = ["Prometheus"]

_S: Final = 1_000_000_000
_SAMPLED: Final = "otelcol_processor_tail_sampling_global_count_traces_sampled"
_BUCKETS: Final = "traces_spanmetrics_latency_bucket"
_STAGE: Final = label(names.STAGELIGHT_STAGE)
_MODEL: Final = label(names.GEN_AI_REQUEST_MODEL)
_ERROR_TYPE: Final = label(names.ERROR_TYPE)
_GAP: Final = "1h"  # a series that was silent for longer has begun anew
_KEYS: Final[Mapping[LatencyDimension, tuple[str, str]]] = {
    # label of the key, and which spans count
    "stage": (_STAGE, f'{_STAGE}!=""'),
    "model": (_MODEL, f'{_MODEL}!="",{_STAGE}!~"|turn|job"'),
}

_Buckets = dict[str, dict[float, float]]


class Prometheus:
    """Prometheus behind a gateway."""

    def __init__(self, client: GatewayClient) -> None:
        self._client = client

    def is_sampled(self, window: Window) -> bool:
        """Whether the Collector has left out traces by sampling at any time of the window."""
        return bool(self._vector(f"count(max_over_time({_SAMPLED}[{_length(window)}]))", window))

    def latency(self, window: Window, by: LatencyDimension) -> list[LatencyRow]:
        """Durations per stage or model, slowest p95 first; estimated: see ``_quantile``."""
        key, condition = _KEYS[by]
        everything = self._buckets(key, condition, window)
        fine = self._buckets(key, f'{condition},{_ERROR_TYPE}="",status_code!="STATUS_CODE_ERROR",le="+Inf"', window)
        rows = [
            LatencyRow(
                key=name,
                calls=round(buckets[math.inf]),
                errors=max(round(buckets[math.inf] - fine.get(name, {}).get(math.inf, 0)), 0),
                p50_s=_quantile(buckets, 0.5),
                p95_s=_quantile(buckets, 0.95),
                p99_s=_quantile(buckets, 0.99),
                first_p50_s=None,
                first_p95_s=None,
            )
            for name, buckets in everything.items()
            if round(buckets.get(math.inf, 0))
        ]
        return sorted(rows, key=lambda row: (-row.p95_s, row.key))

    def _buckets(self, key: str, condition: str, window: Window) -> _Buckets:
        found: _Buckets = {}
        series, length = f"{_BUCKETS}{{{condition}}}", _length(window)
        for grown in (
            f"increase({series}[{length}])",
            # What a series that began in the window began with is no increase to Prometheus.
            f"(min_over_time({series}[{length}]) unless last_over_time({series}[{_GAP}] offset {length}))",
        ):
            for labels, value in self._vector(f"sum by (le, {key}) ({grown})", window):
                with understood("Prometheus"):
                    buckets, edge = found.setdefault(labels.get(key, ""), {}), float(labels["le"])
                buckets[edge] = buckets.get(edge, 0.0) + value
        return found

    def _vector(self, query: str, window: Window) -> list[tuple[Mapping[str, str], float]]:
        answer = self._client.get(
            "prometheus", "/api/v1/query", {"query": query, "time": f"{window.until_ns / _S:.3f}"}
        )
        with understood("Prometheus"):
            return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]


def _length(window: Window) -> str:
    return f"{max((window.until_ns - window.since_ns) // 1_000_000, 1)}ms"


def _quantile(buckets: Mapping[float, float], share: float) -> float:
    """Where a share of the values ends, evenly spread within its bucket; of the last one, its lower edge."""
    rank = buckets[math.inf] * share
    for (lower, below), (upper, within) in pairwise([(0.0, 0.0), *sorted(buckets.items())]):
        if within >= rank:
            return lower if upper == math.inf else lower + (upper - lower) * (rank - below) / max(within - below, 1e-9)
    return max(edge for edge in buckets if edge != math.inf)
