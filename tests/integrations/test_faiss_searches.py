"""Searches of FAISS's indexes, in process."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy
import pytest
import stagelight
from opentelemetry.trace import SpanKind, StatusCode
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.integrations import faiss as integration
from stagelight.integrations.faiss import FaissInstrumentor
from stagelight.testing import Captured, Clock, capture

VECTORS = numpy.array([[1, index] for index in range(1, 6)], dtype="float32")
NEAR = numpy.array([[1, 1]], dtype="float32")
BITS = numpy.array([[0], [1], [3], [7], [15]], dtype="uint8")


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[FaissInstrumentor]:
    """The library is instrumented."""
    instrumentor = FaissInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def filled(index: Any, vectors: Any = VECTORS) -> Any:
    """The index, trained and with five vectors."""
    if not index.is_trained:
        index.train(vectors)
    index.add(vectors)
    return index


def recorded(work: Callable[[], Any]) -> Captured:
    """What is recorded of some work."""
    with capture(clock=Clock()) as captured:
        work()
    return captured


def test_a_search() -> None:
    """A search is a retrieval with its results; there is no database client."""
    index = filled(faiss.IndexFlatL2(2))
    captured = recorded(lambda: index.search(NEAR, 3))
    (retrieval,) = captured.spans

    assert (retrieval.name, retrieval.kind) == ("retrieval", SpanKind.CLIENT)
    assert retrieval.attributes == {
        a.STAGELIGHT_STAGE: "retrieval",
        a.GEN_AI_OPERATION_NAME: "retrieval",
        a.GEN_AI_PROVIDER_NAME: "faiss",
        a.GEN_AI_RETRIEVAL_TOP_K: 3,
        a.STAGELIGHT_RETRIEVAL_MODE: "dense",
        a.STAGELIGHT_RETRIEVAL_FILTERED: False,
        a.STAGELIGHT_RETRIEVAL_COUNT: 3,
        a.STAGELIGHT_RETRIEVAL_EMPTY: False,
        a.STAGELIGHT_RETRIEVAL_METRIC: "squared_euclid",
        a.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER: False,
        a.STAGELIGHT_RETRIEVAL_TOP_SCORE: 0.0,
        a.STAGELIGHT_RETRIEVAL_MIN_SCORE: 0.0,
        a.STAGELIGHT_RETRIEVAL_MARGIN: 1.0,
        a.STAGELIGHT_OUTCOME: "completed",
    }


def inverted() -> Any:
    """An index of inverted lists that looks into one of them."""
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(2), 2, 2)
    index.cp.min_points_per_centroid = 1
    return filled(index)


def replicas() -> Any:
    """An index made of two others."""
    index = faiss.IndexReplicas(2)
    index.addIndex(faiss.IndexFlatL2(2))
    index.addIndex(faiss.IndexFlatL2(2))
    return filled(index)


INDEXES: list[tuple[Callable[[], Any], str, bool]] = [
    (lambda: filled(faiss.IndexFlatIP(2)), "dot", True),
    (lambda: filled(faiss.IndexFlat(2, faiss.METRIC_L1)), "manhattan", False),
    (lambda: filled(faiss.IndexHNSWFlat(2, 8)), "squared_euclid", False),
    (inverted, "squared_euclid", False),
    (lambda: filled(faiss.index_factory(2, "PCA2,Flat")), "squared_euclid", False),
    (lambda: filled(faiss.index_factory(2, "SQ8")), "squared_euclid", False),
    (replicas, "squared_euclid", False),
]


@pytest.mark.parametrize(("make", "metric", "higher"), INDEXES)
def test_kinds_of_indexes(make: Callable[[], Any], metric: str, higher: bool) -> None:
    """One search is one call whatever an index is made of; the metric is the index's."""
    index = make()
    attributes = recorded(lambda: index.search(NEAR, k=2)).call("retrieval").attributes

    assert attributes[a.STAGELIGHT_RETRIEVAL_METRIC] == metric
    assert attributes[a.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER] is higher
    assert attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 2


def test_the_number_of_probes_changes_nothing() -> None:
    """An index of inverted lists is searched with its own and with given parameters."""
    index = inverted()

    def search() -> None:
        for probes in (1, 2):
            index.nprobe = probes
            index.search(NEAR, 5)
        index.search(NEAR, 5, params=faiss.SearchParametersIVF(nprobe=2))

    counts = [call.attributes[a.STAGELIGHT_RETRIEVAL_COUNT] for call in recorded(search).calls]

    assert counts[1:] == [5, 5]
    assert 0 < counts[0] <= 5


def test_binary_indexes() -> None:
    """A binary index counts the bits that differ."""
    index = filled(faiss.IndexBinaryFlat(8), BITS)
    attributes = recorded(lambda: index.search(BITS[1:2], 2)).call("retrieval").attributes

    assert (attributes[a.STAGELIGHT_RETRIEVAL_METRIC], attributes[a.STAGELIGHT_RETRIEVAL_TOP_SCORE]) == ("hamming", 0)


def test_filters_and_ids() -> None:
    """A selector is a filter; ids of one's own make no difference."""
    index = faiss.IndexIDMap(faiss.IndexFlatL2(2))
    index.add_with_ids(VECTORS, numpy.arange(100, 105))
    chosen = faiss.SearchParameters(sel=faiss.IDSelectorBatch(numpy.array([101])))
    attributes = recorded(lambda: index.search(NEAR, 3, params=chosen)).call("retrieval").attributes

    assert attributes[a.STAGELIGHT_RETRIEVAL_FILTERED] is True
    assert (attributes[a.STAGELIGHT_RETRIEVAL_COUNT], attributes[a.STAGELIGHT_RETRIEVAL_TOP_SCORE]) == (1, 1.0)


def test_ranges_batches_and_nothing_found() -> None:
    """Ranges are counted; several queries have no scores; an empty index finds nothing."""
    index = filled(faiss.IndexFlatL2(2))

    def search() -> None:
        index.range_search(NEAR, 2.0)
        index.range_search(NEAR, -1.0)
        index.search(VECTORS, 2)
        index.search_and_reconstruct(NEAR, 1)
        faiss.IndexFlatL2(2).search(NEAR, 2)

    calls = recorded(search).calls

    assert [call.attributes[a.STAGELIGHT_RETRIEVAL_COUNT] for call in calls] == [2, 0, 10, 1, 0]
    assert [call.attributes[a.STAGELIGHT_RETRIEVAL_EMPTY] for call in calls] == [False, True, False, False, True]
    assert [call.attributes.get(a.STAGELIGHT_RETRIEVAL_TOP_SCORE) for call in calls] == [0, None, None, 0, None]
    assert [call.attributes.get(a.GEN_AI_RETRIEVAL_TOP_K) for call in calls] == [None, None, 2, 1, 2]


def test_a_failure() -> None:
    """A search that FAISS refuses is an error, which the caller gets."""
    index = filled(faiss.IndexFlatL2(2))

    def search() -> None:
        with pytest.raises(AssertionError):
            index.search(numpy.ones((1, 3), dtype="float32"), 1)
        with pytest.raises((TypeError, AssertionError)):
            index.search(NEAR, "many")

    captured = recorded(search)

    assert [call.outcome for call in captured.calls] == ["error"] * 2
    assert captured.calls[0].error_type == "AssertionError"
    assert [span.status.status_code for span in captured.spans] == [StatusCode.ERROR] * 2


def test_a_manual_retrieval_is_one_call() -> None:
    """A block around the search names the index."""
    index = filled(faiss.IndexFlatL2(2))

    def search() -> None:
        with stagelight.turn("answer"), stagelight.retrieval(provider="faiss", source="library"):
            index.search(NEAR, 2)

    captured = recorded(search)

    assert [span.name for span in captured.spans] == ["retrieval library", "invoke_workflow answer"]
    assert captured.call("retrieval").attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 2


def test_two_searches_at_the_same_time() -> None:
    """Searches of two threads stay in their turns."""
    index = filled(faiss.IndexFlatL2(2))

    def one(name: str) -> None:
        with stagelight.turn(name):
            index.search(NEAR, 2)

    def both() -> None:
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(one, ["first", "second"]))

    captured = recorded(both)

    assert [len(captured.turn(name).calls) for name in ("first", "second")] == [1, 1]


def everything() -> list[Any]:
    """Use indexes in every way; what the caller sees, as values that can be compared."""
    index = filled(faiss.IndexFlatL2(2))
    distances, labels = numpy.zeros((1, 2), dtype="float32"), numpy.zeros((1, 2), dtype="int64")
    seen: list[Any] = [index.search(NEAR, 2, D=distances, I=labels), distances, labels]
    seen += [index.range_search(NEAR, 2.0), index.search_and_reconstruct(NEAR, 1), repr(type(index))]
    seen += [pickle.loads(pickle.dumps(index)).search(NEAR, 1), copy.deepcopy(index).search(NEAR, 1)]  # noqa: S301
    try:
        index.search([[1, 2]], 2)
    except AttributeError as error:
        seen += [type(error), str(error)]
    return seen


def test_results_are_the_librarys_own(instrumented: FaissInstrumentor) -> None:
    """Arrays, also the caller's own, types and exceptions are equal with and without us."""
    with capture() as captured:
        observed = everything()
    instrumented.uninstrument()
    alone = everything()

    assert repr(observed) == repr(alone)
    assert [type(one) for one in observed] == [type(one) for one in alone]
    assert len(captured.calls) == 6


def test_our_errors_stay_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """When reading a question or an answer fails inside us, the caller gets FAISS's result."""

    def broken(*_: Any, **__: Any) -> Any:
        raise LookupError("ours")

    index = filled(faiss.IndexFlatL2(2))
    _guard.set_strict(False)
    for name in ("_found", "count"):
        monkeypatch.setattr(integration, name, broken)
        assert index.search(NEAR, 2)[1].tolist() == [[0, 1]]
    assert _guard.errors()


def test_switching_on_and_off_restores_the_same_functions(instrumented: FaissInstrumentor) -> None:
    """Afterwards every class has the very functions it had; the wrapped ones look like them."""
    kinds = [kind for kind in vars(faiss).values() if inspect.isclass(kind)]
    wrapped = {
        (kind, name): vars(kind)[name]
        for kind in kinds
        for name in ("search", "search_and_reconstruct", "range_search")
        if hasattr(vars(kind).get(name), "__wrapped__")
    }
    for function in wrapped.values():
        assert inspect.signature(function) == inspect.signature(function.__wrapped__)
    instrumented.uninstrument()

    assert len(wrapped) > 50
    assert {place: vars(place[0])[place[1]] for place in wrapped} == {
        place: function.__wrapped__ for place, function in wrapped.items()
    }
