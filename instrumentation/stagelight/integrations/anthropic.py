"""The official ``anthropic`` client, 0.49 to 2: messages, their streams and the tools its runner executes.

Wrapped are the function all requests pass, the one that sees the HTTP response, the start of its stream classes, and
the calls of tools. Everything else here reads what was sent and what came back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from stagelight import _runtime
from stagelight.facts import Request, Response, Usage
from stagelight.integrations._engine import around, around_async
from stagelight.integrations._hosts import COMPATIBLE, Server, provider_of
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._reading import amount, count, part, parts, text, texts
from stagelight.integrations._requests import Operation, Provider, begin, note_response, watch_items
from stagelight.integrations._tools import ToolRun

__all__ = ["OPERATIONS", "AnthropicInstrumentor", "read"]

Body = Mapping[str, Any]

_CLOUDS = {"Bedrock": "aws.bedrock", "Vertex": "gcp.vertex_ai"}
"""Part of the name of a client's class, to the provider it speaks to."""

_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
"""The words of chat completions for the same; a reason that they lack stays as it is."""

_CUT = frozenset({"max_tokens", "model_context_window_exceeded"})


# whom it was asked


def _provider(client: Any, server: Server) -> Provider:
    """The user's own hosts, the cloud of the client's class, the host, and Anthropic where nothing else is known."""
    told = provider_of(server, _runtime.current().settings.provider_hosts)
    if told != provider_of(server, {}):
        return told, True
    clouds = (cloud for kind in type(client).__mro__ for name, cloud in _CLOUDS.items() if name in kind.__name__)
    cloud = next(clouds, None)
    if cloud is not None:
        return cloud, True
    return ("anthropic", False) if told == COMPATIBLE else (told, True)


# what was asked


def _request(sent: Body) -> Request:
    # Stop sequences are left out: they are text of the caller's and may carry content.
    form = part(sent.get("output_config"), "format") or sent.get("output_format")
    return Request(
        model=text(sent.get("model")),
        stream=True if sent.get("stream") is True else None,
        temperature=amount(sent.get("temperature")),
        top_p=amount(sent.get("top_p")),
        top_k=count(sent.get("top_k")),
        max_tokens=count(sent.get("max_tokens")),
        reasoning_level=text(part(sent.get("output_config"), "effort")),
        output_type="json" if part(form, "type") == "json_schema" else None,
    )


# what came back


def _usage(told: Any) -> Usage | None:
    """Token counts with the cached ones in the input, and with the compactions that the totals leave out."""
    if told is None:
        return None
    kinds = [part(one, "type") for one in parts(told, "iterations")]
    counted = (told, *(one for one in parts(told, "iterations") if part(one, "type") == "compaction"))
    read, written = _sum(counted, "cache_read_input_tokens"), _sum(counted, "cache_creation_input_tokens")
    fresh = _sum(counted, "input_tokens")
    given = [one for one in (fresh, read, written) if one is not None]
    return Usage(
        input_tokens=sum(given) if given else None,
        output_tokens=_sum(counted, "output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=_written(written, counted),
        reasoning_tokens=count(part(told, "output_tokens_details", "thinking_tokens")),
        searches=count(part(told, "server_tool_use", "web_search_requests")) or None,
        tools=kinds.count("advisor_message") or None,  # another model's tokens, at its prices: in no total
    )


def _sum(records: Sequence[Any], name: str) -> int | None:
    found = [one for record in records if (one := count(part(record, name))) is not None]
    return sum(found) if found else None


def _written(total: int | None, counted: Sequence[Any]) -> int | Mapping[str, int] | None:
    """Cache writes, by time-to-live where some of them live longer than the usual 5 minutes."""
    lives = [part(one, "cache_creation") for one in counted]
    long = _sum(lives, "ephemeral_1h_input_tokens")
    if not total or not long:
        return total
    if not _sum(lives, "ephemeral_5m_input_tokens"):
        long = total
    return {"5m": max(0, total - long), "1h": min(long, total)}


def _tier(usage: Any) -> str | None:
    tier = "fast" if part(usage, "speed") == "fast" else text(part(usage, "service_tier"))
    return None if tier == "standard" else tier


def _response(answer: Any, _request: Request | None = None) -> Response:
    reason, usage = part(answer, "stop_reason"), part(answer, "usage")
    return Response(
        model=text(part(answer, "model")),
        id=text(part(answer, "id")),
        finish_reasons=texts(_REASONS.get(str(reason), reason)),
        service_tier=_tier(usage),
        usage=_usage(usage),
        length_cut=reason in _CUT,
    )


def _speaks(answer: Any) -> bool:
    return any(part(block, "text") for block in parts(answer, "content"))


class _MessageChunks:
    """The first event has the input, the last but one the output, cumulative, and why it stopped."""

    streamed: ClassVar[bool] = True

    def __init__(self) -> None:
        self.finished = False
        self.failure: str | None = "incomplete_stream"  # a stream that ends before its answer does: nobody raises
        self._message: Any = None
        self._delta: Any = None
        self._last: Any = None

    def take(self, chunk: Any) -> bool:
        kind = part(chunk, "type")
        if kind == "content_block_delta":
            return bool(part(chunk, "delta", "text"))
        if kind == "message_start":
            self._message = part(chunk, "message")
        elif kind == "message_delta":
            self._delta, self._last = part(chunk, "delta"), part(chunk, "usage")
            if part(self._delta, "stop_reason") is not None:
                self._finish()
        elif kind == "message_stop":
            self._finish()
        return False

    def _finish(self) -> None:
        self.finished, self.failure = True, None

    def response(self) -> Response | None:
        if self._message is None:
            return None
        first = part(self._message, "usage")
        told = {name: _newer(first, self._last, name) for name in _COUNTED}
        if self._last is None:
            # What the first event says of the output is a placeholder, and what was made is billed nevertheless.
            told["output_tokens"] = None
        response = _response(
            {
                "model": part(self._message, "model"),
                "id": part(self._message, "id"),
                "stop_reason": part(self._delta, "stop_reason"),
                "usage": told,
            }
        )
        usage = response.usage
        return (
            response
            if usage is None or self._last is not None
            else response._replace(usage=usage._replace(counted=True))
        )


_COUNTED = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation",
    "output_tokens_details", "server_tool_use", "iterations", "service_tier", "speed",
)  # fmt: skip


def _newer(first: Any, last: Any, name: str) -> Any:
    newer = part(last, name)
    return part(first, name) if newer is None else newer


# the table

_MESSAGES = Operation(
    "llm",
    _request,
    _response,
    has_content=_speaks,
    items=_MessageChunks,
    sent_to=("/invoke", "/invoke-with-response-stream", ":rawPredict", ":streamRawPredict"),
)
OPERATIONS: Mapping[str, Operation] = {"/v1/messages": _MESSAGES}
"""What is recorded, by path."""

_BEGIN = begin(OPERATIONS, _provider)
_CLIENT, _STREAMS, _TOOLS = "anthropic._base_client", "anthropic._streaming", "anthropic.lib.tools"


def _run(tool: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> ToolRun:
    return ToolRun(text(part(tool, "name")))


def _tool_targets() -> Iterator[Target]:
    for module, kinds in (
        ("_beta_functions", ("BetaFunctionTool", "BetaAsyncFunctionTool")),
        ("_beta_builtin_memory_tool", ("BetaAbstractMemoryTool", "BetaAsyncAbstractMemoryTool")),
    ):
        for kind in kinds:
            yield Target(f"{_TOOLS}.{module}", f"{kind}.call", around(_run), around_async(_run))


class AnthropicInstrumentor(Instrumentor):
    """Records the calls of the official ``anthropic`` client."""

    distribution = "anthropic"
    supported = "anthropic >= 0.49, < 3"
    coverage = Coverage(
        title="Anthropic",
        calls={
            "messages.create": "llm",
            "messages.stream": "llm",
            "messages.parse": "llm",
            "beta.messages.create": "llm",
            "beta.messages.stream": "llm",
            "beta.messages.parse": "llm",
            "beta.messages.tool_runner": "llm",
            "tools that the tool runner executes": "tool",
        },
        ways="sync and async; plain and streamed; `with_raw_response`, `with_streaming_response`; the clients for"
        " Bedrock, Vertex AI and Foundry",
        recorded=(
            "Tokens, of them cached, cache-written and thinking ones; web searches; finish reasons; first text and"
            " gaps of streams; what is left of the rate limits.",
            "The provider is that of the client's class (`AnthropicBedrock`, `AnthropicVertex`), otherwise of the"
            " [host](#providers-by-host), otherwise `anthropic`.",
            "Input tokens contain the cached ones, which Anthropic reports beside them; cache writes are priced by"
            " their time-to-live; the tokens of compactions, which its totals leave out, are added.",
            "Consultations of an advisor, whose tokens are another model's, are counted as tools: the cost of such a"
            " call is `partial`, a lower bound.",
            "Each request of the tool runner is one call, each tool it executes one `execute_tool` span.",
            "The spans that newer clients make themselves are off, because each call would be there twice; one of their"
            " variables (`ANTHROPIC_OPEN_TELEMETRY=true`) or the option `open_telemetry` has them back.",
            "A stream that ends without its last events is `provider_aborted`, although the client raises nothing.",
            "Events that you take apart yourself (`iter_lines` of a streaming response) are read for their usage while"
            " they pass, unless they are compressed.",
        ),
        not_recorded=(
            "The output of a stream that was left early: only the last events tell it, so its cost is an estimate from"
            " the input.",
            "The surcharge for inference in one country (`inference_geo`) is in no price data; code execution is"
            " billed by time that no answer tells.",
            "Counting of tokens, batches, files, sessions and the legacy completions.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        return (
            Target(_CLIENT, "SyncAPIClient.request", around(_BEGIN)),
            Target(_CLIENT, "AsyncAPIClient.request", around(_BEGIN), around_async(_BEGIN)),
            Target(_CLIENT, "SyncAPIClient._process_response", note_response),
            Target(_CLIENT, "AsyncAPIClient._process_response", note_response),
            Target(_STREAMS, "Stream.__init__", watch_items),
            Target(_STREAMS, "AsyncStream.__init__", watch_items),
            Target("anthropic._tracing", "env_open_telemetry", _ours_instead),
            *_tool_targets(),
        )


def _ours_instead(wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a client that is given no option of telemetry takes: spans of its own would be every call a second time."""
    options = wrapped(*args, **kwargs)
    is_asked_for = any(name.startswith(_OWN_SPANS) for name in os.environ)
    return options if is_asked_for else {**options, "traces": False}


_OWN_SPANS = "ANTHROPIC_OPEN_TELEMETRY"
"""Beginning of the variables of the client's own telemetry."""

_READ = frozenset({"Message", "BetaMessage"})


def read(response: Any) -> Response | None:
    """The facts of an answer of the client; ``None`` for anything else it returns."""
    return _response(response) if any(kind.__name__ in _READ for kind in type(response).__mro__) else None
