"""What is let through: no content unless asked for, no secrets and personal data, no unknown names, no raw ids."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stack.native import Stack
from stack.outputs import (
    Outputs,
    attributes,
    collecting,
    log_request,
    metric_request,
    put,
    send,
    trace_request,
    value,
)
from stack.waiting import eventually
from stagelight._identity import Pseudonyms
from stagelight.conventions import attributes as a

CONTENT = "the patient has a rash"
SECRETS = {
    "OpenAI": "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z",
    "Anthropic": "sk-ant-api03-Ab3dEf6hIj9kLm2nOp5qRs8t_Uv1wXy4z",
    "ElevenLabs": "sk_0123456789abcdef0123456789abcdef0123456789abcdef",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "Google": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "GitHub": "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "GitHub, fine grained": "github_pat_11ABCDEFG0abcdefghijkl_0123456789",
    "GitLab": "glpat-Ab3dEf6hIj9kLm2nOp5q",
    "Slack": "xoxb-123456789012-abcdefGHIJKL",
    "Hugging Face": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345",
    "Groq": "gsk_0123456789abcdefghijABCDEFGHIJ0123456789abcdefghij",
    "Stripe": "sk_live_0123456789abcdefABCDEF",
    "JSON web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "bearer token": "Bearer 0123456789abcdefGHIJKL",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA0123\n-----END RSA PRIVATE KEY-----",
    "URL": "https://admin:hunter2hunter2@db.example/x",
    "signed URL": "https://files.example/x?signature=0123456789abcdef",
    "e-mail address": "jane.doe+shop@mail.example.org",
    "international e-mail address": "jürgen@müller.example",
    "card number": "4111 1111 1111 1111",
    "card number without spaces": "5500005555555559",
    "American Express": "378282246310005",
    "cache with a password": "redis://:hunter2hunter2@cache.example:6379/0",
    "URL whose password has an @": "postgresql://shop:p@hunter2hunter2@db.example/x",
    "URL signed by AWS": "https://files.example/x?X-Amz-Date=1&X-Amz-Signature=0123456789abcdef",
    "token behind a #": "https://shop.example/#access_token=0123456789abcdef",
    "setting": "password=hunter2hunter2",
    "header": "x-api-key: 0123456789abcdef",
    "header with a scheme": "Authorization: Token 0123456789abcdef",
    "JSON": '{"db": {"password": "hunter2hunter2"}}',
    "JSON within JSON": r'{"text": "{\"api_key\": \"0123456789abcdef\"}"}',
    "key after a line end in JSON": r'{"text": "my key:\nsk-proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z"}',
    "card after a line end in JSON": r'{"text": "my card:\n4111 1111 1111 1111"}',
    "e-mail address in a URL": "https://shop.example/u/jane.doe%40mail.example.org",
}
PARTS = {  # what must not be left; by default all of it
    "bearer token": "0123456789abcdefGHIJKL",
    "private key": "MIIEowIBAAKCAQEA0123",
    "URL": "hunter2",
    "signed URL": "0123456789abcdef",
    "cache with a password": "hunter2",
    "URL whose password has an @": "hunter2",
    "URL signed by AWS": "0123456789abcdef",
    "token behind a #": "0123456789abcdef",
    "setting": "hunter2",
    "header": "0123456789abcdef",
    "header with a scheme": "0123456789abcdef",
    "JSON": "hunter2",
    "JSON within JSON": "0123456789abcdef",
    "key after a line end in JSON": "sk-proj",
    "card after a line end in JSON": "1111",
    "e-mail address in a URL": "jane.doe",
}
HARMLESS = {
    "model": "gpt-4o-mini-2024-07-18",
    "words": "task-runner-background-worker, disk-usage-percentage-of-volume",
    "time": "1790000000000000000",
    "uuid": "251f85b0-b0ad-4a5a-90a8-7db82a8cacad",
    "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
    "url": "https://api.example/v1/chat/completions?page=2",
    "version": "openai@3.54.0",
    "decorator": "@app.get",
    "number": 4242,
    "fraction like a card number": 0.5177936386688053,
    "fractions": [0.4111111111111111, 0.378282246310005],
    "text with a fraction": "took 0.5177936386688053 s",
    "yes": True,
    "list": ["a", "b"],
    "tree": {"a": {"b": 1}},
}


def everywhere(stack: Stack, key: str, content: Any) -> None:
    """Send an attribute at every place where OTLP has attributes; a second time inside of another one."""
    resource = {key: content, "nested": {"in": [{key: content}]}}
    request, span = trace_request(resource)
    event = span.events.add(name="noticed")
    log, record = log_request(resource)
    for into in (span, event, record):
        put(into, key, content)
        put(into, "nested", {"in": [{key: content}]})
    scope = request.resource_spans[0].scope_spans[0].scope
    put(scope, key, content)
    record.body.string_value = "noticed"
    metric, point = metric_request("app.noticed", resource)
    put(point, key, content)
    exemplar = point.exemplars.add(time_unix_nano=point.time_unix_nano, as_int=1, span_id=b"12345678")
    exemplar.filtered_attributes.add(key=key).value.string_value = str(content)
    for signal, one in (("traces", request), ("logs", log), ("metrics", metric)):
        send(stack, signal, one)


def all_arrived(outputs: Outputs) -> None:
    """Wait for one request of each signal."""
    eventually(lambda: (outputs.spans(), outputs.records(), "app.noticed" in outputs.points()), all)


@pytest.mark.parametrize("key", sorted(a.CONTENT_KEYS | {f"{prefix}.name" for prefix in a.CONTENT_PREFIXES}))
def test_content_is_dropped(key: str, collector: tuple[Stack, Outputs]) -> None:
    """Every name that the registry calls content reaches no store: as an attribute anywhere, or inside of another."""
    stack, outputs = collector
    everywhere(stack, key, CONTENT)
    all_arrived(outputs)

    assert CONTENT.encode() not in outputs.everything()


def test_nothing_is_on_the_collectors_disk(tmp_path: Path) -> None:
    """Scrubbing comes before queueing: neither the queues, with back ends that are away, nor the log have a word."""
    stack = Stack(tmp_path, ["collector"])
    with stack:
        everywhere(stack, a.GEN_AI_INPUT_MESSAGES, CONTENT)
        everywhere(stack, "app.note", SECRETS["OpenAI"])
        everywhere(stack, "user.id", "jane@example.com")
        eventually(lambda: stack.log("collector").count("Will retry"), lambda said: said >= 3)
    queues = b"".join(path.read_bytes() for path in stack.path("collector", "/var/lib/otelcol").rglob("*_*"))

    assert b"app.note" in queues
    for word in (CONTENT, SECRETS["OpenAI"], "jane@example.com"):
        assert word.encode() not in queues
        assert word not in stack.log("collector")


FOREIGN = (
    "gen_ai.prompt.0.content",
    "gen_ai.completion.0.tool_calls.0.arguments",
    "gen_ai.tool.args",
    "gen_ai.content.anything",
    "llm.input_messages.0.message.content",
    "llm.output_messages.0.message.contents.0.message_content.text",
    "llm.prompts.0.prompt.text",
    "llm.prompt_template.variables",
    "llm.invocation_parameters",
    "llm.request.functions.0.description",
    "llm.headers",
    "input.value",
    "output.value",
    "embedding.embeddings.0.embedding.text",
    "retrieval.documents.3.document.content",
    "reranker.query",
    "tool.parameters",
    "traceloop.entity.input",
    "langfuse.observation.output",
    "ai.prompt.messages",
    "ai.response.text",
    "mlflow.spanInputs",
    "gcp.vertex.agent.llm_request",
    "haystack.component.output",
    "db.statement",
    "db.query.parameter.0",
)


def test_content_of_other_sdks_is_dropped(collector: tuple[Stack, Outputs]) -> None:
    """The names that other SDKs use for messages, prompts, documents and tools."""
    stack, outputs = collector
    request, span = trace_request()
    log, record = log_request()
    for into in (span, span.events.add(name="noticed"), record):
        for key in (*FOREIGN, "app.kept"):
            put(into, key, CONTENT if key in FOREIGN else "kept")
    send(stack, "traces", request)
    send(stack, "logs", log)
    (span,) = eventually(outputs.spans, bool)
    (record,) = eventually(outputs.records, bool)

    assert attributes(span) == {"app.kept": "kept"}
    assert attributes(span.events[0]) == {"app.kept": "kept"}
    assert attributes(record) == {"app.kept": "kept", a.STAGELIGHT_RECORD_KIND: "app"}


def test_messages_in_events_and_bodies_are_dropped(collector: tuple[Stack, Outputs]) -> None:
    """Events with a message, exceptions, the message of a status, and bodies: what remains are names and classes."""
    stack, outputs = collector
    request, span = trace_request()
    span.status.code, span.status.message = 2, f"ValueError: {CONTENT}"
    for name in ("gen_ai.user.message", "gen_ai.choice", "gen_ai.content.prompt"):
        event = span.events.add(name=name)
        put(event, "content", CONTENT)
        put(event, a.GEN_AI_PROVIDER_NAME, "openai")
    failure = span.events.add(name="exception")
    for key in (a.EXCEPTION_TYPE, a.EXCEPTION_MESSAGE, a.EXCEPTION_STACKTRACE):
        put(failure, key, "ValueError" if key == a.EXCEPTION_TYPE else CONTENT)
    log, record = log_request()
    record.event_name = "gen_ai.choice"
    record.body.kvlist_value.values.add(key="message").value.string_value = CONTENT
    other = log.resource_logs[0].scope_logs[0].log_records.add(severity_number=9)
    other.body.kvlist_value.values.add(key="event").value.string_value = "asked"
    other.body.kvlist_value.values.add(key=a.GEN_AI_INPUT_MESSAGES).value.string_value = CONTENT
    send(stack, "traces", request)
    send(stack, "logs", log)
    (span,) = eventually(outputs.spans, bool)
    choice, asked = eventually(outputs.records, bool)

    assert CONTENT.encode() not in outputs.everything()
    assert (span.status.code, span.status.message, attributes(span)) == (2, "", {a.ERROR_TYPE: "ValueError"})
    assert [(event.name, attributes(event)) for event in span.events] == [
        ("gen_ai.user.message", {a.GEN_AI_PROVIDER_NAME: "openai"}),
        ("gen_ai.choice", {a.GEN_AI_PROVIDER_NAME: "openai"}),
        ("gen_ai.content.prompt", {a.GEN_AI_PROVIDER_NAME: "openai"}),
        ("exception", {a.EXCEPTION_TYPE: "ValueError"}),
    ]
    assert (choice.event_name, value(choice.body), value(asked.body)) == ("gen_ai.choice", "", '{"event":"asked",****')


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_masked(kind: str, collector: tuple[Stack, Outputs]) -> None:
    """Keys, tokens, addresses and card numbers in a user's own attributes, names, messages and bodies."""
    stack, outputs = collector
    secret, part = f"before {SECRETS[kind]} after", PARTS.get(kind, SECRETS[kind])
    everywhere(stack, "app.note", secret)
    request, span = trace_request()
    span.name = secret
    span.events.add(name=secret)
    log, record = log_request()
    record.body.string_value = secret
    nested = log.resource_logs[0].scope_logs[0].log_records.add(severity_number=9, event_name=secret)
    nested.body.kvlist_value.values.add(key="note").value.string_value = secret
    send(stack, "traces", request)
    send(stack, "logs", log)
    all_arrived(outputs)
    spans = eventually(outputs.spans, lambda spans: len(spans) == 2)
    records = eventually(outputs.records, lambda records: len(records) == 3)

    assert part.encode() not in outputs.everything()
    masked = attributes(spans[0])["app.note"]
    assert masked.startswith("before")
    assert "****" in masked
    assert (spans[1].name, spans[1].events[0].name) == (masked, masked)
    assert (value(records[1].body), value(records[2].body)) == (masked, {"note": masked})


def test_harmless_values_stay(collector: tuple[Stack, Outputs]) -> None:
    """Values that only look a little like a secret, and values of other types, are what they were."""
    stack, outputs = collector
    request, span = trace_request()
    log, record = log_request()
    for key, content in HARMLESS.items():
        put(span, f"app.{key}", content)
        put(record, f"app.{key}", content)
    record.body.string_value = "Served /v1/x in 12 ms"
    send(stack, "traces", request)
    send(stack, "logs", log)
    (span,) = eventually(outputs.spans, bool)
    (record,) = eventually(outputs.records, bool)

    kept = {f"app.{key}": content for key, content in HARMLESS.items()}
    assert attributes(span) == kept
    assert attributes(record) == {**kept, a.STAGELIGHT_RECORD_KIND: "app"}
    assert (span.name, value(record.body)) == ("step", "Served /v1/x in 12 ms")


def test_headers_and_passwords_are_masked_by_name(collector: tuple[Stack, Outputs]) -> None:
    """A value that no pattern knows is masked where its name says what it is; command lines are dropped."""
    stack, outputs = collector
    headers = ("authorization", "cookie", "xi-api-key", "x-goog-api-key", "x_api_key")
    names = (*(f"http.request.header.{name}" for name in headers), "password", "db.password", "OPENAI_API_KEY")
    request, span = trace_request({"process.command_args": ["run", "--password=hunter2"], "process.pid": 7})
    for name in names:
        put(span, name, ["hunter2"] if "header" in name else "hunter2")
    send(stack, "traces", request)
    (span,) = eventually(outputs.spans, bool)

    assert attributes(span) == dict.fromkeys(names, "****")
    assert attributes(outputs.traces.resource_spans[0].resource) == {"service.name": "shop", "process.pid": 7}


def test_only_known_names_in_our_namespaces(collector: tuple[Stack, Outputs]) -> None:
    """Within gen_ai.* and stagelight.* only what the registry knows; names that merely begin alike are users' own."""
    stack, outputs = collector
    known = {
        a.GEN_AI_REQUEST_MODEL: "gpt-4o",
        a.STAGELIGHT_STAGE: "llm",
        f"{a.STAGELIGHT_TURN_SHARE}.llm": 0.5,
        f"{a.STAGELIGHT_TURN_SELF_TIME}.llm": 1.5,
    }
    own = {"genre": "jazz", "gen": "1", "gen_a": "1", "gen_ais": "1", "stage": "left", "stagelights.on": True, "s": "1"}
    request, span = trace_request()
    for key, content in {**known, **own, "gen_ai.unknown": "x", "stagelight.unknown": "x"}.items():
        put(span, key, content)
    send(stack, "traces", request)
    (span,) = eventually(outputs.spans, bool)

    assert attributes(span) == {**known, **own}


def test_raw_ids_become_the_pseudonyms_of_the_package(collector: tuple[Stack, Outputs]) -> None:
    """The same key gives the same pseudonym here and in the package; tagged ids and user.hash are left alone."""
    stack, outputs = collector
    pseudonym = Pseudonyms(stack.secrets.id_key).of
    tagged = f"h1:{'0' * 8}:{'a' * 32}"
    request, raw = trace_request()
    put(raw, "user.id", "jane@example.com")
    put(raw, a.SESSION_ID, "s-1")
    log, record = log_request()
    another = partial(request.resource_spans[0].scope_spans[0].spans.add, trace_id=raw.trace_id, span_id=b"12345678")
    for into, ids in (
        (another(name="tagged"), {"user.id": tagged, a.USER_HASH: "own"}),
        (another(name="number"), {"user.id": 4711}),
        (another(name="ours"), {a.USER_HASH: tagged, a.SESSION_ID: tagged}),
        (record, {"enduser.id": "jane"}),
    ):
        for key, content in ids.items():
            put(into, key, content)
    send(stack, "traces", request)
    send(stack, "logs", log)
    spans = eventually(outputs.spans, bool)
    (record,) = eventually(outputs.records, bool)

    jane, number = pseudonym("jane@example.com"), pseudonym("4711")
    assert [attributes(span) for span in spans] == [
        {"user.id": jane, a.USER_HASH: jane, a.SESSION_ID: pseudonym("s-1")},
        {"user.id": tagged, a.USER_HASH: "own"},
        {"user.id": number, a.USER_HASH: number},
        {a.USER_HASH: tagged, a.SESSION_ID: tagged},
    ]
    assert attributes(record)["enduser.id"] == pseudonym("jane")


def test_long_values_are_cut_and_marked(collector: tuple[Stack, Outputs]) -> None:
    """What Tempo would cut silently and Loki refuse is cut here, at a character, with a mark that queries find."""
    stack, outputs = collector
    long = "ä" * 40_000
    request, span = trace_request()
    put(span, "app.long", long)
    put(span, "app.short", "x")
    log, record = log_request()
    record.body.string_value = "ü" * 300_000
    put(record, "app.long", long)
    send(stack, "traces", request)
    send(stack, "logs", log)
    (span,) = eventually(outputs.spans, bool)
    (record,) = eventually(outputs.records, bool)

    assert attributes(span) == {"app.long": "ä" * 32_768, "app.short": "x", a.STAGELIGHT_TRUNCATED: True}
    assert attributes(record) == {
        "app.long": "ä" * 32_768,
        a.STAGELIGHT_RECORD_KIND: "app",
        a.STAGELIGHT_TRUNCATED: True,
    }
    assert value(record.body) == "ü" * 262_144


def test_content_passes_when_asked_for(tmp_path: Path) -> None:
    """With STAGELIGHT_COLLECTOR_CONTENT=on messages, exceptions and bodies stay, and secrets in them are masked."""
    secret = SECRETS["OpenAI"]
    with collecting(tmp_path, STAGELIGHT_COLLECTOR_CONTENT="on") as (stack, outputs):
        request, span = trace_request()
        span.status.code, span.status.message = 2, f"ValueError: {CONTENT} {secret}"
        for key in (a.GEN_AI_INPUT_MESSAGES, "gen_ai.prompt.0.content", "input.value", f"{a.GEN_AI_PROMPT_VARIABLE}.x"):
            put(span, key, f"{CONTENT} {secret}")
        log, record = log_request()
        record.event_name = "gen_ai.choice"
        record.body.kvlist_value.values.add(key="message").value.string_value = CONTENT
        send(stack, "traces", request)
        send(stack, "logs", log)
        (span,) = eventually(outputs.spans, bool)
        (record,) = eventually(outputs.records, bool)

    kept = f"{CONTENT} ****"
    assert span.status.message == f"ValueError: {kept}"
    assert attributes(span) == {
        a.GEN_AI_INPUT_MESSAGES: kept,
        "gen_ai.prompt.0.content": kept,
        "input.value": kept,
        f"{a.GEN_AI_PROMPT_VARIABLE}.x": kept,
    }
    assert value(record.body) == {"message": CONTENT}
