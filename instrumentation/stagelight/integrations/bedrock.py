"""Amazon Bedrock through ``boto3``: Converse and InvokeModel, plain and streamed; also ``aiobotocore`` 3.

Everything here reads what was sent and what came back; how AWS clients are observed is in ``_botocore``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, Final

from stagelight.facts import Request, Response, Stage, Usage, merged
from stagelight.integrations._bedrock_answers import Events, answer, conversed, counted, speaks
from stagelight.integrations._botocore import Asked, Given, digits, header, request_id, targets
from stagelight.integrations._engine import Observed
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._reading import amount, count, part, text, texts
from stagelight.integrations._watching import JsonBytes

__all__ = ["OPERATIONS", "BedrockInstrumentor", "read"]

_PROVIDER: Final = "aws.bedrock"
_SERVICE: Final = "bedrock-runtime"
_OFFICIAL: Final = "opentelemetry.instrumentation.botocore.extensions"
_MOST_REQUEST_BYTES: Final = 8_388_608
"""A longer body of InvokeModel is not read: only its model is known."""
_MOST_VECTOR_BYTES: Final = 65_536
"""Longer answers of embeddings are not read for the vectors' length; headers tell their tokens."""

_MAKES_IMAGES: Final = ("stability.", "amazon.titan-image", "amazon.nova-canvas", "amazon.nova-reel", "luma.")
_EMBEDS: Final = frozenset({"texts", "embeddingConfig", "embeddingTypes", "normalize", "dimensions", "inputImage"})
_TALKS: Final = frozenset({"messages", "prompt", "inputText", "message"})
_COMPLETES: Final = frozenset({"prompt", "inputText"})
_COUNTS: Final[Mapping[str, str]] = {
    "inputTokenCount": "x-amzn-bedrock-input-token-count",
    "outputTokenCount": "x-amzn-bedrock-output-token-count",
    "cacheReadInputTokenCount": "x-amzn-bedrock-cache-read-input-token-count",
    "cacheWriteInputTokenCount": "x-amzn-bedrock-cache-write-input-token-count",
    "invocationLatency": "x-amzn-bedrock-invocation-latency",
}


# what was asked


def _tier(told: Any, latency: Any) -> str | None:
    tier = text(told)
    return "optimized" if latency == "optimized" and tier in {None, "default"} else tier


def _conversation(given: Given, *, stream: bool) -> Request:
    config, more = given.get("inferenceConfig"), given.get("additionalModelRequestFields")
    shape = part(given.get("outputConfig"), "textFormat", "type")
    limit = count(part(more, "top_k"))
    return Request(
        provider=_PROVIDER,
        model=text(given.get("modelId")),
        stream=stream or None,
        temperature=amount(part(config, "temperature")),
        top_p=amount(part(config, "topP")),
        top_k=count(part(more, "inferenceConfig", "topK")) if limit is None else limit,
        max_tokens=count(part(config, "maxTokens")),
        reasoning_level=text(part(more, "reasoning_effort")),
        output_type="json" if shape == "json_schema" else None,
        service_tier=_tier(part(given.get("serviceTier"), "type"), part(given.get("performanceConfig"), "latency")),
    )


def _converse(given: Given) -> Asked:
    guarded = given.get("guardrailConfig") is not None
    return Asked(
        "llm",
        _conversation(given, stream=False),
        response=lambda result: _answered(conversed(result), result, guarded=guarded, told=result),
        has_content=speaks,
    )


def _converse_stream(given: Given) -> Asked:
    guarded = given.get("guardrailConfig") is not None
    return Asked(
        "llm",
        _conversation(given, stream=True),
        response=lambda result: _answered(None, result, guarded=guarded),
        member="stream",
        chunks=lambda _: Events(),
    )


def _body(given: Given) -> Any:
    """The JSON that is sent; empty where it is not at hand: a file is the client's to read."""
    body = given.get("body")
    if not isinstance(body, bytes | bytearray | str) or len(body) > _MOST_REQUEST_BYTES:
        return {}
    try:
        sent = json.loads(body)
    except ValueError:
        return {}
    return sent if isinstance(sent, dict) else {}


def _stage(model: str, sent: Mapping[str, Any]) -> Stage | None:
    if any(name in model for name in _MAKES_IMAGES):
        return None
    if "embed" in model or not _EMBEDS.isdisjoint(sent):
        return "embedding"
    return "llm" if not sent or not _TALKS.isdisjoint(sent) else None


def _either(take: Callable[[Any], Any], sent: Any, *names: str) -> Any:
    """A parameter under the first of its names, at the top or in the families' records of parameters."""
    records = (sent, part(sent, "inferenceConfig"), part(sent, "textGenerationConfig"))
    return next((found for one in records for name in names if (found := take(part(one, name))) is not None), None)


def _invocation(given: Given, *, stream: bool) -> tuple[Stage, Request] | None:
    sent = _body(given)
    stage = _stage(text(given.get("modelId")) or "", sent)
    if stage is None:
        return None
    tier = _tier(given.get("serviceTier"), given.get("performanceConfigLatency"))
    request = Request(provider=_PROVIDER, model=text(given.get("modelId")), service_tier=tier)
    if stage == "embedding":
        size = _either(count, sent, "dimensions", "output_dimension")
        formats = texts(sent.get("embeddingTypes") or sent.get("embedding_types"))
        return stage, request._replace(dimensions=size, encoding_formats=formats)
    return stage, request._replace(
        operation=None if "messages" in sent or _COMPLETES.isdisjoint(sent) else "text_completion",
        stream=stream or None,
        temperature=_either(amount, sent, "temperature"),
        top_p=_either(amount, sent, "top_p", "topP", "p"),
        top_k=_either(count, sent, "top_k", "topK", "k"),
        max_tokens=_either(
            count, sent, "max_tokens", "max_completion_tokens", "max_gen_len", "max_tokens_to_sample", "maxTokens",
            "max_new_tokens", "maxTokenCount",
        ),
        frequency_penalty=_either(amount, sent, "frequency_penalty"),
        presence_penalty=_either(amount, sent, "presence_penalty"),
        reasoning_level=_either(text, sent, "reasoning_effort"),
    )  # fmt: skip


def _invoke(given: Given) -> Asked | None:
    described = _invocation(given, stream=False)
    if described is None:
        return None
    stage, request = described
    guarded = given.get("guardrailIdentifier") is not None
    if stage == "embedding":
        chunks = JsonBytes(None, _embedded, _MOST_VECTOR_BYTES)
        return Asked(stage, request, _vectors_measured, member="body", chunks=lambda _: chunks)
    response = partial(_measured, guarded=guarded)
    return Asked(stage, request, response, member="body", chunks=lambda observed: JsonBytes(None, _said(observed)))


def _invoke_stream(given: Given) -> Asked | None:
    described = _invocation(given, stream=True)
    if described is None or described[0] != "llm":
        return None
    guarded = given.get("guardrailIdentifier") is not None
    return Asked(*described, partial(_measured, guarded=guarded), member="body", chunks=lambda _: Events())


# what came back


def _answered(said: Response | None, result: Given, *, guarded: bool = False, told: Any = None) -> Response | None:
    """What the call itself tells, and where the model's words are at hand, why they ended."""
    known = Response(id=request_id(result), guardrail="passed" if guarded else None)
    found = merged(known, said)
    return found if told is None else merged(found, answer(told))


def _measured(result: Given, *, guarded: bool = False) -> Response | None:
    """What the headers of InvokeModel tell, before the body is read."""
    told = counted({name: digits(header(result, key)) for name, key in _COUNTS.items()})
    tier = _tier(part(result, "serviceTier"), part(result, "performanceConfigLatency"))
    return merged(_answered(told, result, guarded=guarded), Response(service_tier=tier))


def _said(observed: Observed) -> Callable[[Any], Response]:
    def read_answer(told: Any) -> Response:
        if speaks(told):
            observed.call.content()
        return answer(told)

    return read_answer


def _vectors_measured(result: Given) -> Response | None:
    told = _measured(result)
    if told is None or told.usage is None:
        return None
    return Response(usage=Usage(input_tokens=told.usage.input_tokens), server_time_s=told.server_time_s)


def _embedded(told: Any) -> Response:
    taken = count(part(told, "inputTextTokenCount"))
    vectors = part(told, "embedding") or part(told, "embeddings")
    usage = None if taken is None else Usage(input_tokens=taken)
    return Response(usage=usage, embedding_dimensions=_length(vectors))


def _length(vectors: Any) -> int | None:
    """Length of one vector, of those of a list, or of those of a record by type."""
    if isinstance(vectors, dict):
        vectors = next(iter(vectors.values()), None)
    while isinstance(vectors, list) and vectors and not isinstance(vectors[0], int | float):
        vectors = part(vectors[0], "embedding") or vectors[0]
    return len(vectors) if isinstance(vectors, list) and vectors else None


# the table

OPERATIONS: Final[Mapping[str, Callable[[Given], Asked | None]]] = {
    "Converse": _converse,
    "ConverseStream": _converse_stream,
    "InvokeModel": _invoke,
    "InvokeModelWithResponseStream": _invoke_stream,
}
"""What is recorded, by operation."""


class BedrockInstrumentor(Instrumentor):
    """Records the calls of Bedrock's runtime by ``boto3``, ``botocore`` and ``aiobotocore``."""

    distribution = "botocore"
    supported = "botocore >= 1.38, < 2"
    package = "builtins"  # answers are plain records
    coverage = Coverage(
        title="Amazon Bedrock (boto3)",
        calls={
            "converse": "llm",
            "converse_stream": "llm",
            "invoke_model": "llm",
            "invoke_model (embedding models)": "embedding",
            "invoke_model_with_response_stream": "llm",
        },
        ways="sync, and async by `aiobotocore` 3; plain and streamed; clients made before or after switching on",
        recorded=(
            "Tokens, of them cached and cache-written ones; finish reasons; first text and gaps of streams; the length"
            " of embeddings and their tokens.",
            "Bodies of InvokeModel are read for Anthropic, Nova, Titan, Llama, Cohere, Mistral and the models with"
            " OpenAI's shape; where a body has no token counts (Mistral, Cohere), those of Bedrock's headers and of"
            " its last chunk are taken.",
            "Input tokens are the sum of the new, the cached and the cache-written ones: Bedrock reports them apart.",
            "The provider's own time (`latencyMs`), what a guardrail did, and the model a prompt router chose.",
            "The price is that of the id that was asked for, with its region or `global` prefix.",
            "Beside OpenTelemetry's instrumentation of botocore its span of the call stays, without tokens and metrics"
            " of its own.",
        ),
        not_recorded=(
            "Reasoning tokens apart from the output, which Converse does not tell; those of models with OpenAI's shape"
            " are.",
            "The model's own name inside a body: Bedrock bills the id that was asked for.",
            "Resource names that do not contain a model (application inference profiles, provisioned and imported"
            " models) have no list price; `optimized` latency has none either.",
            "A body of InvokeModel given as a file, or longer than 8 MiB, is not read: its model is recorded, and what"
            " the answer tells.",
            "Images, video, rerank, batch and bidirectional calls, `ApplyGuardrail`, `CountTokens`, agents and"
            " knowledge bases.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        return (
            *targets(_SERVICE, OPERATIONS),
            Target(f"{_OFFICIAL}.registry", "ExtensionRegistry.get_extension", _without_tokens),
        )


def _without_tokens(wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The official instrumentation of botocore keeps its span of a call, and leaves the model's part of it to us."""
    made = wrapped(*args, **kwargs)
    call = args[0] if args else kwargs.get("call_context")
    if getattr(call, "service", None) != _SERVICE or getattr(call, "operation", None) not in OPERATIONS:
        return made
    return import_module(f"{_OFFICIAL}.types")._AwsSdkExtension(call)  # noqa: SLF001 - there is no public one


def read(response: Any) -> Response | None:
    """The facts of Converse's answer; ``None`` for anything else."""
    is_answer = isinstance(response, dict) and "stopReason" in response
    return _answered(conversed(response), response, told=response) if is_answer else None
