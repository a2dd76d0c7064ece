"""Runs of LangChain's models: each is a call, unless an instrumented client below makes the call, or a cache answers.

A run begins no span. It stands in the context of the code that works for it, where a client's call finds it and says
that it is the call. Where none has by the first chunk, or by the end, the run becomes the call, from its own start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from weakref import ref

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, get_current_span

from stagelight import _clock
from stagelight._calls import Call, current_call
from stagelight._lifecycle import CALL_KEY, Attachment
from stagelight._streaming import StreamEnd
from stagelight.facts import Request, Response, Stage, Usage
from stagelight.integrations._reading import amount, count, part, text, texts

__all__ = ["ModelRun", "current_run", "request_of", "response_of"]

_KEY: Final = otel_context.create_key("stagelight.integrations.langchain.model")


class ModelRun(Call):
    """One run of a model; ``active`` is the block in which the model works."""

    __slots__ = ("_before", "_block", "_is_call", "_stream", "forget", "is_answered", "is_begun", "siblings")

    def __init__(self) -> None:
        super().__init__("llm", Request())
        self.is_begun = False
        """Whether LangChain has said that the run has begun."""
        self.is_answered = False
        """Whether another call, or a cache, gives the answer."""
        self.siblings: Sequence[ModelRun] = ()
        """Runs that the same code works for."""
        self.forget: Callable[[], object] = lambda: None
        """Called when the run is over, whoever says so."""
        self._block: Call | None = None
        self._is_call = False
        self._stream: StreamEnd | None = None

    def _start(self) -> None:
        self._before = before = otel_context.get_current()
        around = current_call(before)
        if around is not None and around.stage == self.stage and not isinstance(around, ModelRun):
            self._block = around  # a block of the application's own is the call; a client below finds that
        marked = Context({**before, _KEY: (ref(self), None)})
        self._begin_inside(get_current_span(before), CALL_KEY if self._block is None else _KEY, marked)

    def asked(self, request: Request) -> None:
        """The run begins."""
        self.is_begun = True
        self.request = request
        self.start_ns, self.start_s = _clock.wall_ns(), _clock.seconds()

    def join(self, stage: Stage, request: Request) -> bool:
        """A call inside is never this one: a client's own call is the better record."""
        del request
        self.began_inside(stage)
        return False

    def began_inside(self, stage: Stage) -> None:
        """A call that the model makes, or that its author records by hand, is the call."""
        if stage == self.stage:
            self.answered()

    def answered(self) -> None:
        """Another call, or a cache, gives the answer: this run, and those around it, are none."""
        for run in (self, *self.siblings):
            run.is_answered = True
        around = current_run(self._before)
        if around is not None:
            around.answered()

    def said(self, has_content: bool) -> None:
        """A chunk has come."""
        if not self._is_call:
            self.request = self.request._replace(stream=True)
        if not self._is_the_call():
            return
        if self._stream is None:
            self._stream = StreamEnd(self, ends_scope=True)
        self.tick()
        if has_content:
            self.content()

    def ended(self, response: Response | None) -> None:
        """The run is over."""
        if self._block is not None:
            self._fill(self._block, response)
        elif self._is_the_call():
            self.absorb(response)
            if self._stream is None:
                self.end()
            else:
                self._stream.with_outcome("completed")
        self._open.clear()

    def failed(self, error: BaseException, response: Response | None) -> None:
        """The run ended with an error."""
        if isinstance(error, GeneratorExit):
            self.left()
        elif self._block is None and self._is_the_call():
            status = count(part(error, "status_code"))
            self.absorb(response)
            self.absorb(None if status is None else Response(http_status=status))
            if self._stream is None:
                self.fail(error)
            else:
                self._stream.with_error(error)
        else:
            self._open.clear()

    def left(self) -> None:
        """Nobody waits for the run any more, if it is not over; safe inside a garbage collection."""
        self.forget()
        if self._stream is None:
            self._open.clear()
        else:
            self._stream.abandoned_unseen()

    def _fill(self, block: Call, response: Response | None) -> None:
        is_empty = block.response_facts is None and block.usage_facts is None  # else a client has filled it
        if is_empty and block.join(self.stage, self.request._replace(provider=None)):
            block.absorb(response)

    def _is_the_call(self) -> bool:
        if self._is_call or not self.live:
            return self.live  # what a first chunk has made a call stays one
        if self.is_answered or self._block is not None:
            return False
        self._become_the_call()
        return True

    def _become_the_call(self) -> None:
        self._is_call = True
        since = self.start_ns, self.start_s
        with Attachment(self._before):
            super()._start()
        self.start_ns, self.start_s = since
        around = current_run(self._before)
        if around is not None:
            around.answered()

    def _begin(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        key: str,
        before: Context | None = None,
        since: tuple[int, float] | None = None,
    ) -> None:
        super()._begin(name, kind, attributes, key, before, since or (self.start_ns, self.start_s))


def current_run(context: Context | None = None) -> ModelRun | None:
    """The innermost run whose code this is."""
    found = otel_context.get_value(_KEY, context)
    run = found[0]() if isinstance(found, tuple) else None
    return run if isinstance(run, ModelRun) and run.live else None


# what was asked

_PROVIDERS: Final[Mapping[str, str]] = {
    "azure": "azure.ai.openai",
    "amazon_bedrock": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""LangChain's word for a provider, where it is not the conventions'."""


def request_of(metadata: Any, parameters: Any, operation: str | None = None) -> Request:
    """What a model was asked.

    Args:
        metadata: of the run; LangChain's own keys begin with ``ls_``.
        parameters: of the invocation, under the names that the integration of the provider gives them.
        operation: ``gen_ai.operation.name`` where it is not the stage's own.
    """
    told = text(part(metadata, "ls_provider"))
    model = text(part(metadata, "ls_model_name")) or text(part(parameters, "model"))
    return Request(
        provider=None if told is None else _PROVIDERS.get(told, told),
        model=model or text(part(parameters, "model_name")),
        operation=operation,
        temperature=amount(part(metadata, "ls_temperature")),
        max_tokens=count(part(metadata, "ls_max_tokens")),
        top_p=amount(part(parameters, "top_p")),
    )


# what came back

_REASONS: Final = ("finish_reason", "stop_reason", "done_reason")
_CUT: Final = frozenset({"length", "max_tokens", "MAX_TOKENS"})
_MODELS: Final = ("model_name", "model", "model_id")
_OWN_IDS: Final = ("run-", "lc_run-")
"""Ids that LangChain gives to messages whose provider gave none."""


def response_of(result: Any) -> Response | None:
    """What a model answered, from LangChain's ``LLMResult``; ``None`` when there is nothing in it."""
    listed = part(result, "generations") or [[]]
    generations = [one for one in listed[0] if one is not None]
    if not generations:
        return None
    message, told = part(generations[0], "message"), _told(generations[0])
    reasons = texts([reason for one in generations if (reason := _first(_told(one), _REASONS)) is not None])
    given = text(part(message, "id"))
    return Response(
        model=_first(told, _MODELS) or _first(part(result, "llm_output"), _MODELS),
        id=text(told.get("id")) or (None if given is None or given.startswith(_OWN_IDS) else given),
        finish_reasons=reasons,
        service_tier=text(told.get("service_tier")),
        usage=_usage(part(message, "usage_metadata")) or _older_usage(result),
        length_cut=not _CUT.isdisjoint(reasons or ()),
    )


def _told(generation: Any) -> dict[str, Any]:
    return {
        **(part(generation, "generation_info") or {}),
        **(part(generation, "message", "response_metadata") or {}),
    }


def _first(record: Any, names: Sequence[str]) -> str | None:
    return next((found for name in names if (found := text(part(record, name))) is not None), None)


def _usage(told: Any) -> Usage | None:
    """Counts are inclusive, whatever the provider's are."""
    if not told:
        return None
    taken, made = part(told, "input_token_details"), part(told, "output_token_details")
    by_life = {life: count(part(taken, f"ephemeral_{life}_input_tokens")) for life in ("5m", "1h")}
    written = {life: tokens for life, tokens in by_life.items() if tokens}
    return Usage(
        input_tokens=count(part(told, "input_tokens")),
        output_tokens=count(part(told, "output_tokens")),
        cache_read_tokens=count(part(taken, "cache_read")),
        cache_write_tokens=written or count(part(taken, "cache_creation")),
        reasoning_tokens=count(part(made, "reasoning")),
        audio_input_tokens=count(part(taken, "audio")) or None,
        audio_output_tokens=count(part(made, "audio")) or None,
    )


def _older_usage(result: Any) -> Usage | None:
    """What models that complete text say of all their prompts at once."""
    told = part(result, "llm_output", "token_usage")
    taken, made = count(part(told, "prompt_tokens")), count(part(told, "completion_tokens"))
    return None if taken is None and made is None else Usage(input_tokens=taken, output_tokens=made)
