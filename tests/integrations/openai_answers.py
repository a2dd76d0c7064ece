"""Answers that a server gives to the OpenAI client, as it sends them, and the calls that they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
from openai_client import HTTP
from stagelight.testing import capture

__all__ = ["ask", "completion"]


def completion(**more: Any) -> dict[str, Any]:
    """An answer as a server sends it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "m-1", "choices": [choice], **more}


def ask(
    answer: dict[str, Any],
    *,
    base_url: str = "https://api.openai.com/v1",
    client: Any = openai.OpenAI,
    prices: Path | None = None,
) -> Any:
    """The call that an answer leaves."""

    def reply(_: Any) -> Any:
        return HTTP.Response(200, json=answer)

    where = {"azure_endpoint": base_url, "api_version": "1"} if client is openai.AzureOpenAI else {"base_url": base_url}
    http = HTTP.Client(transport=HTTP.MockTransport(reply))
    with capture(prices=prices) as captured, client(api_key="key", http_client=http, **where) as made:
        made.chat.completions.create(model="m-1", messages=[])
    return captured.call("llm")
