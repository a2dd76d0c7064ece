"""A user of the Anthropic client cannot tell whether it is observed."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import subprocess
import sys
import weakref
from typing import Any

import anthropic
import pytest
from anthropic._base_client import AsyncAPIClient, SyncAPIClient
from anthropic._streaming import AsyncStream, Stream
from anthropic_uses import USES
from stagelight.integrations.anthropic import AnthropicInstrumentor
from stagelight.testing import capture

CLIENT = "anthropic"
PATCHED = [
    (SyncAPIClient, "request"),
    (SyncAPIClient, "_process_response"),
    (AsyncAPIClient, "request"),
    (AsyncAPIClient, "_process_response"),
    (Stream, "__init__"),
    (AsyncStream, "__init__"),
]
TRACE = {"traceparent", "tracestate", "baggage"}
"""Headers that a client which traces itself sends once there is a span."""


def used(world: Any, script: Any, name: str) -> tuple[Any, Any]:
    """What the caller saw and the server got."""
    world.simulator.forget()
    seen = world.play(lambda client: USES[name](client, script), max_retries=1)
    got = [
        one._replace(headers=tuple(header for header in one.headers if header[0] not in TRACE))
        for one in world.simulator.requests
    ]
    return seen, got


@pytest.mark.parametrize("name", USES)
def test_the_caller_and_the_server_see_the_same(world: Any, script: Any, name: str) -> None:
    """Types, texts, exceptions, and every byte and header that is sent are those of the client alone."""
    alone = used(world, script, name)
    instrumentor = AnthropicInstrumentor()
    instrumentor.switch_on()
    try:
        with capture() as captured:
            observed = used(world, script, name)
    finally:
        instrumentor.uninstrument()

    assert alone[0]
    assert observed == alone
    assert len(captured.calls) == (name != "count")


def test_uninstrument_restores_the_same_functions() -> None:
    """Switching on and off, twice, leaves the very functions that were there, which look like themselves."""
    before = [vars(owner)[name] for owner, name in PATCHED]
    instrumentor = AnthropicInstrumentor()

    for _ in range(2):
        assert instrumentor.switch_on()
        for (owner, name), original in zip(PATCHED, before, strict=True):
            function = vars(owner)[name]
            assert function is not original
            assert inspect.signature(function) == inspect.signature(original)
            assert inspect.iscoroutinefunction(function) == inspect.iscoroutinefunction(original)
        instrumentor.uninstrument()
        assert [vars(owner)[name] for owner, name in PATCHED] == before


def freed_at_once(simulator: Any) -> list[bool]:
    """Whether dropped streams, unread and read in part, are freed without a garbage collection."""
    freed: list[bool] = []
    gc.collect()
    gc.disable()
    try:
        with anthropic.Anthropic(base_url=simulator.origin, api_key="key") as client:
            for pulls in (0, 2):
                stream = client.messages.create(
                    model="claude-haiku-4-5", max_tokens=9, messages=[{"role": "user", "content": "Hi"}], stream=True
                )
                for _ in range(pulls):
                    next(stream)
                response = weakref.ref(stream.response)
                del stream
                freed.append(response() is None)
    finally:
        gc.enable()
    return freed


def test_a_dropped_stream_is_freed_as_early_as_alone(simulator: Any) -> None:
    """Newer clients take care that a dropped stream needs no garbage collection; nor does it with us."""
    alone = freed_at_once(simulator)
    instrumentor = AnthropicInstrumentor()
    instrumentor.switch_on()
    try:
        with capture() as captured:
            observed = freed_at_once(simulator)
            ended = [call.outcome for call in captured.calls]
    finally:
        instrumentor.uninstrument()

    assert observed == alone
    assert ended[: sum(alone)] == ["client_abandoned"] * sum(alone)


@pytest.mark.usefixtures("recorded")
def test_functions_are_copied_and_pickled_as_they_are() -> None:
    """A function of the client is its own copy, and a pickle of it can be read."""
    function = SyncAPIClient.request

    assert copy.deepcopy(function) is function
    assert pickle.loads(pickle.dumps(function)) is not None  # noqa: S301 - our own


LAZY = """
import sys
from stagelight.integrations.anthropic import AnthropicInstrumentor
assert AnthropicInstrumentor().switch_on()
assert "anthropic" not in sys.modules
import anthropic
from anthropic._base_client import SyncAPIClient
assert hasattr(SyncAPIClient.request, "__wrapped__")
"""


def test_switching_on_is_lazy() -> None:
    """Switching on imports nothing and takes effect at the import."""
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
