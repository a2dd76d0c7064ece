"""The official ``google-genai`` client, 1.32 to 3: contents, their streams, embeddings and the functions it calls.

Wrapped are the functions that send one request each, below the loops that call functions and send the next request.
Everything else here reads what was sent and what came back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit
from weakref import ref

from opentelemetry import context as otel_context

from stagelight import _runtime
from stagelight._guard import guard
from stagelight._lifecycle import Attachment
from stagelight.facts import Request, Response, Stage
from stagelight.integrations._engine import Begin, Observed, around, around_async
from stagelight.integrations._generators import around_async_generator, around_generator
from stagelight.integrations._google_answers import ContentChunks, embedded, field, generated, speaks, usage_of_body
from stagelight.integrations._hosts import Server, provider_of
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target, Wrapper
from stagelight.integrations._reading import amount, count, integer, part, text
from stagelight.integrations._tools import ToolRun
from stagelight.integrations._watching import Watch

__all__ = ["GoogleGenAIInstrumentor", "read"]

_CURRENT = otel_context.create_key("stagelight.integrations.google_genai")
_OUTPUT_TYPES = {"application/json": "json", "text/plain": "text", "text/x.enum": "text"}
_MODALITIES = {"AUDIO": "speech", "IMAGE": "image"}


# whom it was asked


def _server(client: Any) -> Server:
    options = part(client, "_api_client", "_http_options")
    told = urlsplit(str(field(options, "base_url") or ""))
    return told.hostname, None if told.port == 443 else told.port


def _provider(client: Any, server: Server) -> str:
    """The user's own hosts, then which of Google's services the client was made for."""
    told = provider_of(server, _runtime.current().settings.provider_hosts)
    if told != provider_of(server, {}):
        return told
    return "gcp.vertex_ai" if part(client, "_api_client", "vertexai") is True else "gcp.gemini"


# what was asked


def _asked(client: Any, given: Mapping[str, Any]) -> Request:
    server = _server(client)
    model = text(given.get("model"))
    return Request(
        provider=_provider(client, server),
        # The client takes the name of the resource and the name of the model for the same.
        model=None if model is None else model.removeprefix("models/"),
        server_address=server[0],
        server_port=server[1],
    )


def _content_request(client: Any, given: Mapping[str, Any]) -> Request:
    # Stop sequences are left out: they are text of the caller's and may carry content.
    config = given.get("config")
    top_k, tier = field(config, "top_k"), text(field(config, "service_tier"))
    kinds = [_MODALITIES[kind] for kind in _names(field(config, "response_modalities")) if kind in _MODALITIES]
    form = _OUTPUT_TYPES.get(str(field(config, "response_mime_type")))
    return _asked(client, given)._replace(
        operation="generate_content",
        temperature=amount(field(config, "temperature")),
        top_p=amount(field(config, "top_p")),
        top_k=count(int(top_k)) if isinstance(top_k, float) and top_k.is_integer() else count(top_k),
        max_tokens=count(field(config, "max_output_tokens")),
        choice_count=count(field(config, "candidate_count")),
        seed=integer(field(config, "seed")),
        presence_penalty=amount(field(config, "presence_penalty")),
        frequency_penalty=amount(field(config, "frequency_penalty")),
        reasoning_level=_lower(field(field(config, "thinking_config"), "thinking_level")),
        output_type=kinds[0] if kinds else form,
        service_tier=None if tier in {"standard", "unspecified"} else tier,
    )


def _stream_request(client: Any, given: Mapping[str, Any]) -> Request:
    return _content_request(client, given)._replace(stream=True)


def _embedding_request(client: Any, given: Mapping[str, Any]) -> Request:
    return _asked(client, given)._replace(dimensions=count(field(given.get("config"), "output_dimensionality")))


def _names(value: Any) -> list[str]:
    return [one.upper() for item in value if (one := text(item))] if isinstance(value, list) else []


def _lower(value: Any) -> str | None:
    told = text(value)
    return None if told is None else told.lower()


# one request


class _Request:
    """One request of the client, plain or streamed."""

    __slots__ = ("__weakref__", "_body", "_observed", "_read", "_request", "_stage")

    def __init__(self, stage: Stage, request: Request, read: Callable[[Any], Response]) -> None:
        self._stage = stage
        self._request = request
        self._read = read
        self._observed = Observed(stage, request)
        self._body: Any = None

    def active(self) -> Attachment:
        # A context is kept by every timer and task begun in it: it must not keep what the client answered.
        return Attachment(otel_context.set_value(_CURRENT, ref(self), self._observed.call.context))

    def answered(self, http: Any) -> None:
        """What the client got, before it makes anything of it."""
        if self._stage == "embedding":
            self._body = http if isinstance(http, dict) else part(http, "body")

    def watch(self) -> Watch:
        return Watch(self._observed, _Chunks(self._request))

    def returned(self, result: Any) -> None:
        response = _served(self._read(result), self._request)
        if response.usage is None and self._body is not None:
            usage = usage_of_body(self._body)
            response = response._replace(usage=None if usage is None else usage._replace(output_tokens=None))
        self._observed.absorb(response)
        if self._stage == "llm" and speaks(result):
            self._observed.call.content()
        self._observed.end()

    def failed(self, error: BaseException) -> None:
        status = count(part(error, "code"))
        if status is not None and 100 <= status < 600:
            self._observed.absorb(Response(http_status=status))
        self._observed.fail(error)


class _Chunks(ContentChunks):
    def __init__(self, request: Request) -> None:
        super().__init__()
        self._request = request

    def response(self) -> Response | None:
        response = super().response()
        return None if response is None else _served(response, self._request)


def _served(response: Response, request: Request) -> Response:
    """The usual tier is told only where another one was asked for."""
    is_usual = response.service_tier == "standard" and request.service_tier is None
    return response._replace(service_tier=None) if is_usual else response


def _begin(stage: Stage, asked: Callable[[Any, Mapping[str, Any]], Request]) -> Callable[..., _Request]:
    answers = generated if stage == "llm" else embedded
    return lambda client, _args, kwargs: _Request(stage, asked(client, kwargs), answers)


_CONTENT, _STREAM = _begin("llm", _content_request), _begin("llm", _stream_request)
_EMBEDDING = _begin("embedding", _embedding_request)


def _outer_embedding(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Request | None:
    """Older clients have one function that does it all; newer ones send the request one level below."""
    return None if hasattr(type(client), "_embed_content") else _EMBEDDING(client, args, kwargs)


def _note(http: Any) -> Any:
    kept = otel_context.get_value(_CURRENT)
    current = kept() if isinstance(kept, ref) else None
    if isinstance(current, _Request):
        with guard("integration response"):
            current.answered(http)
    return http


def _noting(wrapped: Callable[..., Any], _client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _note(wrapped(*args, **kwargs))


async def _noting_async(
    wrapped: Callable[..., Any], _client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return _note(await wrapped(*args, **kwargs))


# functions that the client calls by itself


def _function(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ToolRun:
    function = args[1] if len(args) > 1 else kwargs.get("function_to_invoke")
    return ToolRun(text(part(function, "__name__")), "FunctionInvocationError")


def _remote_function(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ToolRun:
    called = args[0] if args else kwargs.get("function_call")
    return ToolRun(text(part(called, "name")))


# the table

_MODELS, _API, _EXTRA, _MCP = (
    "google.genai.models", "google.genai._api_client", "google.genai._extra_utils", "google.genai._adapters",
)  # fmt: skip


def _both(begin: Begin) -> tuple[Wrapper, Wrapper]:
    return around(begin), around_async(begin)


class GoogleGenAIInstrumentor(Instrumentor):
    """Records the calls of the official ``google-genai`` client."""

    distribution = "google-genai"
    package = "google"
    supported = "google-genai >= 1.32, < 4"
    coverage = Coverage(
        title="Google Gen AI",
        calls={
            "models.generate_content": "llm",
            "models.generate_content_stream": "llm",
            "chats.create().send_message": "llm",
            "chats.create().send_message_stream": "llm",
            "models.embed_content": "embedding",
            "functions and MCP tools that the client calls by itself": "tool",
        },
        ways="sync and async (`client.aio`); the Gemini API (`gcp.gemini`) and Vertex AI (`gcp.vertex_ai`)",
        recorded=(
            "Tokens, of them cached, thinking, audio and image ones; finish reasons; first text and gaps of streams;"
            " the length of embeddings and their tokens.",
            "Output tokens contain the thoughts and input tokens what tools gave to the model: Google tells both"
            " beside the totals.",
            "Audio, images and pages of documents are counted by the provider's details per modality.",
            "Each request of automatic function calling is one call, each function one `execute_tool` span with the"
            " function's own error.",
            "The tier that served the request and the provider's own time come from the answer and its headers.",
            "A blocked prompt or answer completes with the reason of the block (`safety`, `prohibited_content`).",
        ),
        not_recorded=(
            "The output of a stream that was left early: its last chunk tells it, so its cost is an estimate from the"
            " input.",
            "Searches of the web: the answer does not tell which of them are within the free quota, so their price is"
            " not part of the cost.",
            "Video tokens are priced as text, which differs for live models and multi-modal embeddings.",
            "Finish reasons of more than 16 candidates: those of the first 16 are.",
            "Interactions, live sessions, images and videos by their own methods, caches, files, batches, tuning, and"
            " counting tokens.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        functions = _both(_function)
        return (
            Target(_MODELS, "Models._generate_content", around(_CONTENT)),
            Target(_MODELS, "AsyncModels._generate_content", *_both(_CONTENT)),
            Target(_MODELS, "Models._generate_content_stream", around_generator(_STREAM)),
            Target(
                _MODELS,
                "AsyncModels._generate_content_stream",
                around_generator(_STREAM),
                around_async_generator(_STREAM),
            ),
            Target(_MODELS, "Models._embed_content", around(_EMBEDDING)),
            Target(_MODELS, "AsyncModels._embed_content", *_both(_EMBEDDING)),
            Target(_MODELS, "Models.embed_content", around(_outer_embedding)),
            Target(_MODELS, "AsyncModels.embed_content", *_both(_outer_embedding)),
            Target(_API, "BaseApiClient.request", _noting),
            Target(_API, "BaseApiClient.async_request", _noting, _noting_async),
            Target(_EXTRA, "invoke_function_from_dict_args", *functions),
            Target(_EXTRA, "invoke_function_from_dict_args_async", *functions),
            Target(_MCP, "McpToGenAiToolAdapter.call_tool", *_both(_remote_function)),
        )


_READ: Mapping[str, Callable[[Any], Response]] = {
    "GenerateContentResponse": generated,
    "EmbedContentResponse": embedded,
}


def read(response: Any) -> Response | None:
    """The facts of an answer of the client; ``None`` for anything else it returns."""
    for kind in type(response).__mro__:
        if kind.__name__ in _READ:
            return _served(_READ[kind.__name__](response), Request())
    return None
