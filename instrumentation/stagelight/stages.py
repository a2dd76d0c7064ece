"""The words of the public API: one verb per stage, turns and jobs; the facts that are not calls are ``_remarks``.

Every verb makes one object that is a block (``with`` and ``async with``) or, with ``start``, an object to end yourself.
``turn``, ``job`` and ``tool`` are decorators too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from stagelight._calls import Call, current_call
from stagelight._decorators import decorated
from stagelight._guard import quietly
from stagelight._lifecycle import Scope
from stagelight._nothing import NOTHING, Nothing
from stagelight._remarks import cache, evaluation, feedback, identify, owner_of
from stagelight._turns import Turn
from stagelight._validation import checked_request, checked_text, checked_tool_type, good_shapes
from stagelight.facts import Identity, Request, Stage

__all__ = [
    "Call", "Job", "NamedVerb", "Tool", "Turn", "Verb", "cache", "chunk", "current", "embedding", "enrich",
    "evaluation", "feedback", "identify", "job", "llm", "memory", "parse", "rerank", "retrieval", "store", "stt",
    "tool", "tts", "turn",
]  # fmt: skip

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
A = ParamSpec("A")
R = TypeVar("R")
Made = TypeVar("Made", bound=Scope)
Decorator = TypeVar("Decorator", "Decorating", "Tool")


class Verb(Generic[P, Made]):
    """A word of the API: call it for a block, or ``start`` it for an object to end yourself."""

    def __init__(self, make: Callable[P, Made]) -> None:
        self._make = make
        self.__doc__ = make.__doc__
        self.__name__ = make.__name__
        self.__wrapped__ = make

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Made:
        return self._make(*args, **kwargs)

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Made:
        """Start now, without a block; give it to ``end`` or ``fail`` when it is over."""
        return self._make(*args, **kwargs).start()


class NamedVerb(Verb[P, Decorator]):
    """A word that decorates too: ``@tool("lookup")``, or plain ``@tool``, which takes the function's name."""

    @overload
    def __call__(self, function: Callable[A, R], /) -> Callable[A, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Decorator: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and inspect.isroutine(args[0]):
            make: Callable[[str], Decorator] = self._make  # type: ignore[assignment]  # the first argument is the name
            return make(args[0].__name__)(args[0])
        return self._make(*args, **kwargs)


def _decorator(make: Callable[[], Call | Turn]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        return decorated(function, make)

    return decorate


class Decorating(Turn):
    """A turn or job that decorates functions as well."""

    __slots__ = ()

    def __call__(self, function: F) -> F:
        """Decorate: every invocation of ``function`` is a turn of its own, to the end of what it yields."""
        kind, name, given = self.kind, self.name, self.identity
        return _decorator(lambda: Decorating(kind, name, given))(function)


class Tool(Call):
    """A tool call that decorates functions as well."""

    __slots__ = ()

    def __call__(self, function: F) -> F:
        """Decorate: every invocation of ``function`` is one execution of the tool."""
        request = self.request
        return _decorator(lambda: Tool("tool", request))(function)


Job = Decorating


def _asked(stage: Stage, request: Request) -> Request:
    if tuple(map(type, request)) in good_shapes:
        return request
    return quietly(stage, lambda: checked_request(stage, request), Request())


def _call(stage: Stage, request: Request) -> Call:
    return Call(stage, _asked(stage, request))


def _turn(kind: Literal["turn", "job"], name: str, **owner: str | None) -> Decorating:
    known = quietly(kind, lambda: checked_text(kind, "name", name), None)
    return Decorating(kind, known or kind, quietly(kind, lambda: owner_of(kind, **owner), Identity()))


@NamedVerb
def turn(
    name: str,
    *,
    conversation_id: str | None = None,
    feature: str | None = None,
    variant: str | None = None,
    tenant: str | None = None,
    route: str | None = None,
    user_id: str | None = None,
    session_id: str | None = None,
) -> Decorating:
    """One request from question to answer: an ``invoke_workflow`` span that knows its stages.

    Args:
        name: name of the workflow, low cardinality: ``answer``.
        conversation_id: the application's own id of the conversation; sent as given.
        feature: product feature the turn serves; a bounded metric label.
        variant: variant of an experiment; a bounded metric label.
        tenant: customer the turn is for; sent plain, a bounded metric label.
        route: route that served the request; a bounded metric label.
        user_id: id of the user; only its keyed pseudonym is sent, nothing without ``STAGELIGHT_ID_KEY``.
        session_id: id of the session; treated like ``user_id``.
    """
    return _turn(
        "turn",
        name,
        conversation_id=conversation_id,
        feature=feature,
        variant=variant,
        tenant=tenant,
        route=route,
        user_id=user_id,
        session_id=session_id,
    )


@NamedVerb
def job(name: str, *, feature: str | None = None, tenant: str | None = None) -> Decorating:
    """An ingestion run or a batch; never counted as a turn.

    Args:
        name: what the job does, low cardinality: ``ingest``.
        feature: product feature the job serves; a bounded metric label.
        tenant: customer the job is for; sent plain, a bounded metric label.
    """
    return _turn("job", name, feature=feature, tenant=tenant)


@Verb
def embedding(
    *,
    provider: str,
    model: str,
    dimensions: int | None = None,
    server_address: str | None = None,
    server_port: int | None = None,
) -> Call:
    """Texts into vectors.

    Args:
        provider: ``gen_ai.provider.name``: ``openai``, ``aws.bedrock``, or your own.
        model: the model asked for.
        dimensions: length of the vectors asked for.
        server_address: host of the server.
        server_port: its port.
    """
    return _call(
        "embedding",
        Request(
            provider=provider,
            model=model,
            dimensions=dimensions,
            server_address=server_address,
            server_port=server_port,
        ),
    )


@Verb
def retrieval(
    *,
    provider: str,
    source: str | None = None,
    top_k: int | None = None,
    mode: str | None = None,
    filtered: bool | None = None,
) -> Call:
    """A search in a vector database or another index. Give what it found with ``results``.

    Args:
        provider: the database: ``qdrant``, ``pgvector`` ...
        source: collection, index or table searched.
        top_k: results asked for.
        mode: ``dense``, ``sparse``, ``hybrid`` or ``keyword``.
        filtered: whether a filter narrows the search.
    """
    return _call("retrieval", Request(provider=provider, source=source, top_k=top_k, mode=mode, filtered=filtered))


@Verb
def rerank(*, provider: str, model: str, top_k: int | None = None) -> Call:
    """Reordering search results with a model."""
    return _call("rerank", Request(provider=provider, model=model, top_k=top_k))


@Verb
def llm(
    *,
    provider: str,
    model: str,
    operation: str | None = None,
    stream: bool | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    service_tier: str | None = None,
    conversation_id: str | None = None,
    server_address: str | None = None,
    server_port: int | None = None,
) -> Call:
    """A call of a language model.

    Args:
        provider: ``gen_ai.provider.name``: ``openai``, ``anthropic``, or your own.
        model: the model asked for.
        operation: ``gen_ai.operation.name``; default ``chat``.
        stream: whether the answer is streamed.
        temperature: as sent.
        top_p: as sent.
        max_tokens: as sent.
        service_tier: processing tier asked for (``batch``, ``flex``, ``priority``); decides the price.
        conversation_id: the application's own id of the conversation.
        server_address: host of the server.
        server_port: its port.
    """
    return _call(
        "llm",
        Request(
            provider=provider,
            model=model,
            operation=operation,
            stream=stream,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            service_tier=service_tier,
            conversation_id=conversation_id,
            server_address=server_address,
            server_port=server_port,
        ),
    )


@Verb
def tts(
    *,
    provider: str,
    model: str,
    voice: str | None = None,
    format: str | None = None,  # noqa: A002
    characters: int | None = None,
    server_address: str | None = None,
    server_port: int | None = None,
) -> Call:
    """Text into speech.

    Args:
        provider: ``openai``, ``elevenlabs``, or your own.
        model: the model asked for.
        voice: the voice; on spans only, never a metric label.
        format: audio format: ``wav``, ``pcm``, ``mp3`` ...
        characters: length of the text; give billed characters with ``usage(characters=...)``.
        server_address: host of the server.
        server_port: its port.
    """
    return _call(
        "tts",
        Request(
            provider=provider,
            model=model,
            voice=voice,
            audio_format=format,
            characters=characters,
            output_type="speech",
            server_address=server_address,
            server_port=server_port,
        ),
    )


@Verb
def stt(*, provider: str, model: str) -> Call:
    """Speech into text. Give its length with ``usage(audio_seconds=...)``."""
    return _call("stt", Request(provider=provider, model=model))


@NamedVerb
def tool(
    name: str,
    *,
    type: Literal["function", "extension", "datastore"] | None = None,  # noqa: A002 - the conventions' word
    call_id: str | None = None,
) -> Tool:
    """The execution of a tool.

    Args:
        name: name of the tool, low cardinality.
        type: where it runs: ``function`` in the application, ``extension`` at the provider or agent, ``datastore`` a
            store that is queried.
        call_id: the model's id of this call.
    """
    kind = quietly("tool", lambda: checked_tool_type(type), None)
    return Tool("tool", _asked("tool", Request(name=name, tool_type=kind, tool_call_id=call_id)))


def _work(stage: Stage, name: str | None, provider: str | None) -> Call:
    return _call(stage, Request(name=name, provider=provider))


@Verb
def memory(name: str | None = None, *, provider: str | None = None) -> Call:
    """Reading or writing an agent's memory."""
    return _work("memory", name, provider)


@Verb
def parse(name: str | None = None, *, provider: str | None = None) -> Call:
    """Documents into text."""
    return _work("parse", name, provider)


@Verb
def chunk(name: str | None = None, *, provider: str | None = None) -> Call:
    """Text into chunks."""
    return _work("chunk", name, provider)


@Verb
def enrich(name: str | None = None, *, provider: str | None = None) -> Call:
    """Chunks with more knowledge: titles, summaries, entities."""
    return _work("enrich", name, provider)


@Verb
def store(name: str | None = None, *, provider: str | None = None) -> Call:
    """Writing vectors or documents to a database."""
    return _work("store", name, provider)


def current() -> Call | Nothing:
    """The innermost call; outside one an object on which everything does nothing."""
    return current_call() or NOTHING
