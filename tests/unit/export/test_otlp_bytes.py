"""Our OTLP bytes are read as what the official encoder writes; what that one cannot write costs no neighbour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from stagelight.export.otlp import logs_request, spans_request
from stagelight.export.otlp_values import MAX_DEPTH

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
LONG_TEXT = st.integers(100, 200).map("x".__mul__)
LONE = "a\ud800b"


def texts(hostile: bool) -> st.SearchStrategy[str]:
    """Text, on request with lone surrogates."""
    clean = ANY_TEXT | LONG_TEXT
    return clean | st.just(LONE) | st.text(st.characters(categories=("Cs", "Ll")), max_size=4) if hostile else clean


def values(hostile: bool) -> st.SearchStrategy[Any]:
    """Every type an attribute may have; on request integers and text that have no form in the protocol."""
    whole = INT64 | st.integers() if hostile else INT64
    scalar = st.none() | st.booleans() | whole | st.floats(allow_nan=False) | texts(hostile) | st.binary(max_size=4)
    return st.recursive(
        scalar | st.tuples(texts(hostile)),
        lambda inner: (
            st.lists(inner, max_size=3).map(tuple) | st.dictionaries(texts(hostile).filter(bool), inner, max_size=3)
        ),
        max_leaves=6,
    )


def attributes_of(hostile: bool) -> st.SearchStrategy[Any]:
    """Attributes as the SDK keeps them, some dropped by a limit, or as a plain dict."""
    plain = st.dictionaries(texts(hostile).filter(bool), values(hostile), max_size=5)
    limit = st.none() | st.integers(1, 3)
    return plain | st.builds(lambda given, most: BoundedAttributes(most, given, immutable=False), plain, limit)


TRACE_IDS = st.integers(1, (1 << 128) - 1)
SPAN_IDS = st.integers(1, (1 << 64) - 1)
TIMES = st.integers(0, (1 << 64) - 1)
STATES = st.none() | st.sampled_from([TraceState(), TraceState([("vendor", "one"), ("other", "two")])])
CONTEXTS = st.builds(
    SpanContext, TRACE_IDS, SPAN_IDS, st.booleans(), st.sampled_from([TraceFlags(0), TraceFlags(1)]), STATES
)


def statuses(hostile: bool) -> st.SearchStrategy[Status]:
    """Every status; only errors have a description."""
    plain = st.sampled_from([Status(), Status(StatusCode.OK)])
    return plain | st.builds(Status, st.just(StatusCode.ERROR), st.none() | texts(hostile))


def resources(hostile: bool) -> st.SearchStrategy[Resource]:
    """A few resources, with and without a schema."""
    return st.builds(Resource, st.dictionaries(texts(hostile).filter(bool), texts(hostile), max_size=2), ANY_TEXT)


def scopes(hostile: bool) -> st.SearchStrategy[InstrumentationScope | None]:
    """Scopes with every part or none, and no scope."""
    parts = st.none() | texts(hostile)
    return st.none() | st.builds(InstrumentationScope, texts(hostile), parts, parts, st.none() | attributes_of(False))


def spans(hostile: bool = False) -> st.SearchStrategy[list[ReadableSpan]]:
    """Batches of spans of several resources and scopes."""
    event = st.builds(Event, texts(hostile), attributes_of(hostile), TIMES)
    link = st.builds(Link, CONTEXTS, attributes_of(hostile))

    def batch(places: tuple[list[Resource], list[InstrumentationScope | None]]) -> st.SearchStrategy[Any]:
        return st.lists(
            st.builds(
                ReadableSpan,
                name=texts(hostile),
                context=CONTEXTS,
                parent=st.none() | CONTEXTS,
                resource=st.sampled_from(places[0]),
                attributes=attributes_of(hostile),
                events=st.lists(event, max_size=2),
                links=st.lists(link, max_size=2),
                kind=st.sampled_from(list(SpanKind)),
                status=statuses(hostile),
                start_time=st.none() | TIMES,
                end_time=st.none() | TIMES,
                instrumentation_scope=st.sampled_from(places[1]),
            ),
            max_size=4,
        )

    places = st.tuples(
        st.lists(resources(hostile), min_size=1, max_size=2), st.lists(scopes(hostile), min_size=1, max_size=2)
    )
    return places.flatmap(batch)


def log_record(given: Mapping[str, Any]) -> LogRecord:
    """A record with ids of its own, as bridges of logging libraries make them."""
    record = LogRecord(**{key: given[key] for key in given if key not in {"trace_id", "span_id", "trace_flags"}})
    record.trace_id, record.span_id, record.trace_flags = given["trace_id"], given["span_id"], given["trace_flags"]
    return record


def logs(hostile: bool = False) -> st.SearchStrategy[list[ReadableLogRecord]]:
    """Batches of log records."""
    record = st.fixed_dictionaries(
        {
            "timestamp": st.none() | TIMES,
            "observed_timestamp": TIMES,
            "context": st.just(Context({"none": None})),
            "severity_text": st.none() | texts(hostile),
            "severity_number": st.none() | st.sampled_from(list(SeverityNumber)),
            "body": values(hostile),
            "attributes": attributes_of(hostile),
            "event_name": st.none() | texts(hostile),
            "trace_id": st.just(0) | TRACE_IDS,
            "span_id": st.just(0) | SPAN_IDS,
            "trace_flags": st.sampled_from([TraceFlags(0), TraceFlags(1)]),
        }
    ).map(log_record)
    return st.lists(st.builds(ReadableLogRecord, record, resources(hostile), scopes(hostile)), max_size=4)


def read(body: bytes) -> ExportTraceServiceRequest:
    """Our bytes as a message."""
    return ExportTraceServiceRequest.FromString(body)


def contents(request: Any) -> Counter[tuple[bytes, ...]]:
    """Every item with its resource and scope, however they are grouped."""
    found = Counter[tuple[bytes, ...]]()
    for of_resource in [*getattr(request, "resource_spans", ()), *getattr(request, "resource_logs", ())]:
        groups = [*getattr(of_resource, "scope_spans", ()), *getattr(of_resource, "scope_logs", ())]
        for group in groups:
            place = (
                serial(of_resource.resource),
                of_resource.schema_url.encode(),
                serial(group.scope),
                group.schema_url.encode(),
            )
            for item in [*getattr(group, "spans", ()), *getattr(group, "log_records", ())]:
                found[(*place, serial(item))] += 1
    return found


def serial(message: Any) -> bytes:
    """One form of equal messages."""
    written: bytes = message.SerializeToString(deterministic=True)
    return written


@settings(max_examples=50, deadline=None)
@given(spans())
def test_spans_are_the_official_ones(batch: list[ReadableSpan]) -> None:
    """Every field of a span arrives as the official encoder sends it."""
    assert contents(read(spans_request(batch))) == contents(encode_spans(batch))


@settings(max_examples=50, deadline=None)
@given(logs())
def test_log_records_are_the_official_ones(batch: list[ReadableLogRecord]) -> None:
    """Every field of a log record arrives as the official encoder sends it."""
    assert contents(ExportLogsServiceRequest.FromString(logs_request(batch))) == contents(encode_logs(batch))


def names(request: ExportTraceServiceRequest) -> list[str]:
    """Names of the spans in order."""
    return [span.name for of in request.resource_spans for group in of.scope_spans for span in group.spans]


@settings(max_examples=25, deadline=None)
@given(spans(hostile=True), spans(hostile=True))
def test_no_span_costs_another(before: list[ReadableSpan], after: list[ReadableSpan]) -> None:
    """Whatever is in a batch, every span arrives with its ids, and clean neighbours arrive whole."""
    neighbour = ReadableSpan("neighbour", SpanContext(1, 2, False), attributes={"key": "value"})

    sent = contents(read(spans_request([*before, neighbour, *after])))

    assert sum(sent.values()) == len(before) + 1 + len(after)
    assert contents(encode_spans([neighbour])) <= sent


@settings(max_examples=25, deadline=None)
@given(logs(hostile=True))
def test_no_log_record_costs_another(batch: list[ReadableLogRecord]) -> None:
    """Whatever is in a batch of log records, all of them arrive."""
    sent = contents(ExportLogsServiceRequest.FromString(logs_request(batch)))

    assert sum(sent.values()) == len(batch)


CONTEXT = SpanContext(7, 8, False, TraceFlags(1))


def sent_span(**changes: Any) -> Any:
    """A span as it arrives."""
    request = read(spans_request([ReadableSpan(**{"name": "step", "context": CONTEXT, **changes})]))
    return request.resource_spans[0].scope_spans[0].spans[0]


def as_dict(pairs: Iterable[Any]) -> dict[str, Any]:
    """KeyValues by their key."""
    return {pair.key: pair.value for pair in pairs}


@pytest.mark.parametrize(
    ("changes", "read_back"),
    [
        ({"name": LONE}, lambda span: span.name),
        ({"status": Status(StatusCode.ERROR, LONE)}, lambda span: span.status.message),
        ({"events": [Event(LONE)]}, lambda span: span.events[0].name),
        ({"attributes": {"key": LONE}}, lambda span: span.attributes[0].value.string_value),
        ({"attributes": {LONE: "value"}}, lambda span: span.attributes[0].key),
        ({"attributes": {"key": (LONE,)}}, lambda span: span.attributes[0].value.array_value.values[0].string_value),
        ({"attributes": {"key": {LONE: 1}}}, lambda span: span.attributes[0].value.kvlist_value.values[0].key),
        ({"links": [Link(CONTEXT, {"key": LONE})]}, lambda span: span.links[0].attributes[0].value.string_value),
    ],
)
def test_a_lone_surrogate_becomes_a_question_mark(changes: dict[str, Any], read_back: Callable[[Any], str]) -> None:
    """Text that has no UTF-8 form keeps the rest of itself."""
    assert read_back(sent_span(**changes)) == "a?b"


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 10**40])
def test_a_large_integer_is_kept_as_text(number: int) -> None:
    """An integer beyond 64 bits is not cut: it arrives as its digits."""
    assert sent_span(attributes={"key": number}).attributes[0].value.string_value == str(number)


def nested(levels: int) -> Any:
    """A list in a list in a list."""
    found: Any = "inside"
    for _ in range(levels):
        found = (found,)
    return found


@pytest.mark.parametrize(
    ("value", "kept"), [(nested(MAX_DEPTH), True), (nested(MAX_DEPTH + 1), False), (nested(300), False)]
)
def test_deep_nesting_does_not_make_a_batch_unreadable(value: Any, kept: bool) -> None:
    """Readers refuse deep messages as a whole: what is nested too deeply is left out, at the same depth in events."""
    span = sent_span(attributes={"deep": value, "key": 1}, events=[Event("event", {"deep": {"deeper": value}})])

    assert set(as_dict(span.attributes)) == ({"deep", "key"} if kept else {"key"})


class Unprintable:
    """Has no form at all."""

    def __str__(self) -> str:
        raise RuntimeError("never asked")


@example(value=Unprintable())
@example(value=10**5000)
@example(value={1, 2})
@settings(max_examples=20, deadline=None)
@given(value=st.complex_numbers() | st.fractions())
def test_a_value_without_a_type_costs_itself_only(value: Any) -> None:
    """A value the protocol has no type for is left out; the other attributes, the body and the record stay."""
    record = LogRecord(observed_timestamp=1, body=value, attributes={"odd": value, "in": [value], "key": 1})

    request = ExportLogsServiceRequest.FromString(logs_request([ReadableLogRecord(record, Resource({}))]))

    (sent,) = request.resource_logs[0].scope_logs[0].log_records
    assert list(as_dict(sent.attributes)) == ["key"]
    assert sent.body.WhichOneof("value") is None


def test_wrong_times_and_ids_are_left_out_or_cut() -> None:
    """Times before 1970, fractional times and ids that are too long do not stop a batch."""
    span = sent_span(context=SpanContext(1 << 130 | 7, 1 << 65 | 8, False), start_time=-1, end_time=1.5)

    assert (span.trace_id, span.span_id) == ((7).to_bytes(16, "big"), (8).to_bytes(8, "big"))
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (0, 0)


def test_spans_of_one_resource_stand_together() -> None:
    """A batch of one process is one resource with one group per scope, in the order of the spans."""
    resource, scope = Resource({"service.name": "shop"}), InstrumentationScope("tests")
    batch = [
        ReadableSpan(f"step {number}", CONTEXT, resource=resource, instrumentation_scope=scope) for number in range(5)
    ]

    request = read(spans_request(batch))

    assert [len(of.scope_spans) for of in request.resource_spans] == [1]
    assert names(request) == [span.name for span in batch]


def test_long_texts_and_keys_are_not_remembered() -> None:
    """The caches hold short texts only, so that they cannot grow with what an application sends."""
    from stagelight.export import otlp_values

    before = [cached.cache_info().currsize for cached in (otlp_values._short_key, otlp_values._text_pair)]

    sent_span(attributes={"k" * 1000: "v" * 1000, "k" * 1001: "v", "k" * 1002: 1, "k" * 1003: 0.5})

    assert [cached.cache_info().currsize for cached in (otlp_values._short_key, otlp_values._text_pair)] == before
