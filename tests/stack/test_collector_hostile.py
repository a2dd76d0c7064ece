"""What one application sends does not cost others theirs, nor the stack its time: missing ids, sizes, depths, keys."""

from __future__ import annotations

import time
from typing import Any

import pytest
from stack.native import Stack
from stack.outputs import Outputs, attributes, log_request, metric_request, put, send, trace_request, value
from stack.queries import exposed, lines
from stack.waiting import eventually, settled
from stagelight.conventions import attributes as a

CONTENT = "the patient has a rash"
NAMELESS = ("", "...", "\u5ba2\u6237")
"""Keys of which nothing is left in the name of a label."""
DEPTH = 12_000
"""Took redaction three seconds in the body of a record when it was looked at level by level."""
LABEL = 2048
CALLS = "traces.spanmetrics.calls"


def nested(depth: int) -> bytes:
    """A list in a list and so on, as an encoded OTLP value: Protocol Buffers for Python cannot make one so deep."""
    inside = b"\x0a\x01x"
    parts = [inside]
    size = len(inside)
    for _ in range(depth):
        for tag in (b"\x0a", b"\x2a"):  # a value of a list, a list
            parts.append(tag + varint(size))
            size += len(parts[-1])
    return b"".join(reversed(parts))


def varint(number: int) -> bytes:
    """A number as Protocol Buffers write it."""
    low = bytes([number & 0x7F | (0x80 if number > 0x7F else 0)])
    return low + varint(number >> 7) if number > 0x7F else low


def field(number: int, content: bytes) -> bytes:
    """A field that has a length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def test_spans_without_ids_are_dropped(collector: tuple[Stack, Outputs]) -> None:
    """Tempo would refuse all that is sent with them: they are counted, for an alert, and their neighbours arrive."""
    stack, outputs = collector
    request, first = trace_request()
    spans = request.resource_spans[0].scope_spans[0].spans
    for trace_id, span_id in ((b"", b"s" * 8), (bytes(16), b"s" * 8), (b"t" * 16, b""), (b"t" * 16, bytes(8))):
        spans.add(trace_id=trace_id, span_id=span_id, name="lost")
    spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="last")
    send(stack, "traces", request)
    arrived = eventually(outputs.spans, lambda spans: len(spans) >= 2)

    assert [span.name for span in arrived] == [first.name, "last"]
    counted = exposed(stack.url("collector", 8888), "otelcol_processor_filter_spans_filtered")
    assert [count for own, count in counted.items() if 'filter="filter/ids"' in own] == [4]


def test_a_large_item_takes_no_others_with_it(collector: tuple[Stack, Outputs]) -> None:
    """A span of more than four megabytes arrives, and so does what came with it."""
    stack, outputs = collector
    (before, _), (request, span), (after, _) = trace_request(), trace_request(), trace_request()
    for number in range(70):
        put(span, f"app.text.{number}", "x y " * 16_000)
    before.MergeFrom(request)
    before.MergeFrom(after)
    send(stack, "traces", before)
    arrived = eventually(outputs.spans, lambda found: len(found) == 3)

    assert [len(attributes(one)) for one in arrived] == [0, 70, 0]


@pytest.mark.parametrize(
    "body",
    [
        [{a.GEN_AI_INPUT_MESSAGES: CONTENT}],
        [["asked", {"llm.prompts": [CONTENT]}]],
        {"traceloop.entity.input": CONTENT},
        {"app": {"ai.prompt": CONTENT, "gcp.vertex.agent.llm_request": CONTENT}},
    ],
    ids=str,
)
def test_content_in_bodies_of_other_shapes_is_dropped(body: Any, collector: tuple[Stack, Outputs]) -> None:
    """A body may be a list, and other SDKs have names of their own for messages."""
    stack, outputs = collector
    request, record = log_request()
    put(record, "app.body", body)
    record.body.CopyFrom(record.attributes[0].value)
    send(stack, "logs", request)
    (record,) = eventually(outputs.records, bool)

    assert CONTENT not in str(value(record.body))
    assert CONTENT.encode() not in outputs.everything()


def test_deep_values_become_text(collector: tuple[Stack, Outputs]) -> None:
    """A body or an attribute of thousands of levels: redaction and stores would take the square of their number."""
    stack, outputs = collector
    request, record = log_request()
    for number in (5, 6):  # the body of a record, an attribute
        deep = nested(DEPTH)
        content = deep if number == 5 else field(1, b"app.deep") + field(2, deep)
        body = record.SerializeToString() + field(number, content)
        of = request.resource_logs[0].resource.SerializeToString()
        send(stack, "logs", field(1, field(1, of) + field(2, field(2, body))))
    first, second = eventually(outputs.records, lambda found: len(found) == 2)

    for text in (value(first.body), attributes(second)["app.deep"]):
        assert isinstance(text, str)
        assert text[:70] == "[" * 70


def test_names_and_labels_are_bounded(collector: tuple[Stack, Outputs]) -> None:
    """What becomes a label is cut: names of spans and services, and labels of metrics."""
    stack, outputs = collector
    long = "x" * 10_000
    request, span = trace_request({"service.name": f"long{long}"})
    span.name = long
    metric, point = metric_request("app.noticed", {"app.region": long})
    put(point, "app.path", long)
    log, _ = log_request({"service.name": f"long{long}"})
    for signal, one in (("traces", request), ("logs", log), ("metrics", metric)):
        send(stack, signal, one)
    eventually(lambda: (outputs.spans(), outputs.records(), "app.noticed" in outputs.points()), all)
    calls = eventually(
        lambda: [attributes(point) for point in outputs.points().get(CALLS, ()) if long[:9] in str(point)], bool
    )

    (span,) = outputs.spans()
    assert (len(span.name), attributes(span)) == (LABEL, {a.STAGELIGHT_TRUNCATED: True})
    assert [len(attributes(outputs.points()["app.noticed"][0])["app.path"]), len(calls[0]["span.name"])] == [LABEL] * 2
    for of in (outputs.traces.resource_spans[0], outputs.logs.resource_logs[0]):
        assert len(attributes(of.resource)["service.name"]) == LABEL


def test_calls_of_processes_that_do_not_say_which_they_are(collector: tuple[Stack, Outputs]) -> None:
    """Without ``service.instance.id`` all processes of a service are one series: Prometheus would keep one of three."""
    stack, outputs = collector
    for process in range(3):
        send(stack, "traces", trace_request({"service.name": "nobody", "process.pid": process})[0])

    def series() -> list[Any]:
        found = [of for of in list(outputs.metrics.resource_metrics) if "nobody" in str(of.resource)]
        return [one for of in found for scope in of.scope_metrics for one in scope.metrics if one.name == CALLS]

    assert len(eventually(series, bool)) == 1


def test_histograms_without_bounds_keep_nobody_busy(collector: tuple[Stack, Outputs]) -> None:
    """Scales and buckets that no measurement has are dropped: summing them up took hours, or for ever."""
    stack, outputs = collector
    request, _ = metric_request("app.noticed")
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    for scale, offset in ((2**31 - 1, 0), (-(2**31), 0), (0, 2**31 - 1), (0, -(2**31)), (20, 2**26)):
        for _ in range(2):  # the second one of a series is added to the first
            histogram = metrics.add(name=f"app.took.{scale}.{offset}").exponential_histogram
            histogram.aggregation_temporality = 1
            point = histogram.data_points.add(time_unix_nano=time.time_ns(), count=1, scale=scale)
            point.positive.offset = offset
            point.positive.bucket_counts.extend([0, 1])
    send(stack, "metrics", request)
    kinds = eventually(outputs.kinds, lambda kinds: "app.noticed" in kinds)

    assert {name for name in kinds if name.startswith("app.")} == {"app.noticed", f"app.took.20.{2**26}"}


def test_secrets_of_a_service_are_masked_by_name(collector: tuple[Stack, Outputs]) -> None:
    """Names that begin like those of the conventions are looked at as well."""
    stack, outputs = collector
    keys = ("service.password", "service.api_key", "telemetry.token", "lent.password")
    request, _ = trace_request(dict.fromkeys(keys, "hunter2"))
    send(stack, "traces", request)
    eventually(outputs.spans, bool)

    kept = attributes(outputs.traces.resource_spans[0].resource)
    assert kept == {"service.name": "shop", **dict.fromkeys(keys, "****")}


@pytest.mark.parametrize("place", ["record", "resource", "scope"])
def test_keys_without_a_letter_cost_nobody_their_records(place: str, stack: Stack) -> None:
    """Loki would refuse the whole request for one such key; the key is left out, and everything else is stored."""
    marks = [f"{place}-{number}-{time.time_ns()}" for number in range(3)]
    whole = log_request()[0]
    del whole.resource_logs[:]
    for mark in marks:
        request, record = log_request({"service.name": "keys"})
        record.body.string_value = mark
        of = request.resource_logs[0]
        for key in (*NAMELESS, "app.kept") if mark == marks[1] else ():
            put({"record": record, "resource": of.resource, "scope": of.scope_logs[0].scope}[place], key, "kept")
        whole.MergeFrom(request)
    send(stack, "logs", whole)

    def stored() -> list[tuple[str, str | None]]:
        found = lines(stack.url("loki"), '{service_name="keys"}')
        return sorted((line.text, line.metadata.get("app_kept")) for line in found if line.text in marks)

    expected = [(marks[0], None), (marks[1], "kept"), (marks[2], None)]
    assert settled(stored, expected) == expected


def test_records_of_a_clock_that_is_ahead(stack: Stack) -> None:
    """An hour, as by a wrong time zone: a usage event is not lost for that."""
    request, record = log_request({"service.name": "ahead"})
    record.time_unix_nano += 3_600_000_000_000
    record.body.string_value = mark = f"ahead-{time.time_ns()}"
    send(stack, "logs", request)

    def stored() -> list[str]:
        return [line.text for line in lines(stack.url("loki"), '{service_name="ahead"}', end=time.time() + 7200)]

    assert mark in eventually(stored, lambda found: mark in found)
