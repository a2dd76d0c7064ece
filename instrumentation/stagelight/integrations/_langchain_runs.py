"""LangChain's callbacks: which run is a turn, and what a model's run says of its call.

A run of a chain or graph that begins outside every turn is a turn if a stage runs inside, like a request's own. Its
context is set where LangChain sets its own for what runs inside: in a copy that is thrown away afterwards, so nothing
stays attached whatever thread or task a callback runs in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Final, Generic, TypeVar

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from stagelight import _clock
from stagelight._guard import guard, strict
from stagelight._inbound import REQUEST_KEY, Inbound, current_inbound
from stagelight._lifecycle import SPAN_KEY, Attachment
from stagelight._remarks import owner_of
from stagelight._streaming import StreamEnd
from stagelight._turns import RequestTurn, Turn, current_turn
from stagelight.facts import Identity
from stagelight.integrations._langchain_models import ModelRun, current_run, request_of, response_of
from stagelight.integrations._reading import part, text

__all__ = ["Runs", "callback_handler", "is_control_flow"]

_MOST_RUNS: Final = 16_384
"""Runs that are known at once; beyond it the oldest is taken for one that never ends."""

_OWNER: Final = ("feature", "variant", "tenant", "route", "user_id", "session_id", "conversation_id")
_PREFIX: Final = "stagelight_"
"""``metadata={"stagelight_tenant": "acme"}`` is what ``turn(tenant="acme")`` is."""

Value = TypeVar("Value")


def is_control_flow(error: BaseException) -> bool:
    """Whether LangGraph raised it to leave a node on purpose: an interrupt, or a command for the graph above."""
    return any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__)


class ChainTurn(RequestTurn):
    """The turn that a chain or graph is; made by the first stage inside."""

    __slots__ = ()

    def over(self, error: BaseException | None) -> None:
        """The run has ended: so does the turn, but for streams that are still read."""
        self._block_used = True
        if isinstance(error, GeneratorExit):
            StreamEnd(self, ends_scope=True).abandoned_unseen()
        elif error is None or is_control_flow(error):
            self._until_s = max(self._until_s, _clock.seconds())
            self._end_when_done()
        else:
            self.fail(error)


class _ChainInbound(Inbound):
    """What a chain's stages find as the request that they work for."""

    def opened(self, make: Callable[[Inbound], Any]) -> Any:
        """The turn; the first stage makes it."""
        del make
        return super().opened(lambda inbound: ChainTurn(inbound).start())


class OutermostRun:
    """The outermost run of a chain or graph: a turn of its own, or a part of the one it runs in.

    Args:
        name: of the chain or graph.
    """

    __slots__ = ("_inbound", "_inside", "_is_known")

    def __init__(self, name: str) -> None:
        turn, inbound = current_turn(), current_inbound()
        self._inside: Turn | Inbound | None = turn or inbound
        self._inbound: Inbound | None = None
        self._is_known = False
        if turn is None and (inbound is None or inbound.name is None):
            request_id, owner = (None, Identity()) if inbound is None else (inbound.request_id, inbound.identity)
            self._inside = self._inbound = _ChainInbound(request_id, owner, name=lambda: (name, None))
            self._inbound.entry = otel_context.get_current()

    def context(self, config: Mapping[str, Any]) -> Context:
        """The context for what runs inside, with this configuration of LangChain's."""
        if not self._is_known:
            self._is_known = True
            self._know(_owner(config))
        own, now = self._inbound, otel_context.get_current()
        if own is None or current_inbound(now) is own:
            return now
        return otel_context.set_value(REQUEST_KEY, own, now if SPAN_KEY in now or own.entry is None else own.entry)

    def _know(self, owner: Identity) -> None:
        """For whom the run is, as far as the turn does not know it."""
        inside = self._inside
        if inside is not None:
            known = inside.identity._asdict()
            new = {name: value for name, value in owner._asdict().items() if value is not None and known[name] is None}
            inside.identity = inside.identity._replace(**new)

    def ended(self, error: BaseException | None = None) -> None:
        """The run is over."""
        turn = None if self._inbound is None else self._inbound.closed()
        if isinstance(turn, ChainTurn):
            turn.over(error)


def _owner(config: Mapping[str, Any]) -> Identity:
    metadata, given = config.get("metadata") or {}, config.get("configurable") or {}
    told = {name: metadata.get(f"{_PREFIX}{name}") for name in _OWNER}
    for key in ("conversation_id", "thread_id"):
        value = given.get(key, metadata.get(key))
        if told["conversation_id"] is None and value is not None:
            told["conversation_id"] = value if isinstance(value, str) else str(value)
    return owner_of("langchain metadata", **told)


class _Known(Generic[Value]):
    """Runs by id; at most ``_MOST_RUNS``.

    Args:
        drop: what is done with the oldest when there are too many.
    """

    def __init__(self, drop: Callable[[Value], None]) -> None:
        self._drop = drop
        self._runs: OrderedDict[Any, Value] = OrderedDict()
        self._lock = threading.RLock()  # a garbage collection may end a run in the middle of anything

    def get(self, run_id: Any) -> Value | None:
        return self._runs.get(run_id)

    def put(self, run_id: Any, run: Value) -> None:
        with self._lock:
            self._runs[run_id] = run
            oldest = self._runs.popitem(last=False)[1] if len(self._runs) > _MOST_RUNS else None
        if oldest is not None:
            self._drop(oldest)

    def take(self, run_id: Any) -> Value | None:
        with self._lock:
            return self._runs.pop(run_id, None)

    def __len__(self) -> int:
        return len(self._runs)


class Runs:
    """The callbacks; LangChain's own base class comes below this one (see ``handler``)."""

    run_inline = True  # in the caller's thread and context, never in an executor
    ignore_agent = True  # tools and retrievers are functions, and recorded as such
    ignore_retriever = True
    ignore_retry = True
    ignore_custom_event = True

    def __init__(self) -> None:
        self._chains: _Known[tuple[OutermostRun, bool]] = _Known(_drop_chain)
        self._models: _Known[ModelRun] = _Known(ModelRun.left)

    @property
    def raise_error(self) -> bool:
        """Whether an error of ours goes on to the application."""
        return strict()

    def __reduce__(self) -> Any:
        return callback_handler, ()

    @property
    def unfinished(self) -> int:
        """Runs that have not ended."""
        return len(self._chains) + len(self._models)

    def context(self, config: Any) -> Context:
        """The context for what runs with a configuration; the current one where it names no chain."""
        return self._context(part(config, "callbacks", "parent_run_id"), config)

    def _context(self, parent_run_id: Any, config: Mapping[str, Any]) -> Context:
        known = self._chains.get(parent_run_id)
        return otel_context.get_current() if known is None else known[0].context(config)

    def model_of(self, manager: Any) -> ModelRun | None:
        """The run of a model that a manager of LangChain's belongs to."""
        return self._models.get(part(manager, "run_id"))

    # chains and graphs

    def on_chain_start(
        self, _serialized: Any, _inputs: Any, *, run_id: Any, parent_run_id: Any = None, **more: Any
    ) -> None:
        """A chain, graph, node or function begins."""
        with guard("langchain callback"):
            known = self._chains.get(parent_run_id)
            if known is not None:
                self._chains.put(run_id, (known[0], False))
            else:
                self._chains.put(run_id, (OutermostRun(text(more.get("name")) or "chain"), True))

    def on_chain_end(self, _outputs: Any, *, run_id: Any, **_: Any) -> None:
        """It is over."""
        self._chain_ended(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:
        """It raised, or was left."""
        self._chain_ended(run_id, error)

    def _chain_ended(self, run_id: Any, error: BaseException | None) -> None:
        with guard("langchain callback"):
            known = self._chains.take(run_id)
            if known is not None and known[1]:
                known[0].ended(error)

    # models

    def on_chat_model_start(self, _serialized: Any, _messages: Any, *, run_id: Any, **more: Any) -> None:
        """A chat model begins."""
        self._model_began(run_id, more, None)

    def on_llm_start(self, _serialized: Any, _prompts: Any, *, run_id: Any, **more: Any) -> None:
        """A model that completes text begins."""
        self._model_began(run_id, more, "text_completion")

    def _model_began(self, run_id: Any, more: Mapping[str, Any], operation: str | None) -> None:
        with guard("langchain callback"):
            run = current_run()
            if run is None or run.is_begun:
                # Batches pass configurations on without setting any context.
                with Attachment(self._context(more.get("parent_run_id"), more)):
                    run = ModelRun().start()
            run.asked(request_of(more.get("metadata"), more.get("invocation_params"), operation))
            run.forget = partial(self._models.take, run_id)
            self._models.put(run_id, run)

    def on_llm_new_token(self, token: Any, *, run_id: Any, **_: Any) -> None:
        """A chunk of either kind of model."""
        with guard("langchain callback"):
            run = self._models.get(run_id)
            if run is not None:
                run.said(bool(token))

    def on_stream_event(self, event: Any, *, run_id: Any, **_: Any) -> None:
        """A chunk, by LangChain's newer protocol."""
        with guard("langchain callback"):
            run = self._models.get(run_id)
            if run is not None and part(event, "event") == "content-block-delta":
                run.said(True)

    def on_llm_end(self, response: Any, *, run_id: Any, **_: Any) -> None:
        """The answer is there."""
        with guard("langchain callback"):
            run = self._models.take(run_id)
            if run is not None:
                run.ended(response_of(response))

    def on_llm_error(self, error: BaseException, *, run_id: Any, response: Any = None, **_: Any) -> None:
        """There is no answer, or not all of it."""
        with guard("langchain callback"):
            run = self._models.take(run_id)
            if run is not None:
                run.failed(error, response_of(response))


def _drop_chain(known: tuple[OutermostRun, bool]) -> None:
    if known[1]:
        known[0].ended(GeneratorExit())


@cache
def callback_handler() -> Any:
    """The one handler of this process."""
    from langchain_core.callbacks.base import BaseCallbackHandler

    return type("StagelightCallbackHandler", (Runs, BaseCallbackHandler), {})()
