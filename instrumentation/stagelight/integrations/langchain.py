"""LangChain and LangGraph: turns, retrievals, tools, and models that no instrumented client serves.

What chains and models do is told by LangChain's own callbacks: a handler joins every run by LangChain's public hook for
that (``register_configure_hook``), so nothing is to be passed to any call. Callbacks cannot make anything current for
the code that they announce, so tools and retrievers are observed as the functions they are, and the places where
LangChain itself sets its context, or lets a model work, set ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from stagelight._calls import Call, current_call
from stagelight._lifecycle import Attachment
from stagelight.facts import Request, Response, Retrieved, Stage
from stagelight.integrations._engine import Begin, Observed, around, around_async
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._langchain_frames import Work, named, pulled, pulled_async
from stagelight.integrations._langchain_models import ModelRun, current_run, response_of
from stagelight.integrations._langchain_runs import callback_handler, is_control_flow
from stagelight.integrations._reading import amount, count, part, text

__all__ = ["LangChainInstrumentor", "callback_handler", "read"]


class _Observed(Observed):
    """Like its base, for a call of a class of its own.

    Args:
        made: the call, unless the one around it is it.
        asked: what that has to fit; ``None`` where it cannot be it.
    """

    __slots__ = ()

    def __init__(self, made: Call, asked: Request | None) -> None:
        ambient = current_call()
        self.joined = ambient is not None and asked is not None and ambient.join(made.stage, asked)
        self.call = ambient if ambient is not None and self.joined else made.start()

    def active(self) -> Attachment:
        return Attachment(self.call.context)


def _given(name: str, position: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


# tools


class _ToolRun(_Observed):
    """One execution of a tool."""

    __slots__ = ()

    def __init__(self, name: str | None, call_id: str | None) -> None:
        request = Request(name=name, tool_type="function", tool_call_id=call_id)
        ambient = current_call()
        is_another = ambient is not None and ambient.stage == "tool" and ambient.request.name not in {None, name}
        super().__init__(Call("tool", request), None if is_another else request)

    def returned(self, _result: Any) -> None:
        self.end()

    def failed(self, error: BaseException) -> None:
        if is_control_flow(error):
            self.end("cancelled")
        else:
            self.fail(error)


def _tool(instance: Any, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> _ToolRun:
    with Attachment(callback_handler().context(kwargs)):
        return _ToolRun(text(part(instance, "name")), text(kwargs.get("tool_call_id")))


# retrievers


class _Search(Call):
    """A retriever's call: what a database client below says of the database is better than the retriever's guess."""

    __slots__ = ()

    def join(self, stage: Stage, request: Request) -> bool:
        """Become the one call of the client."""
        if stage == self.stage and not self._joined:
            known = {name: None for name in ("provider", "source") if getattr(request, name) is not None}
            self.request = self.request._replace(**known)
        return super().join(stage, request)


class _RetrieverRun(_Observed):
    """One search of a retriever."""

    __slots__ = ()

    def __init__(self, request: Request) -> None:
        super().__init__(_Search("retrieval", request), request._replace(provider=None, source=None))

    def returned(self, result: Any) -> None:
        told = self.call.response_facts
        if isinstance(result, list) and (told is None or told.retrieved is None):
            self.absorb(Response(retrieved=Retrieved(count=len(result), scores=_scores(result))))
        self.end()

    def failed(self, error: BaseException) -> None:
        self.fail(error)


def _retriever(instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _RetrieverRun:
    with Attachment(callback_handler().context(_given("config", 1, args, kwargs))):
        return _RetrieverRun(_searched(instance, kwargs))


def _searched(instance: Any, kwargs: dict[str, Any]) -> Request:
    store = part(instance, "vectorstore")
    chosen = {**(part(instance, "search_kwargs") or {}), **kwargs}
    kind = type(store if store is not None else instance).__name__
    limits = (chosen.get("k"), part(instance, "k"), part(instance, "top_k"))
    return Request(
        provider=_provider(kind),
        source=text(part(store, "collection_name")) or text(part(instance, "name")) or kind,
        top_k=next((limit for one in limits if (limit := count(one)) is not None), None),
        filtered=None if store is None else chosen.get("filter") is not None,
    )


_ENDINGS = ("VectorStore", "Store", "Retriever")


def _provider(kind: str) -> str:
    """The database that a class is named after: ``qdrant`` for ``QdrantVectorStore``."""
    for ending in _ENDINGS:
        kind = kind.removesuffix(ending) or kind
    return kind.lower()


_ANSWERS = frozenset({"ai", "AIMessageChunk"})
_SCORES = ("relevance_score", "score")


def _scores(documents: Sequence[Any]) -> tuple[float, ...]:
    """The scores, where every document carries one."""
    for name in _SCORES:
        found = [amount(part(document, "metadata", name)) for document in documents]
        known = tuple(float(score) for score in found if score is not None)
        if len(known) == len(found):
            return known
    return ()


def read(response: Any) -> Response | None:
    """The facts of a model's message or of its whole result; ``None`` for anything else of LangChain's."""
    if text(part(response, "type")) in _ANSWERS:
        return response_of({"generations": [[{"message": response}]]})
    return response_of(response) if type(response).__name__ == "LLMResult" else None


# models, and the contexts of runs


def _entered(_instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    # In a copy of the caller's context, which LangChain throws away when the run's code is done.
    otel_context.attach(callback_handler().context(_given("config", 0, args, kwargs)))


def _answer(_instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Work | None:
    return _work([_given("run_manager", 2, args, kwargs)])


def _answers(_instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Work | None:
    return _work(_given("run_managers", 2, args, kwargs) or ())


def _work(managers: Iterable[Any]) -> Work | None:
    runs = [run for run in map(callback_handler().model_of, managers) if run is not None]
    return Work(runs) if runs else None


def _cached(_instance: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    run = current_run()
    if run is not None:
        run.answered()


def _stream(_instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModelRun:
    with Attachment(callback_handler().context(_given("config", 1, args, kwargs))):
        return ModelRun().start()


def _events(_instance: Any, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModelRun | None:
    run: ModelRun | None = callback_handler().model_of(kwargs.get("run_manager"))
    return run


class _Joining:
    """Stands where LangChain's hook expects a context variable: has the handler while it is to join."""

    def __init__(self, is_on: Callable[[], bool]) -> None:
        self._is_on = is_on

    def get(self) -> Any:
        """The handler, or ``None``."""
        return callback_handler() if self._is_on() and is_instrumentation_enabled() else None


_HOOKS = "langchain_core.tracers.context"
_CHAT, _TEXT = "langchain_core.language_models.chat_models", "langchain_core.language_models.llms"
_CONTEXTS = ("langchain_core.runnables.config", "langgraph._internal._runnable")

_FUNCTIONS: Mapping[tuple[str, str], Begin] = {
    **{(module, "_set_config_context"): _entered for module in _CONTEXTS},
    **{("langchain_core.tools.base", f"BaseTool.{name}"): _tool for name in ("run", "arun")},
    **{("langchain_core.retrievers", f"BaseRetriever.{name}"): _retriever for name in ("invoke", "ainvoke")},
    (_CHAT, "BaseChatModel._generate_with_cache"): _answer,
    (_CHAT, "BaseChatModel._agenerate_with_cache"): _answer,
    (_CHAT, "BaseChatModel._convert_cached_generations"): _cached,
    (_TEXT, "BaseLLM._generate_helper"): _answers,
    (_TEXT, "BaseLLM._agenerate_helper"): _answers,
}


class LangChainInstrumentor(Instrumentor):
    """Records chains, graphs, retrievers, tools and models of LangChain and LangGraph."""

    distribution = "langchain-core"
    supported = "langchain-core >= 0.3.75, < 2"
    coverage = Coverage(
        title="LangChain and LangGraph",
        calls={"model.invoke": "llm", "model.stream": "llm", "retriever.invoke": "retrieval", "tool.invoke": "tool"},
        ways="sync and async; plain, streamed, in batches and as events; alone, in chains, in graphs and in agents",
        recorded=(
            "Nothing is to be passed to any call: a callback handler joins every run by LangChain's own hook;"
            " callbacks of yours stay as they are.",
            "The outermost chain or graph, outside a turn and a request, is a turn with its name (`run_name`, the"
            " graph's, or the class), if a stage runs inside; inside a turn or a request it is a part of that.",
            "A model's call is that of the instrumented client below it; where there is none, it is recorded as"
            " LangChain tells it: provider, model, usage, finish reasons, first chunk.",
            "A retriever and the database client below it are one retrieval. Its source is the store's"
            " `collection_name`, the retriever's `name`, or the class; its scores are those that every document"
            " carries (`relevance_score` or `score` in its metadata), without a metric.",
            "`thread_id` or `conversation_id` of the configuration is the conversation. `metadata` names the owner:"
            " `stagelight_feature`, `stagelight_variant`, `stagelight_tenant`, `stagelight_route`,"
            " `stagelight_user_id`, `stagelight_session_id`, `stagelight_conversation_id`; what the turn around knows"
            ' already, wins. For example `graph.invoke(state, {"configurable": {"thread_id": "c-42"}, "metadata":'
            ' {"stagelight_tenant": "acme"}})`.',
            "Attempts of `with_retry` and models of `with_fallbacks` are a call each. An answer out of a cache is no"
            " call.",
            "An interrupt of LangGraph is no error: the tool that raised it is `cancelled`, the turn `completed`; what"
            " runs after the answer is another turn of the same conversation.",
        ),
        not_recorded=(
            "Inputs, outputs, prompts, documents, arguments of tools, and other metadata.",
            "Nodes, nested chains and graphs, prompts and parsers, which are no stages.",
            "Embeddings, which have no callbacks: their clients record them.",
            "The owner in the `metadata` of a model, retriever or tool that is called alone, outside of any chain or"
            " graph: call it inside `stagelight.turn(tenant=...)`.",
            "The usage of a streamed call, unless the model is told to ask for it (`stream_usage=True` of"
            " `ChatOpenAI`).",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        functions = (Target(*place, around(begin), named(around_async(begin))) for place, begin in _FUNCTIONS.items())
        streams = ((_CHAT, "BaseChatModel"), (_TEXT, "BaseLLM"))
        return (
            *functions,
            *(Target(module, f"{kind}.stream", pulled(_stream, ends_run=True)) for module, kind in streams),
            *(Target(module, f"{kind}.astream", pulled_async(_stream, ends_run=True)) for module, kind in streams),
            Target(_CHAT, "BaseChatModel._iter_v2_events", pulled(_events, ends_run=False)),
            Target(_CHAT, "BaseChatModel._aiter_v2_events", pulled_async(_events, ends_run=False)),
        )

    def _instrument(self, **more: Any) -> None:
        import wrapt

        super()._instrument(**more)
        if _HOOKS not in self._hooked:
            self._hooked.add(_HOOKS)
            wrapt.register_post_import_hook(self._join_runs, _HOOKS)

    def _join_runs(self, hooks: ModuleType) -> None:
        hooks.register_configure_hook(_Joining(lambda: self._switched_on), inheritable=True)
