"""LangChain's caches of answers (``langchain-core``, 0.3.75 and later): hits and misses, whichever cache is set."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, Final

from opentelemetry import context as otel_context

from stagelight._guard import guard
from stagelight._lifecycle import Attachment
from stagelight._remarks import cache
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target

__all__ = ["LangChainCacheInstrumentor"]

_MODULE: Final = "langchain_core.caches"
_LOOKING: Final = otel_context.create_key("stagelight.integrations.cache")


def _note(instance: Any, found: Any) -> None:
    with guard("cache lookup"):
        cache(type(instance).__name__, hit=found is not None)


def _looking_up(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if otel_context.get_value(_LOOKING):  # a cache that asks itself or another one: one lookup for who asked
        return wrapped(*args, **kwargs)
    with Attachment(otel_context.set_value(_LOOKING, True)):
        found = wrapped(*args, **kwargs)
    _note(instance, found)
    return found


async def _looking_up_async(
    wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if otel_context.get_value(_LOOKING):
        return await wrapped(*args, **kwargs)
    with Attachment(otel_context.set_value(_LOOKING, True)):
        found = await wrapped(*args, **kwargs)
    _note(instance, found)
    return found


class LangChainCacheInstrumentor(Instrumentor):
    """Counts the lookups of every cache that is a ``BaseCache``, also of classes made later."""

    distribution = "langchain-core"
    supported = "langchain-core >= 0.3.75, < 2"
    package = "langchain_core.caches"  # none of its classes is an answer of a provider
    counts_requests = False
    coverage = Coverage(
        title="LangChain caches",
        calls={},
        ways="sync and async; any `BaseCache`, set for all models or for one",
        recorded=(
            "Each lookup is counted under the name of the cache's class, hits and misses apart, as `stagelight.cache`"
            " does. An answer out of a cache sends no request, so it costs nothing.",
        ),
        not_recorded=(
            "Caches that are no `BaseCache`: [count their lookups](#other-libraries-and-caches) where they are asked.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        return (Target(_MODULE, "BaseCache.alookup", _looking_up, _looking_up_async),)

    def _wrap_all(self, module: ModuleType) -> None:
        super()._wrap_all(module)
        if not self._switched_on:
            return
        base = module.BaseCache
        for kind in dict.fromkeys(_below(base)):
            self._wrap_class(kind)

        def made(kind: type, /, **keywords: Any) -> None:
            super(base, kind).__init_subclass__(**keywords)  # type: ignore[misc]  # the class is not known to mypy
            with guard("cache class"):
                if self._switched_on:
                    self._wrap_class(kind)

        base.__init_subclass__ = classmethod(made)  # Python calls it for the classes of other packages, too

    def _wrap_class(self, kind: type) -> None:
        holder = ModuleType(_MODULE)
        vars(holder)[kind.__name__] = kind
        for name in ("lookup", "alookup"):
            self._wrap(holder, Target(_MODULE, f"{kind.__name__}.{name}", _looking_up, _looking_up_async))

    def _uninstrument(self, **keywords: Any) -> None:
        super()._uninstrument(**keywords)
        module = sys.modules.get(_MODULE)
        if module is not None and "__init_subclass__" in vars(module.BaseCache):
            del module.BaseCache.__init_subclass__


def _below(base: Any) -> Iterator[type]:
    for kind in base.__subclasses__():
        yield kind
        yield from _below(kind)
