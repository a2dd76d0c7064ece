"""Calls of Bedrock's runtime that fail, and what the client sends again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aws_clients import ASK, FAMILIES, HAIKU, AwsWorld
from botocore.config import Config
from botocore.exceptions import ClientError
from retrying import check_retried, refusing
from stagelight.conventions import attributes as a

CLIENT = "bedrock"
pytestmark = pytest.mark.usefixtures("recorded")


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        ("rate_limit", "ThrottlingException", 429),
        ("unauthorized", "UnrecognizedClientException", 401),
        ("model_not_found", "ResourceNotFoundException", 404),
        ("server_error;status=503", "ServiceUnavailableException", 503),
    ],
)
def test_refused_calls(bedrock: AwsWorld, script: Any, fault: str, kind: str, status: int) -> None:
    """The caller gets the client's exception; the call is an error with its class and the HTTP status."""
    errors: list[ClientError] = []

    async def scenario(client: Any) -> None:
        try:
            await script.now(client.converse(**ASK))
        except ClientError as error:
            errors.append(error)

    call = bedrock.run(scenario, headers={"x-stagelight-fault": fault}).call("llm")
    name = (
        "botocore.errorfactory." + kind if kind != "UnrecognizedClientException" else "botocore.exceptions.ClientError"
    )

    assert errors[0].response["Error"]["Code"] == kind
    assert (call.outcome, call.error_type, call.cost) == ("error", name, None)
    assert call.attributes[a.HTTP_RESPONSE_STATUS_CODE] == status


async def asked(client: Any, script: Any) -> None:
    await script.now(client.converse(**ASK))


async def streamed(client: Any, script: Any) -> None:
    answer = await script.now(client.converse_stream(**ASK))
    async for _ in script.each(answer["stream"]):
        pass


async def invoked(client: Any, script: Any) -> None:
    answer = await script.now(client.invoke_model(modelId=HAIKU, body=json.dumps(FAMILIES[HAIKU][0])))
    await script.now(answer["body"].read())


@pytest.mark.parametrize("use", [asked, streamed, invoked])
@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_repeated_requests_are_one_call(bedrock: AwsWorld, script: Any, use: Any, mode: str) -> None:
    """The client's own repetitions belong to one call, which counts them."""
    with refusing(503) as simulator:
        world = AwsWorld(bedrock.kind, simulator, bedrock.service, bedrock.provider)
        patient = Config(retries={"total_max_attempts": 3, "mode": mode})
        captured = world.run(lambda client: use(client, script), config=patient)

        check_retried(captured, simulator, 2)


def test_requests_repeated_in_vain_are_one_call(bedrock: AwsWorld, script: Any) -> None:
    """A call that fails for good knows how often it was sent."""

    async def scenario(client: Any) -> None:
        with pytest.raises(ClientError):
            await asked(client, script)

    with refusing(429, 500) as simulator:
        world = AwsWorld(bedrock.kind, simulator, bedrock.service, bedrock.provider)
        captured = world.run(scenario, config=Config(retries={"total_max_attempts": 2, "mode": "standard"}))

        check_retried(captured, simulator, 2, outcome="error")


def test_a_wrong_request(bedrock: AwsWorld, script: Any) -> None:
    """A request that Bedrock refuses, and one that the client refuses to send, are errors."""

    async def scenario(client: Any) -> None:
        for wrong in ([], "no list"):
            with pytest.raises(Exception, match=r"Validation|validation"):
                await script.now(client.converse(modelId=HAIKU, messages=wrong))

    calls = bedrock.run(scenario).calls

    assert [call.error_type for call in calls] == [
        "botocore.errorfactory.ValidationException", "botocore.exceptions.ParamValidationError",
    ]  # fmt: skip
    assert [call.attributes.get(a.HTTP_RESPONSE_STATUS_CODE) for call in calls] == [400, None]


def test_a_server_that_is_not_there(bedrock: AwsWorld, script: Any) -> None:
    """A call that reaches nobody is an error of the client's class."""

    async def scenario(client: Any) -> None:
        with pytest.raises(Exception, match="Could not connect"):
            await script.now(client.converse(**ASK))

    call = bedrock.run(scenario, endpoint_url="http://127.0.0.1:9").call("llm")

    assert (call.outcome, call.error_type) == ("error", "botocore.exceptions.EndpointConnectionError")
