"""Beside OpenTelemetry's instrumentation of botocore a call of a model is counted once, and its span of it stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import boto3
import pytest
from opentelemetry.instrumentation.botocore import BotocoreInstrumentor
from opentelemetry.sdk.trace import ReadableSpan
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.integrations.bedrock import BedrockInstrumentor
from stagelight.sim import Simulator
from stagelight.testing import Captured, capture

THEIRS, OURS = "opentelemetry.instrumentation.botocore.bedrock-runtime", "stagelight"
MODEL = "anthropic.claude-3-5-haiku-20241022-v1:0"


@contextmanager
def together(*, ours: bool = True, ours_first: bool = True) -> Iterator[Captured]:
    """Both instrumentations on the same providers; they are taken off in the opposite order, as what is wrapped."""
    with capture() as captured, ExitStack() as off:
        official = BotocoreInstrumentor()
        providers = {
            "tracer_provider": captured.tracer_provider,
            "meter_provider": captured.meter_provider,
            "logger_provider": captured.logger_provider,
        }
        switches: list[tuple[Any, dict[str, Any]]] = [(official, providers)]
        if ours:
            switches.insert(0 if ours_first else 1, (BedrockInstrumentor(), {}))
        for instrumentor, given in switches:
            instrumentor.instrument(**given)
            off.callback(instrumentor.uninstrument)
        yield captured


def _ask(simulator: Simulator, way: str) -> None:
    client: Any = boto3.client(
        "bedrock-runtime",
        endpoint_url=simulator.url.removesuffix("/v1"),
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    asked = {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "What do tides do?"}]}]}
    if way == "streamed":
        assert len(list(client.converse_stream(**asked)["stream"])) > 2
    else:
        client.converse(**asked)
    client.close()


def _counts(captured: Captured) -> tuple[dict[str, float], int]:
    """Tokens by type, and calls, over all instrumentations."""
    tokens: dict[str, float] = {}
    for point in captured.metric(m.GEN_AI_CLIENT_TOKEN_USAGE):
        kind = str(point.attributes[a.GEN_AI_TOKEN_TYPE])
        tokens[kind] = tokens.get(kind, 0) + point.value
    return tokens, sum(point.count for point in captured.metric(m.GEN_AI_CLIENT_OPERATION_DURATION))


def _by_scope(captured: Captured) -> dict[str, list[ReadableSpan]]:
    found: dict[str, list[ReadableSpan]] = {}
    for span in captured.spans:
        assert span.instrumentation_scope is not None
        found.setdefault(span.instrumentation_scope.name, []).append(span)
    return found


@pytest.mark.parametrize("way", ["plain", "streamed"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_a_call_of_a_model_is_counted_once(simulator: Simulator, way: str, ours_first: bool) -> None:
    """Tokens and durations are ours only; theirs is the span of the AWS call, in the same trace."""
    with together(ours_first=ours_first) as captured:
        _ask(simulator, way)

    spans = _by_scope(captured)
    [own], [aws] = spans.pop(OURS), spans.pop(THEIRS)
    facts = captured.call("llm").attributes
    assert spans == {}
    assert own.context.trace_id == aws.context.trace_id
    assert [key for key in aws.attributes or {} if key.startswith("gen_ai.")] == []
    assert _counts(captured) == (
        {"input": facts[a.GEN_AI_USAGE_INPUT_TOKENS], "output": facts[a.GEN_AI_USAGE_OUTPUT_TOKENS]},
        1,
    )


def test_switched_off_ours_leaves_theirs_as_it_was(simulator: Simulator) -> None:
    """It counts again what it counts without us."""
    with together():
        pass
    with together(ours=False) as captured:
        _ask(simulator, "plain")

    tokens, calls = _counts(captured)
    assert (sorted(tokens), calls, list(_by_scope(captured))) == (["input", "output"], 1, [THEIRS])
