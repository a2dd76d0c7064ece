"""Calls of the Google Gen AI client that fail, are repeated or cancelled."""

from __future__ import annotations

from typing import Any

import pytest
from google.genai import errors
from integrations.cancelling import cancel_while_held
from opentelemetry import trace
from retrying import check_retried, refusing
from stagelight.conventions import attributes as a

CLIENT = "google_genai"
pytestmark = pytest.mark.usefixtures("recorded")

ASK = {"model": "gemini-2.5-flash", "contents": "What do tides do?"}


def fault(text: str, **more: Any) -> dict[str, Any]:
    """The configuration that makes the simulator fail."""
    return {"config": {"http_options": {"headers": {"x-stagelight-fault": text}, **more}}}


async def used(script: Any, result: Any) -> None:
    """Wait for a result, and read it if it is a stream."""
    given = await script.now(result)
    if hasattr(given, "__next__") or hasattr(given, "__anext__"):
        async for _ in script.each(given):
            pass


FAILURES = [
    (fault("rate_limit"), errors.ClientError, 429, "error"),
    (fault("server_error;status=503"), errors.ServerError, 503, "error"),
    ({"config": {"max_output_tokens": -1}}, errors.ClientError, 400, "error"),
    (fault("timeout", timeout=100), Exception, None, "timeout"),
]


@pytest.mark.parametrize("method", ["generate_content", "generate_content_stream", "embed_content"])
@pytest.mark.parametrize(("more", "kind", "status", "outcome"), FAILURES)
def test_failures(world: Any, script: Any, method: str, more: Any, kind: Any, status: int | None, outcome: str) -> None:
    """A failed call ends with the class of the client's own exception and the status, without cost or message."""
    if method == "embed_content" and "max_output_tokens" in more["config"]:
        more = {"config": {"output_dimensionality": -1}}
    seen: list[BaseException] = []

    async def scenario(client: Any) -> None:
        with pytest.raises(kind) as raised:
            await used(script, getattr(client.models, method)(**{**ASK, **more}))
        seen.append(raised.value)

    call = world.run(scenario).calls[0]
    error = type(seen[0])

    assert (call.outcome, call.error_type) == (outcome, f"{error.__module__}.{error.__qualname__}")
    assert call.attributes.get(a.HTTP_RESPONSE_STATUS_CODE) == status
    assert (call.span.status.status_code, call.span.status.description) == (trace.StatusCode.ERROR, None)
    assert (call.cost, call.span.events) == (None, ())


async def generated(client: Any, script: Any) -> None:
    await script.now(client.models.generate_content(**ASK))


async def streamed(client: Any, script: Any) -> None:
    async for _ in script.each(await script.now(client.models.generate_content_stream(**ASK))):
        pass


async def embedded(client: Any, script: Any) -> None:
    await script.now(client.models.embed_content(model="gemini-embedding-001", contents="tides"))


@pytest.mark.parametrize("use", [generated, streamed, embedded])
@pytest.mark.parametrize(
    ("statuses", "attempts", "outcome"),
    [((429, 503), 3, "completed"), ((500, 500, 500), 3, "error"), ((501,), 1, "error")],
    ids=["at last", "never", "refused"],
)
def test_repeated_requests_are_one_call(
    world: Any, script: Any, use: Any, statuses: tuple[int, ...], attempts: int, outcome: str
) -> None:
    """What the client sends again by its own retries belongs to one call, which counts it."""
    again = {"retry_options": {"attempts": 3, "initial_delay": 0.001, "max_delay": 0.01, "jitter": 0.001}}

    async def scenario(client: Any) -> None:
        try:
            await use(client, script)
        except errors.APIError:
            assert outcome == "error"

    with refusing(*statuses) as simulator:
        elsewhere = type(world)(world.kind, simulator, world.library)
        captured = elsewhere.run(scenario, http_options=again)

        check_retried(captured, simulator, attempts, outcome=outcome)


@pytest.mark.parametrize("world", ["async"], indirect=True)
def test_cancellation_is_no_error(world: Any, simulator: Any) -> None:
    """A cancelled task ends its call as cancelled, without error."""
    hold = simulator.hold("response")

    async def scenario(client: Any) -> None:
        await cancel_while_held(client.models.generate_content(**ASK), hold)

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.error_type, call.span.status.is_unset) == ("cancelled", None, True)
