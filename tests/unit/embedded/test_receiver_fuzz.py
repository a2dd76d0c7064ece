"""Whatever the bytes, a body is either a batch or a refusal with a reason, never an error of ours."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from receiving import logs, metrics, otlp_json, spans
from stagelight.embedded.batch import Batch
from stagelight.embedded.refusal import Malformed
from stagelight.embedded.signals import SIGNALS, Encoding

VALID = {"traces": spans(2), "metrics": metrics(2), "logs": logs(2)}


def outcome(signal: Any, body: bytes, encoding: Encoding) -> Batch | str:
    """The batch, or the reason of the refusal."""
    try:
        return signal.batch(body, encoding)  # type: ignore[no-any-return]
    except Malformed as refusal:
        return refusal.message


def is_answer(result: Batch | str) -> bool:
    return isinstance(result, Batch) or len(result) > 20


@settings(max_examples=150, deadline=None)
@given(data=st.data(), signal=st.sampled_from(SIGNALS))
def test_damaged_protobuf(data: st.DataObject, signal: Any) -> None:
    """Requests that are cut, have bytes changed or added are batches or refusals."""
    body = bytearray(VALID[signal.name].SerializeToString())
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))

    assert is_answer(outcome(signal, bytes(body[:cut]) + data.draw(st.binary(max_size=20)), "protobuf"))


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("a" * 32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def replaced(node: Any, draw: Any, depth: int) -> Any:
    """A JSON document with one part, ``depth`` levels down, replaced."""
    if depth == 0 or not node or not isinstance(node, dict | list):
        return draw(ANY_JSON)
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    chosen = draw(st.sampled_from(keys))
    copy: Any = dict(node) if isinstance(node, dict) else list(node)
    copy[chosen] = replaced(node[chosen], draw, depth - 1)
    return copy


@settings(max_examples=150, deadline=None)
@given(data=st.data(), signal=st.sampled_from(SIGNALS), depth=st.integers(0, 14))
def test_damaged_json(data: st.DataObject, signal: Any, depth: int) -> None:
    """JSON requests with any part replaced by any other JSON are batches or refusals."""
    document = replaced(json.loads(otlp_json(VALID[signal.name])), data.draw, depth)

    assert is_answer(outcome(signal, json.dumps(document).encode(), "json"))


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=200), signal=st.sampled_from(SIGNALS), encoding=st.sampled_from(["protobuf", "json"]))
def test_any_bytes(body: bytes, signal: Any, encoding: Encoding) -> None:
    """Arbitrary bytes are batches or refusals."""
    assert is_answer(outcome(signal, body, encoding))
