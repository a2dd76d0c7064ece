"""LangChain's caches: every lookup is one, whichever class the cache has and whichever way it asks itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.outputs import Generation
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.integrations.langchain_cache import LangChainCacheInstrumentor
from stagelight.testing import Captured, capture


@pytest.fixture
def counted() -> Iterator[LangChainCacheInstrumentor]:
    """Lookups are counted."""
    instrumentor = LangChainCacheInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    instrumentor.uninstrument()
    set_llm_cache(None)


def lookups(captured: Captured) -> dict[tuple[str, str], float]:
    """Lookups by cache and result."""
    return {
        (point.attributes[a.STAGELIGHT_CACHE_NAME], point.attributes[a.STAGELIGHT_CACHE_RESULT]): point.value
        for point in captured.metric(m.STAGELIGHT_CACHE_LOOKUPS)
    }


class OnlySync(BaseCache):
    """A cache without async methods of its own: they run the others in a thread."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Any] = {}

    def lookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
        return self._kept.get((prompt, llm_string))

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        self._kept[prompt, llm_string] = return_val

    def clear(self, **kwargs: Any) -> None:
        self._kept.clear()


def ask(model: Any, question: str, *, is_async: bool) -> None:
    """Ask a model."""
    if is_async:
        asyncio.run(model.ainvoke(question))
    else:
        model.invoke(question)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("model", [FakeListChatModel, FakeListLLM])
@pytest.mark.parametrize("kind", [InMemoryCache, OnlySync])
def test_hits_and_misses(
    counted: LangChainCacheInstrumentor, kind: type[BaseCache], model: Any, is_async: bool
) -> None:
    """A cache that is set for all models counts one lookup a call."""
    set_llm_cache(kind())
    with capture() as captured:
        for question in ("What do tides do?", "And the moon?", "What do tides do?"):
            ask(model(responses=["They come and go."]), question, is_async=is_async)

    assert lookups(captured) == {(kind.__name__, "miss"): 2, (kind.__name__, "hit"): 1}


def test_a_cache_of_one_model_made_later(counted: LangChainCacheInstrumentor) -> None:
    """A class that is made while the integration is on counts as well, also one that asks another cache."""

    class Layered(OnlySync):
        """Asks another cache first."""

        def __init__(self) -> None:
            super().__init__()
            self.first = InMemoryCache()

        def lookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
            return self.first.lookup(prompt, llm_string) or super().lookup(prompt, llm_string)

    model = FakeListChatModel(responses=["Yes."], cache=Layered())
    with capture() as captured:
        ask(model, "Is it?", is_async=False)
        ask(model, "Is it?", is_async=False)

    assert lookups(captured) == {("Layered", "miss"): 1, ("Layered", "hit"): 1}


def test_a_cache_that_fails_and_one_of_ours_that_fails(
    counted: LangChainCacheInstrumentor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the cache reaches the caller and is no lookup; an error of ours does not."""

    class Broken(OnlySync):
        """Has lost its server."""

        def lookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
            raise ConnectionError("gone")

    with capture() as captured, pytest.raises(ConnectionError, match="gone"):
        Broken().lookup("a", "b")
    assert lookups(captured) == {}

    def broken(*_: Any, **__: Any) -> None:
        raise LookupError("ours")

    monkeypatch.setattr("stagelight.integrations.langchain_cache.cache", broken)
    _guard.set_strict(False)
    try:
        assert OnlySync().lookup("a", "b") is None
    finally:
        _guard.set_strict(True)


def test_switched_off_everything_is_as_before() -> None:
    """The classes have their very own functions again, and new ones are left alone."""
    kinds = (BaseCache, InMemoryCache, OnlySync)
    names = ("lookup", "alookup", "__init_subclass__")
    before = [[vars(kind).get(name) for name in names] for kind in kinds]
    instrumentor = LangChainCacheInstrumentor()
    for _ in range(2):
        instrumentor.switch_on()
        assert vars(InMemoryCache)["lookup"] is not before[1][0]
        instrumentor.uninstrument()
        assert [[vars(kind).get(name) for name in names] for kind in kinds] == before

    class Later(OnlySync):
        """Made afterwards."""

        def lookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
            return None

    with capture() as captured:
        Later().lookup("a", "b")
    assert lookups(captured) == {}
