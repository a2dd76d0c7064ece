"""FAISS: searches of its indexes, in process."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from stagelight.facts import Request, Response
from stagelight.integrations._database import DatabaseCall, Scale, retrieved
from stagelight.integrations._engine import Begin, around
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._reading import count, part

__all__ = ["FaissInstrumentor", "read"]

_PROVIDER: Final = "faiss"
_DISTRIBUTIONS: Final = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cuvs")
_OPERATIONS: Final = ("search", "search_and_reconstruct", "range_search")
_BASES: Final = ("Index", "IndexBinary")

_SCALES: Final[Mapping[int, Scale]] = {
    0: ("dot", True),
    1: ("squared_euclid", False),
    2: ("manhattan", False),
    3: ("chebyshev", False),
    20: ("canberra", False),
    21: ("bray_curtis", False),
    22: ("jensen_shannon", False),
    23: ("jaccard", True),
}
"""FAISS's own numbers of its metrics; its L2 is the square of the distance."""
_BINARY_SCALE: Final = ("hamming", False)


# what was asked


def _begin(operation: str) -> Begin:
    def begin(index: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DatabaseCall:
        asked = None if operation == "range_search" else (args[1] if len(args) > 1 else kwargs.get("k"))
        request = Request(
            provider=_PROVIDER,
            top_k=count(asked),
            mode="dense",
            filtered=part(kwargs.get("params"), "sel") is not None,
        )
        scale = _BINARY_SCALE if _is_binary(index) else _SCALES.get(index.metric_type)
        # No database, so no span of a client of one.
        return DatabaseCall("retrieval", request, lambda found: _found(operation, found, scale), has_span=False)

    return begin


def _is_binary(index: Any) -> bool:
    return any(kind.__name__ == "IndexBinary" for kind in type(index).__mro__)


# what came back


def _found(operation: str, result: Any, scale: Scale | None) -> Response:
    if operation == "range_search":
        limits, distances, labels = result[:3]
        number, queries = int(labels.size), len(limits) - 1
        first = distances if queries == 1 else None
    else:
        distances, labels = result[:2]
        number, queries = int((labels >= 0).sum()), len(labels)
        # Where fewer were found, the rest is padding with the label -1.
        first = distances[0][labels[0] >= 0] if queries == 1 else None
    if first is None:  # scores of several queries are no ranking
        return retrieved(number, (), None)
    return retrieved(number, first.tolist(), scale)


def read(_response: Any) -> Response | None:
    """Nothing: arrays do not say whose they are."""
    return None


class FaissInstrumentor(Instrumentor):
    """Records the searches of FAISS's indexes."""

    distribution = _DISTRIBUTIONS[0]
    supported = "faiss-cpu >= 1.8, < 2"
    package = "faiss"
    coverage = Coverage(
        title="FAISS",
        calls=dict.fromkeys((f"index.{operation}" for operation in _OPERATIONS), "retrieval"),
        ways="in process, sync; all kinds of indexes, binary ones too. The `faiss-gpu` packages are accepted as well;"
        " only `faiss-cpu` was tested",
        recorded=(
            "`top_k`, whether a selector filters (`params`), the number of results without padding, and their scores.",
            "Metric and direction are the index's: inner product is `dot`, L2 `squared_euclid`, which is what FAISS"
            " returns, binary indexes `hamming`.",
        ),
        not_recorded=(
            'A collection: an index has no name. Name it with `stagelight.retrieval(provider="faiss", source=...)`'
            " around the search.",
            "The span of a database client: there is no database.",
            "Scores of several queries in one call, which are no ranking.",
            "`search1`, `search_ex`, `search_subset` and `assign`, the functions `knn` and `range_search_...` of the"
            " module, and the methods that end in `_c`.",
        ),
    )

    def instrumentation_dependencies(self) -> Collection[str]:
        return (self.supported.replace(self.distribution, _installed() or self.distribution),)

    def switch_on(self) -> bool:
        """Instrument FAISS if one of its distributions is installed."""
        if _installed() is None:
            return False
        if not self.is_instrumented_by_opentelemetry:
            self.instrument()
        return bool(self.is_instrumented_by_opentelemetry)

    @property
    def targets(self) -> Sequence[Target]:
        # FAISS replaces the methods of each class that has its own.
        faiss = sys.modules.get(self.package)
        bases = tuple(getattr(faiss, name) for name in _BASES if hasattr(faiss, name))
        names = [
            name
            for name, kind in list(vars(faiss).items() if faiss is not None else ())
            if inspect.isclass(kind) and issubclass(kind, bases) and kind.__name__ == name
        ]
        return tuple(
            Target(self.package, f"{name}.{operation}", around(_begin(operation)))
            for name in names or _BASES
            for operation in _OPERATIONS
        )


def _installed() -> str | None:
    for name in _DISTRIBUTIONS:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        return name
    return None
