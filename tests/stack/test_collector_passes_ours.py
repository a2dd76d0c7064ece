"""What the package sends comes out of the Collector as it was: nothing of ours is on the wrong side of a rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from stack import demo
from stack.outputs import Outputs, attributes, collecting, value
from stack.waiting import eventually
from stagelight.conventions import attributes as a

TEXTS = {a.EXCEPTION_MESSAGE, a.EXCEPTION_STACKTRACE}
"""Content, which the Collector drops on purpose; the application sends it, and keeps its messages to itself."""


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[demo.Sent, Outputs]]:
    """The demo's forty turns, and what came out."""
    folder = tmp_path_factory.mktemp("ours")
    (folder / "stack").mkdir()
    with collecting(folder / "stack") as (stack, outputs):
        yield demo.run(stack, folder), outputs


def test_spans_come_out_as_they_were(through: tuple[demo.Sent, Outputs]) -> None:
    """Ids, times, names, kinds, status codes, attributes and events; a status loses its message."""
    sent, outputs = through
    found = eventually(outputs.spans, lambda spans: len(spans) >= len(sent.spans))

    assert sorted(map(span_fields, found), key=repr) == sorted(map(span_fields, sent.spans), key=repr)


def test_records_come_out_as_they_were(through: tuple[demo.Sent, Outputs]) -> None:
    """Ids, times, levels, names, bodies and attributes; the name is an attribute as well, and each has a kind."""
    sent, outputs = through
    found = eventually(outputs.records, lambda records: len(records) >= len(sent.records))

    assert sorted(map(record_fields, found), key=repr) == sorted(map(record_fields, sent.records), key=repr)


def test_metrics_come_out_as_they_were(through: tuple[demo.Sent, Outputs]) -> None:
    """Every metric has the kind, the unit, the description, the labels and the values that were sent last."""
    sent, outputs = through
    eventually(lambda: outputs.kinds().keys() >= sent.metrics.keys(), bool)
    expected = {name: metric_fields(metric) for name, metric in sent.metrics.items()}

    def found() -> dict[str, Any]:
        return {name: metric_fields(metric) for name, metric in outputs.kinds().items() if name in expected}

    assert eventually(found, lambda seen: seen == expected) == expected


def span_fields(span: Any) -> tuple[Any, ...]:
    """What must be the same of a span."""
    events = [(one.time_unix_nano, one.name, own(one)) for one in span.events]
    times = (span.start_time_unix_nano, span.end_time_unix_nano)
    ids = (span.trace_id, span.span_id, span.parent_span_id)
    return (*ids, *times, span.name, span.kind, span.status.code, own(span), events)


def record_fields(record: Any) -> tuple[Any, ...]:
    """What must be the same of a log record."""
    fields = {"stagelight.record.kind": "app", **own(record)}
    fields.pop("event.name", None)
    level = (record.severity_number, record.severity_text)
    ids = (record.trace_id, record.span_id)
    return (*ids, record.time_unix_nano, *level, record.event_name, value(record.body), sorted(fields.items()))


def metric_fields(metric: Any) -> tuple[Any, ...]:
    """What must be the same of a metric, without exemplars, of which ids are all that is kept."""
    kind = str(metric.WhichOneof("data"))
    points = []
    for point in getattr(metric, kind).data_points:
        numbers = [
            (field.name, str(content))
            for field, content in point.ListFields()
            if field.name not in ("attributes", "exemplars")
        ]
        points.append((sorted(attributes(point).items()), numbers))
    return metric.unit, metric.description, kind, sorted(points, key=repr)


def own(fields: Any) -> dict[str, Any]:
    """Attributes without the texts of exceptions."""
    return {key: content for key, content in sorted(attributes(fields).items()) if key not in TEXTS}
