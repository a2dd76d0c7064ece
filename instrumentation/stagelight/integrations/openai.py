"""The official ``openai`` client, 1.60 to 3: chat completions, responses, embeddings, speech and transcription.

Wrapped are the function all requests pass, the one that sees the HTTP response, and the start of its stream classes.
Everything else here reads what was sent and what came back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from stagelight.facts import Request, Response, merged
from stagelight.integrations._engine import around, around_async
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._openai_audio import SPEECH, TRANSCRIPTION, heard
from stagelight.integrations._openai_usage import charged, used
from stagelight.integrations._reading import amount, code, count, integer, part, parts, text, texts
from stagelight.integrations._requests import Operation, begin, note_response, watch_items

__all__ = ["OPERATIONS", "OpenAIInstrumentor", "read"]

Body = Mapping[str, Any]

_OUTPUT_TYPES = {"json_object": "json", "json_schema": "json", "text": "text"}


def _tier(sent: Body) -> str | None:
    tier = text(sent.get("service_tier"))
    return None if tier == "auto" else tier  # the provider's own choice is no request


def _chat_request(sent: Body) -> Request:
    # Stop sequences are left out: they are text of the caller's and may carry content.
    limit = count(sent.get("max_completion_tokens"))
    return Request(
        model=text(sent.get("model")),
        stream=True if sent.get("stream") is True else None,
        temperature=amount(sent.get("temperature")),
        top_p=amount(sent.get("top_p")),
        frequency_penalty=amount(sent.get("frequency_penalty")),
        presence_penalty=amount(sent.get("presence_penalty")),
        max_tokens=count(sent.get("max_tokens")) if limit is None else limit,
        seed=integer(sent.get("seed")),
        choice_count=count(sent.get("n")),
        reasoning_level=text(sent.get("reasoning_effort")),
        output_type=_OUTPUT_TYPES.get(str(part(sent.get("response_format"), "type"))),
        service_tier=_tier(sent),
    )


def _responses_request(sent: Body) -> Request:
    conversation = sent.get("conversation")
    return Request(
        model=text(sent.get("model")),
        stream=True if sent.get("stream") is True else None,
        temperature=amount(sent.get("temperature")),
        top_p=amount(sent.get("top_p")),
        max_tokens=count(sent.get("max_output_tokens")),
        reasoning_level=text(part(sent.get("reasoning"), "effort")),
        output_type=_OUTPUT_TYPES.get(str(part(sent.get("text"), "format", "type"))),
        conversation_id=text(conversation) or text(part(conversation, "id")),
        previous_response_id=text(sent.get("previous_response_id")),
        service_tier=_tier(sent),
    )


def _embeddings_request(sent: Body) -> Request:
    encoding = sent.get("encoding_format")
    return Request(
        model=text(sent.get("model")),
        dimensions=count(sent.get("dimensions")),
        # The client sends base64 by itself when the caller asks for nothing.
        encoding_formats=None if encoding == "base64" else texts(encoding),
    )


# what came back


def _chat_response(answer: Any, _request: Request | None = None) -> Response:
    reasons = [part(choice, "finish_reason") for choice in parts(answer, "choices")]
    return Response(
        model=text(part(answer, "model")),
        id=text(part(answer, "id")),
        finish_reasons=texts(reasons),
        service_tier=text(part(answer, "service_tier")),
        usage=used(part(answer, "usage")),
        stated_cost=charged(part(answer, "usage")),
        length_cut="length" in reasons,
    )


def _chat_speaks(answer: Any) -> bool:
    return any(part(choice, "message", "content") for choice in parts(answer, "choices"))


_BILLED_CALLS = {"web_search_call": "searches", "file_search_call": "tools", "code_interpreter_call": "tools"}


def _billed(item: Any) -> str | None:
    """What an item of an answer costs beside its tokens: of the web tool's actions only searches do."""
    is_free = part(item, "action", "type") not in {None, "search"}
    return None if is_free else _BILLED_CALLS.get(str(part(item, "type")))


def _responses_response(answer: Any, _request: Request | None = None) -> Response:
    status = text(part(answer, "status"))
    cut = part(answer, "incomplete_details", "reason") == "max_output_tokens"
    usage = used(part(answer, "usage"))
    if usage is not None:
        kinds = [_billed(item) for item in parts(answer, "output")]
        usage = usage._replace(
            searches=kinds.count("searches") or None,
            tools=kinds.count("tools") or None,
        )
    return Response(
        model=text(part(answer, "model")),
        id=text(part(answer, "id")),
        finish_reasons=_responses_reasons(answer, status),
        service_tier=text(part(answer, "service_tier")),
        usage=usage,
        stated_cost=charged(part(answer, "usage")),
        length_cut=cut,
    )


def _responses_reasons(answer: Any, status: str | None) -> tuple[str, ...] | None:
    """The protocol has a status and a detail; these are the words of chat completions for the same."""
    if status == "completed":
        called = any(part(item, "type") == "function_call" for item in parts(answer, "output"))
        return ("tool_calls",) if called else ("stop",)
    if status == "incomplete":
        reason = text(part(answer, "incomplete_details", "reason"))
        return ("length" if reason == "max_output_tokens" else reason or status,)
    return None


def _responses_speaks(answer: Any) -> bool:
    return any(part(item, "type") == "message" for item in parts(answer, "output"))


def _responses_failure(answer: Any) -> str | None:
    return code(part(answer, "error", "code"), "failed") if part(answer, "status") == "failed" else None


def _embeddings_response(answer: Any, _request: Request | None = None) -> Response:
    first = next(iter(parts(answer, "data")), None)
    told = part(answer, "usage")
    usage = used(told)
    if usage is not None and usage.input_tokens is None:
        usage = usage._replace(input_tokens=count(part(told, "total_tokens")))  # Voyage tells nothing else
    return Response(
        model=text(part(answer, "model")),
        usage=usage,
        stated_cost=charged(told),
        embedding_dimensions=_length(part(first, "embedding")),
    )


def _length(vector: Any) -> int | None:
    """Numbers in a vector: a list, or base64 of 4 bytes each."""
    if isinstance(vector, str):
        return (len(vector) // 4 * 3 - vector[-2:].count("=")) // 4 or None
    return len(vector) if isinstance(vector, list) else None


# streams

_MOST_REASONS = 16


class _ChatChunks:
    streamed: ClassVar[bool] = True
    failure: str | None = None

    def __init__(self) -> None:
        self.finished = False
        self._told: Response | None = None
        self._reasons: dict[int, str] = {}
        self._is_cut = False
        self._usage: Any = None
        self._tier: str | None = None

    def take(self, chunk: Any) -> bool:
        if self._told is None:
            self._tier = text(part(chunk, "service_tier"))
        if self._told is None or self._told.model is None:  # Azure's first chunk has neither model nor id
            self._told = merged(self._told, Response(model=text(part(chunk, "model")), id=text(part(chunk, "id"))))
        self._usage = part(chunk, "usage") or self._usage
        has_text = False
        for choice in part(chunk, "choices") or ():
            if part(choice, "delta", "content"):
                has_text = True
            reason = text(part(choice, "finish_reason"))
            if reason is not None:
                self.finished = True
                self._is_cut = self._is_cut or reason == "length"
                self._keep(count(part(choice, "index")) or 0, reason)
                self._tier = text(part(chunk, "service_tier")) or self._tier
                self._usage = self._usage or part(chunk, "x_groq", "usage") or part(choice, "usage")  # Groq, Moonshot
        return has_text

    def _keep(self, index: int, reason: str) -> None:
        if len(self._reasons) < _MOST_REASONS or index in self._reasons:
            self._reasons[index] = reason

    def response(self) -> Response | None:
        if self._told is None:
            return None
        return self._told._replace(
            finish_reasons=texts([self._reasons[index] for index in sorted(self._reasons)]),
            service_tier=self._tier,
            usage=used(self._usage),
            stated_cost=charged(self._usage) if self.finished else None,  # Perplexity: 0 until then
            length_cut=self._is_cut,
        )


_LAST_EVENTS = frozenset(f"response.{end}" for end in ("completed", "incomplete", "failed", "cancelled", "done"))


class _ResponsesChunks:
    streamed: ClassVar[bool] = True

    def __init__(self) -> None:
        self.finished = False
        self.failure: str | None = "incomplete_stream"  # a stream that ends before its answer does: nobody raises
        self._told: Response | None = None

    def take(self, chunk: Any) -> bool:
        kind = part(chunk, "type")
        if kind == "response.output_text.delta":
            return bool(part(chunk, "delta"))
        if kind == "error":
            self.failure = code(part(chunk, "code"), "error")
            self.finished = True
        elif kind in _LAST_EVENTS or self._told is None:
            answer = part(chunk, "response")
            self._told = _responses_response(answer) if answer is not None else self._told
            self.finished = kind in _LAST_EVENTS
            self.failure = _responses_failure(answer) if self.finished else self.failure
        return False

    def response(self) -> Response | None:
        return self._told


# the table

OPERATIONS: Mapping[str, Operation] = {
    "/chat/completions": Operation("llm", _chat_request, _chat_response, has_content=_chat_speaks, items=_ChatChunks),
    "/responses": Operation(
        "llm",
        _responses_request,
        _responses_response,
        has_content=_responses_speaks,
        items=_ResponsesChunks,
        failure=_responses_failure,
    ),
    "/embeddings": Operation("embedding", _embeddings_request, _embeddings_response),
    "/audio/speech": SPEECH,
    "/audio/transcriptions": TRANSCRIPTION,
    "/audio/translations": TRANSCRIPTION,
}
"""What is recorded, by path."""

_BEGIN = begin(OPERATIONS)
_CLIENT, _STREAMS = "openai._base_client", "openai._streaming"


class OpenAIInstrumentor(Instrumentor):
    """Records the calls of the official ``openai`` client."""

    distribution = "openai"
    supported = "openai >= 1.60, < 4"
    coverage = Coverage(
        title="OpenAI",
        calls={
            "chat.completions.create": "llm",
            "chat.completions.parse": "llm",
            "chat.completions.stream": "llm",
            "responses.create": "llm",
            "responses.parse": "llm",
            "responses.stream": "llm",
            "embeddings.create": "embedding",
            "audio.speech.create": "tts",
            "audio.transcriptions.create": "stt",
            "audio.translations.create": "stt",
        },
        ways="sync and async; plain and streamed; `parse` and `stream` helpers (in older versions below `client.beta`);"
        " `with_raw_response`, `with_streaming_response`; `AzureOpenAI`",
        recorded=(
            "Tokens, of them cached, reasoning, audio and image ones where the provider tells them; finish reasons;"
            " first text and gaps of streams; what is left of the rate limits; the length of embeddings.",
            "Speech: voice, format, characters, bytes, first audio, and the seconds of WAV and of OpenAI's own PCM,"
            " counted as the bytes pass. First audio is the first block that your code receives, so take it with"
            " `with_streaming_response`: a plain `create()` returns when all of it is there.",
            "Transcription and translation: the seconds that are billed, else the file's length where the answer tells"
            " it (`verbose_json`), or the tokens, those of audio apart.",
            "The provider is that of the [host](#providers-by-host), so compatible servers have their own name and"
            " prices.",
            "Token counts are inclusive: where a provider leaves reasoning out of its output but not out of its total"
            " (xAI, Gemini), it is added. Web searches and tool executions of the responses API, which cost money"
            " beside the tokens, are counted.",
            "What OpenRouter, Perplexity (`usage.cost`) and xAI (`usage.cost_in_usd_ticks`) say a call cost is its"
            " cost, with the source `provider`; with a key of your own at OpenRouter, what the provider behind it takes"
            " is added.",
            "An answer that the client refuses (`LengthFinishReasonError` of the parsing helpers) is an error, with"
            " its tokens and its cost: it was paid for.",
            "Events that you take apart yourself (`iter_lines` of a streaming response) are read for their usage while"
            " they pass, unless they are compressed; an answer in one piece also when it is gzip or deflate.",
        ),
        not_recorded=(
            'The usage of a streamed chat completion that does not ask for it: give `stream_options={"include_usage":'
            " True}`. Nothing is added to a request, so without it the call is `unpriced` with the reason `no_usage`."
            " The responses API always sends it.",
            "The tokens of speech in bytes, which OpenAI does not tell: models billed by them are `unpriced`, unless"
            ' speech is sent as events (`stream_format="sse"`). `tts-1` and `tts-1-hd` are billed by characters.',
            "Seconds of `mp3` and other compressed speech, whose length is only known when it is decoded.",
            "Usage of transcripts as plain text, `srt` or `vtt`: they come without, and are `unpriced`.",
            "Legacy completions, images, moderation, batches, realtime, and fetching stored responses.",
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
        )


_READ = {
    "ChatCompletion": _chat_response,
    "Response": _responses_response,
    "CreateEmbeddingResponse": _embeddings_response,
    "Transcription": heard,
    "TranscriptionVerbose": heard,
    "TranscriptionDiarized": heard,
    "TranslationVerbose": heard,
}


def read(response: Any) -> Response | None:
    """The facts of an answer of the client; ``None`` for anything else it returns."""
    for kind in type(response).__mro__:
        if kind.__name__ in _READ:
            return _READ[kind.__name__](response)
    return None
