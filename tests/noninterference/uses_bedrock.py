"""Every way of using Amazon Bedrock's runtime."""

from __future__ import annotations

import json
from typing import Any

from noninterference.aws import kinds, opening
from noninterference.uses import FAULTS, Client, Use, now

__all__ = ["CLIENT"]

HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
ASK: dict[str, Any] = {"modelId": HAIKU, "messages": [{"role": "user", "content": [{"text": "What do tides do?"}]}]}
MESSAGES = [{"role": "user", "content": "What do tides do?"}]
BODY = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 200, "messages": MESSAGES})
TITAN = "amazon.titan-embed-text-v2:0"
EMBED = json.dumps({"inputText": "tides"})


async def _read(client: Any) -> Any:
    answer = await now(client.invoke_model(modelId=HAIKU, body=BODY))
    return await now(answer["body"].read())


async def _read_vectors(client: Any) -> Any:
    answer = await now(client.invoke_model(modelId=TITAN, body=EMBED))
    return await now(answer["body"].read())


def _body(answer: Any) -> Any:
    return answer["body"]


CONVERSE, CONVERSE_STREAM = "converse", "converse_stream"
INVOKE, INVOKE_STREAM = "invoke_model", "invoke_model_with_response_stream"

USES = (
    Use(CONVERSE, lambda client: client.converse(**ASK)),
    Use(CONVERSE, lambda client: client.converse(modelId=HAIKU, messages=[]), "refused", fails=True),
    Use(CONVERSE_STREAM, lambda client: client.converse_stream(**ASK), items=lambda answer: answer["stream"], first=1),
    Use(INVOKE, _read, "read"),
    Use(
        INVOKE,
        lambda client: client.invoke_model(modelId=HAIKU, body=BODY),
        "in pieces",
        lambda answer: answer["body"].iter_chunks(64),
    ),
    Use(
        INVOKE,
        lambda client: client.invoke_model(modelId=HAIKU, body=BODY),
        "lines",
        lambda answer: answer["body"].iter_lines(),
    ),
    Use("invoke_model (embedding models)", _read_vectors),
    Use(
        INVOKE_STREAM,
        lambda client: client.invoke_model_with_response_stream(modelId=HAIKU, body=BODY),
        items=_body,
        first=1,
    ),
)

CLIENT = Client(
    "bedrock",
    "BedrockInstrumentor",
    ("botocore",),
    opening("bedrock-runtime"),
    USES,
    provider="aws.bedrock",
    faults=FAULTS,
    kinds=kinds,
)
