"""Scrubbing where OTLP has more than attributes: names, descriptions, states; and names that are spelled otherwise."""

from __future__ import annotations

import re
from typing import Any

import pytest
from stack.native import Stack
from stack.outputs import (
    Outputs,
    attributes,
    log_request,
    metric_request,
    put,
    send,
    trace_request,
    value,
)
from stack.waiting import eventually
from stagelight.conventions import attributes as a

CONTENT = "the patient has a rash"
ADDRESS = "jane.doe@mail.example"
KEY = "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z"
HASH = "[0-9a-f]{64}"


def scope_of(request: Any, signal: str) -> Any:
    """The only scope of a request."""
    resource = getattr(
        request, {"traces": "resource_spans", "logs": "resource_logs", "metrics": "resource_metrics"}[signal]
    )
    return getattr(resource[0], {"traces": "scope_spans", "logs": "scope_logs", "metrics": "scope_metrics"}[signal])[
        0
    ].scope


def scope_with(outputs: Outputs, metric: str) -> Any:
    """The scope in which a metric arrived; metrics of spans arrive as well."""
    scopes = [scope for of in list(outputs.metrics.resource_metrics) for scope in of.scope_metrics]
    return next(scope.scope for scope in scopes if metric in {one.name for one in scope.metrics})


def test_names_of_metrics_are_hashed(collector: tuple[Stack, Outputs]) -> None:
    """A secret in a metric's name, description or unit: hashed, so that two names stay two; the rest of it is kept."""
    stack, outputs = collector
    request, _ = metric_request(f"calls of {ADDRESS}")
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    metrics[0].description, metrics[0].unit = f"Calls with {KEY}", ADDRESS
    for name in ("calls of john@mail.example", "app.refresh_token"):
        metrics.add().CopyFrom(metrics[0])
        metrics[-1].name, metrics[-1].description, metrics[-1].unit = name, "Calls", "{call}"
    send(stack, "metrics", request)
    found = eventually(outputs.kinds, lambda kinds: "app.refresh_token" in kinds)
    names = [name for name in found if name.startswith("calls of ")]

    assert [re.fullmatch(f"calls of {HASH}", name) is not None for name in names] == [True, True]
    (hashed,) = (found[name] for name in names if found[name].unit != "{call}")
    assert (hashed.description.startswith("Calls with "), KEY in hashed.description) == (True, False)
    assert re.fullmatch(HASH, hashed.unit)
    plain = found["app.refresh_token"]
    assert (plain.description, plain.unit, plain.sum.data_points[0].as_int) == ("Calls", "{call}", 1)
    assert list(scope_with(outputs, "app.refresh_token").attributes) == []


@pytest.mark.parametrize(("signal", "make"), [("traces", trace_request), ("logs", log_request)])
def test_names_of_scopes_are_masked(signal: str, make: Any, collector: tuple[Stack, Outputs]) -> None:
    """Name and version of the instrumentation scope; what else they say is kept, and so are the scope's attributes."""
    stack, outputs = collector
    request, _ = make()
    scope = scope_of(request, signal)
    scope.name, scope.version = f"shop of {ADDRESS}", f"1.0 {KEY}"
    put(scope, "app.kept", "kept")
    send(stack, signal, request)
    eventually(outputs.spans if signal == "traces" else outputs.records, bool)
    arrived = scope_of(getattr(outputs, signal), signal)

    assert (arrived.name, arrived.version, attributes(arrived)) == ("shop of ****", "1.0 ****", {"app.kept": "kept"})


def test_names_of_scopes_of_metrics_are_hashed(collector: tuple[Stack, Outputs]) -> None:
    """Hashed as everything is that tells series apart."""
    stack, outputs = collector
    request, _ = metric_request("app.noticed")
    scope_of(request, "metrics").name = f"shop of {ADDRESS}"
    send(stack, "metrics", request)
    eventually(outputs.kinds, lambda kinds: "app.noticed" in kinds)

    assert re.fullmatch(f"shop of {HASH}", scope_with(outputs, "app.noticed").name)


def test_trace_states_are_masked(collector: tuple[Stack, Outputs]) -> None:
    """A secret in the trace state does not pass; a state without one, and none, are what they were."""
    stack, outputs = collector
    request, span = trace_request()
    span.trace_state = f"vendor={KEY}"
    for state in ("ot=th:8,vendor=abc", ""):
        request.resource_spans[0].scope_spans[0].spans.add(name="other", trace_id=bytes(15) + b"1", span_id=b"12345678")
        request.resource_spans[0].scope_spans[0].spans[-1].trace_state = state
    send(stack, "traces", request)
    spans = eventually(outputs.spans, bool)

    assert [span.trace_state for span in spans] == ["vendor=****", "ot=th:8,vendor=abc", ""]
    assert [attributes(span) for span in spans] == [{}, {}, {}]


SPELLINGS = ("GEN_AI.INPUT.MESSAGES", "Gen_AI.output.messages", "GEN_AI.PROMPT.0.CONTENT", "gen_ai.Tool.Call.Arguments")


def test_other_spellings_of_content_are_dropped(collector: tuple[Stack, Outputs]) -> None:
    """Nothing in our namespaces passes that is not spelled as in the registry: attributes, labels, nested, events."""
    stack, outputs = collector
    request, span = trace_request()
    event = span.events.add(name="GEN_AI.USER.MESSAGE")
    put(event, "content", CONTENT)
    log, record = log_request()
    record.event_name, record.body.string_value = "Gen_AI.Choice", CONTENT
    metric, point = metric_request("app.noticed")
    for key in SPELLINGS:
        for into in (span, event, record, point):
            put(into, key, CONTENT)
        put(span, f"app.{key}", {key: CONTENT})
    put(span, "STAGELIGHT.ANYTHING", CONTENT)
    for signal, one in (("traces", request), ("logs", log), ("metrics", metric)):
        send(stack, signal, one)
    eventually(lambda: (outputs.spans(), outputs.records(), "app.noticed" in outputs.points()), all)

    assert CONTENT.encode() not in outputs.everything()
    (record,) = outputs.records()
    assert value(record.body) == ""
    assert attributes(record) == {"event.name": "Gen_AI.Choice", a.STAGELIGHT_RECORD_KIND: "app"}
    assert {key for key in attributes(outputs.spans()[0]) if not key.startswith("app.")} == set()


TOKENS = ("token", "TOKEN", "app.token", "http.request.header.x-vault-token", "http.request.header.x-token")
MORE_TOKENS = ("GITHUB_TOKEN", "hf_token", "csrf-token", "slack.bot_token", "auth.bearer_token", "client_token")
NO_TOKENS = {
    "llm.time_to_first_token": 0.25,
    "llm.cost_per_token": 0.5,
    "llm.usage.total_tokens": 12,
    "app.next_page_token": "2",
    "tokenizer": "cl100k_base",
    "app.logprobs": '[{"token": "unbelievable", "logprob": -0.5}]',
}


def test_tokens_are_masked_by_name(collector: tuple[Stack, Outputs]) -> None:
    """What is called a token and nothing more, and tokens of well-known kinds; not counts and times of tokens."""
    stack, outputs = collector
    request, span = trace_request()
    for key in (*TOKENS, *MORE_TOKENS):
        put(span, key, "hunter2")
    for key, content in NO_TOKENS.items():
        put(span, key, content)
    put(span, "app.nested", {"token": "Ab3dEf6hIj9kLm2nOp5q"})
    send(stack, "traces", request)
    (span,) = eventually(outputs.spans, bool)

    kept = attributes(span)
    assert kept.pop("app.nested") == '{****"}'
    assert kept == {**dict.fromkeys((*TOKENS, *MORE_TOKENS), "****"), **NO_TOKENS}
