"""AWS clients that talk to the simulator, sync by botocore and, where it is installed, async by aiobotocore."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import botocore.session
from botocore.config import Config
from stagelight.sim import Simulator
from stagelight.testing import Captured, Clock, capture

__all__ = ["ASK", "FAMILIES", "HAIKU", "KINDS", "LONG", "AwsWorld", "knows"]

KINDS = ["sync", "async"] if find_spec("aiobotocore") else ["sync"]
"""Kinds of client that are installed; aiobotocore has an environment of its own."""

HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
QUESTION = [{"role": "user", "content": [{"text": "What do tides do?"}]}]
LONG = "Tides come and go with the moon, and the moon does not know. " * 150
ASK = {"modelId": HAIKU, "messages": QUESTION}
TALK = {"messages": [{"role": "user", "content": "What do tides do?"}]}

FAMILIES: dict[str, tuple[dict[str, Any], str, str]] = {
    HAIKU: ({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 200, **TALK}, "chat", "end_turn"),
    "amazon.nova-lite-v1:0": ({"messages": QUESTION, "inferenceConfig": {"maxTokens": 200}}, "chat", "end_turn"),
    "amazon.titan-text-express-v1": (
        {"inputText": "What do tides do?", "textGenerationConfig": {"maxTokenCount": 200}}, "text_completion", "FINISH",
    ),
    "us.meta.llama3-1-8b-instruct-v1:0": (
        {"prompt": "What do tides do?", "max_gen_len": 200}, "text_completion", "stop",
    ),
    "mistral.mistral-large-2402-v1:0": ({"prompt": "What do tides do?", "max_tokens": 200}, "text_completion", "stop"),
    "cohere.command-r-v1:0": ({"message": "What do tides do?", "max_tokens": 200}, "chat", "COMPLETE"),
    "openai.gpt-oss-20b-1:0": ({"max_completion_tokens": 200, **TALK}, "chat", "stop"),
}  # fmt: skip
"""Body, operation and reason to stop of each family."""

Scenario = Callable[[Any], Awaitable[Any]]


@cache
def _session() -> Any:
    return botocore.session.get_session()


def knows(shape: str, member: str) -> bool:
    """Whether this version of the client knows a member of a shape of Bedrock's runtime."""
    return member in _session().get_service_model("bedrock-runtime").shape_for(shape).members


@dataclass
class AwsWorld:
    """A simulator and one kind of client of one service."""

    kind: str
    simulator: Simulator
    service: str
    provider: str

    @property
    def host(self) -> str:
        """Address and port of the simulator."""
        return self.simulator.url.split("/")[2]

    @property
    def port(self) -> int:
        """Port of the simulator."""
        return int(self.host.rpartition(":")[2])

    def _options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        usual = {
            "endpoint_url": self.simulator.origin,
            "region_name": "us-east-1",
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
            "config": Config(retries={"total_max_attempts": 1}, read_timeout=30),
        }
        return {**usual, **options}

    def sync_client(self, *, headers: Mapping[str, str] | None = None, **options: Any) -> Any:
        """A sync client.

        Args:
            headers: added to every request: what the simulator is to do.
            options: keywords of ``create_client``.
        """
        client = _session().create_client(self.service, **self._options(options))
        _add(client, headers or {})
        return client

    def client(self, *, headers: Mapping[str, str] | None = None, **options: Any) -> AbstractAsyncContextManager[Any]:
        """A client of this world's kind, as a block."""

        @asynccontextmanager
        async def made() -> Any:
            if self.kind == "sync":
                with closing(self.sync_client(headers=headers, **options)) as client:
                    yield client
            else:
                from aiobotocore.session import get_session

                async with get_session().create_client(self.service, **self._options(options)) as client:
                    _add(client, headers or {})
                    yield client

        return made()

    def play(self, scenario: Scenario, **options: Any) -> Any:
        """Run a scenario with a client of its own."""

        async def played() -> Any:
            async with self.client(**options) as client:
                return await scenario(client)

        return asyncio.run(played())

    def run(self, scenario: Scenario, *, clock: Clock | None = None, **options: Any) -> Captured:
        """What was recorded of a scenario."""
        with capture(provider_hosts={self.host: self.provider}, clock=clock) as captured:
            self.play(scenario, **options)
        return captured


def _add(client: Any, headers: Mapping[str, str]) -> None:
    def add(request: Any, **_: Any) -> None:
        for name, value in headers.items():
            request.headers[name] = value

    client.meta.events.register_first("request-created", add)
