"""An AWS client cannot tell whether it is observed: same bytes sent, same objects returned, same functions later."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from aws_clients import ASK, FAMILIES, HAIKU, KINDS, AwsWorld
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from stagelight import _guard
from stagelight.integrations import bedrock as integration
from stagelight.integrations.bedrock import BedrockInstrumentor
from stagelight.integrations.polly import PollyInstrumentor
from stagelight.sim import Simulator
from stagelight.testing import capture

BODY = json.dumps(FAMILIES[HAIKU][0])
SPEECH = {"Text": "Tides come and go.", "VoiceId": "Joanna", "OutputFormat": "pcm"}
CHANCE = {"authorization", "x-amz-date", "amz-sdk-invocation-id", "content-length"}
"""Headers that differ from one request to the next."""


async def talk(client: Any, script: Any) -> list[Any]:
    """Use Bedrock's runtime in every way; what the caller sees, as values that can be compared."""
    seen: list[Any] = []
    whole = await script.now(client.converse(**ASK))
    seen.append((type(whole), sorted(whole), repr(whole["output"]), whole["usage"]))
    answer = await script.now(client.converse_stream(**ASK))
    stream = answer["stream"]
    seen.append((type(stream), repr(stream).partition(" at ")[0], [str(event) async for event in script.each(stream)]))
    stream.close()
    answer = await script.now(client.invoke_model(modelId=HAIKU, body=BODY))
    body = answer["body"]
    seen.append((type(body), repr(body).partition(" at ")[0], body.readable()))
    seen.append((await script.now(body.read(20)), await script.now(body.read()), body.tell()))
    answer = await script.now(client.invoke_model(modelId=HAIKU, body=BODY))
    seen.append(await script.now(answer.pop("body").read()))
    seen.append(await script.now((await script.now(client.invoke_model(modelId=HAIKU, body=BODY)))["body"].read()))
    answer = await script.now(client.invoke_model_with_response_stream(modelId=HAIKU, body=BODY))
    seen.append([event["chunk"]["bytes"] async for event in script.each(answer["body"])])
    try:
        await script.now(client.converse(modelId=HAIKU, messages=[]))
    except ClientError as error:
        response = {key: value for key, value in error.response.items() if key != "ResponseMetadata"}
        # The client makes the class; another one makes its own of the same name.
        seen.append((repr(type(error)), str(error), response, type(error.__cause__), type(error.__context__)))
    return seen


async def speak(client: Any, script: Any) -> list[Any]:
    """Use Polly in every way."""
    answer = await script.now(client.synthesize_speech(**SPEECH))
    stream = answer["AudioStream"]
    seen: list[Any] = [(sorted(answer), type(stream), answer["RequestCharacters"])]
    # Where the async client cuts its pieces depends on the network.
    seen.append(b"".join([data async for data in script.each(stream.iter_chunks(4096))]))
    return seen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("service", "instrumentor", "use"),
    [("bedrock-runtime", BedrockInstrumentor(), talk), ("polly", PollyInstrumentor(), speak)],
)
def test_the_caller_and_the_server_see_the_same(
    simulator: Simulator, script: Any, kind: str, service: str, instrumentor: Any, use: Callable[..., Any]
) -> None:
    """Types, texts, exceptions, and every byte and header that is sent are those of the client alone."""
    world = AwsWorld(kind, simulator, service, "")

    def run() -> tuple[list[Any], list[Any]]:
        simulator.forget()
        seen = world.play(lambda client: use(client, script))
        sent = [
            (one.path, [pair for pair in one.headers if pair[0] not in CHANCE], one.body) for one in simulator.requests
        ]
        return seen, sent

    alone = run()
    instrumentor.switch_on()
    try:
        with capture() as captured:
            observed = run()
    finally:
        instrumentor.uninstrument()

    assert observed == alone
    assert len(captured.calls) == len(alone[1])


def test_uninstrument_restores_the_same_function() -> None:
    """Switching on and off, twice, leaves the very function that was there."""
    before = vars(BaseClient)["_make_api_call"]
    instrumentor = BedrockInstrumentor()

    for _ in range(2):
        assert instrumentor.switch_on()
        wrapped = vars(BaseClient)["_make_api_call"]
        assert wrapped is not before
        assert inspect.signature(wrapped) == inspect.signature(before)
        instrumentor.uninstrument()
        assert vars(BaseClient)["_make_api_call"] is before


def test_a_client_made_before_is_observed_and_one_kept_after_is_not(simulator: Simulator) -> None:
    """What matters is when a call is made, not when its client was."""
    instrumentor = BedrockInstrumentor()
    client = AwsWorld("sync", simulator, "bedrock-runtime", "").sync_client()

    with capture() as captured:
        client.converse(**ASK)
        instrumentor.switch_on()
        client.converse(**ASK)
        instrumentor.uninstrument()
        client.converse(**ASK)

    assert len(captured.calls) == 1


def test_our_errors_stay_ours(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """When reading a request, an answer or an event fails inside us, the caller gets the client's result."""

    def broken(*_: Any) -> Any:
        raise LookupError("ours")

    client = AwsWorld("sync", simulator, "bedrock-runtime", "").sync_client()
    instrumentor = BedrockInstrumentor()
    results = []
    for name in ("conversed", "answer", "speaks", "Events", "counted", "_body", "_conversation"):
        monkeypatch.setattr(integration, name, broken)
        instrumentor.switch_on()
        _guard.set_strict(False)
        try:
            with capture():
                results.append(client.converse(**ASK)["stopReason"])
                results.append(len(list(client.converse_stream(**ASK)["stream"])) > 3)
                results.append(len(client.invoke_model(modelId=HAIKU, body=BODY)["body"].read()) > 100)
        finally:
            _guard.set_strict(True)
            instrumentor.uninstrument()
            monkeypatch.undo()

    assert results == ["end_turn", True, True] * 7


LAZY = """
import sys
from stagelight.integrations.bedrock import BedrockInstrumentor
from stagelight.integrations.polly import PollyInstrumentor
assert BedrockInstrumentor().switch_on() and PollyInstrumentor().switch_on()
assert "botocore" not in sys.modules
from botocore.client import BaseClient
assert type(vars(BaseClient)["_make_api_call"]).__name__ == "WrappedFunction"
PollyInstrumentor().uninstrument()
BedrockInstrumentor().uninstrument()
assert type(vars(BaseClient)["_make_api_call"]).__name__ == "function"
"""


def test_switching_on_is_lazy() -> None:
    """Switching on imports nothing and takes effect at the import."""
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr) == (0, "")
