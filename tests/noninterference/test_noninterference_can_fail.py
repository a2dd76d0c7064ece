"""The suite finds interference: wrappers that do what they must not are each seen by the comparison."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from importlib import import_module
from typing import Any, NamedTuple

import pytest
from noninterference.growing import Growth, Load, grown
from noninterference.playing import Notes, Run, answered, differences, item_of, iterated, play, played
from noninterference.uses import Options, Use
from noninterference.uses_openai import CLIENT

Wrapping = Callable[[Callable[..., Any]], Callable[..., Any]]

CREATE = "openai.resources.chat.completions:Completions.create"
CREATE_ASYNC = "openai.resources.chat.completions:AsyncCompletions.create"
CHUNKS = "openai:Stream.__stream__"
MANAGER = "openai.lib.streaming.chat:ChatCompletionStreamManager.__init__"


class InterferenceError(Exception):
    """In place of the client's own."""


class _Answer:
    """Looks like an answer."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __repr__(self) -> str:
        return repr(self._answer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)


def _with_words(**words: Any) -> Wrapping:
    return lambda wrapped: lambda *args, **kwargs: wrapped(*args, **{**kwargs, **words})


def _of_answer(change: Callable[[Any], Any]) -> Wrapping:
    return lambda wrapped: lambda *args, **kwargs: change(wrapped(*args, **kwargs))


def _of_chunks(change: Callable[[Iterator[Any]], Any]) -> Wrapping:
    def around(wrapped: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(wrapped)
        def chunks(stream: Any) -> Iterator[Any]:
            yield from change(wrapped(stream))

        return chunks

    return around


def _without_second(chunks: Iterator[Any]) -> Iterator[Any]:
    for at, chunk in enumerate(chunks):
        if at != 1:
            yield chunk


def _swapped(chunks: Iterator[Any]) -> Iterator[Any]:
    first, second, *others = chunks
    return iter([second, first, *others])


def _replaced(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    def create(*args: Any, **kwargs: Any) -> Any:
        try:
            return wrapped(*args, **kwargs)
        except Exception as error:
            raise InterferenceError from error

    return create


def _with_cause(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    def create(*args: Any, **kwargs: Any) -> Any:
        try:
            return wrapped(*args, **kwargs)
        except Exception as error:
            error.__cause__ = InterferenceError()
            raise

    return create


def _asked_twice(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: (wrapped(*args, **kwargs), wrapped(*args, **kwargs))[1]


def _eager(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    name = "_ChatCompletionStreamManager__api_request"

    def made(manager: Any, *args: Any, **kwargs: Any) -> None:
        wrapped(manager, *args, **kwargs)
        answer = getattr(manager, name)()
        setattr(manager, name, lambda: answer)

    return made


class Interference(NamedTuple):
    """A wrapper around one function of the client, and the use in which it is to be seen."""

    place: str
    around: Wrapping
    found: str
    """Part of what is reported."""
    use: str = ""
    covers: str = "chat.completions.create"


INTERFERENCES = {
    "header added": Interference(CREATE, _with_words(extra_headers={"x-observed": "yes"}), "x-observed"),
    "body changed": Interference(CREATE, _with_words(seed=7), '"seed":7'),
    "usage asked for": Interference(
        CREATE, _with_words(stream_options={"include_usage": True}), "include_usage", "streamed"
    ),
    "asked twice": Interference(CREATE, _asked_twice, "sent 1"),
    "type changed": Interference(CREATE, _of_answer(_Answer), "_Answer"),
    "attribute added": Interference(CREATE, _of_answer(lambda one: one.model_copy(update={"seen": 1})), "seen=1"),
    "answer lost": Interference(CREATE, _of_answer(lambda _: None), "NoneType"),
    "chunk swallowed": Interference(CHUNKS, _of_chunks(_without_second), "nothing", "streamed"),
    "chunks swapped": Interference(CHUNKS, _of_chunks(_swapped), "seen 2", "streamed"),
    "exception replaced": Interference(CREATE, _replaced, "InterferenceError", "refused"),
    "cause added": Interference(CREATE, _with_cause, "InterferenceError", "refused"),
    "eager request": Interference(MANAGER, _eager, "seen 0", covers="chat.completions.stream"),
}
HARMLESS = {
    "call": Interference(CREATE, _of_answer(lambda one: one), ""),
    "stream": Interference(CHUNKS, _of_chunks(iter), "", "streamed"),
}
HERE = CLIENT.is_installed


def _patched(patch: pytest.MonkeyPatch, place: str, around: Wrapping) -> None:
    module, _, path = place.partition(":")
    kind, _, name = path.partition(".")
    owner = getattr(import_module(module), kind)
    patch.setattr(owner, name, around(getattr(owner, name)))


def _use(covers: str, name: str) -> Use:
    return next(use for use in CLIENT.uses if (use.covers, use.name) == (covers, name))


def _found(interference: Interference, serve: Any, act: Any = play, patience_s: float = 60.0) -> list[str]:
    server, use = serve(CLIENT), _use(interference.covers, interference.use)

    def run(timeout_s: float = 60.0) -> Run:
        return played(
            CLIENT, server, Options("sync", timeout_s=timeout_s), lambda opened, notes: act(use, opened, notes)
        )

    alone = run()
    with pytest.MonkeyPatch.context() as patch:
        _patched(patch, interference.place, interference.around)
        return differences(alone, run(patience_s))


@pytest.mark.parametrize("name", INTERFERENCES if HERE else ())
def test_interference_is_found(name: str, serve: Any) -> None:
    """Whatever a wrapper changes for the caller or the server is reported."""
    found = _found(INTERFERENCES[name], serve)

    assert INTERFERENCES[name].found in " ".join(found)


@pytest.mark.parametrize("name", HARMLESS if HERE else ())
def test_a_wrapper_that_does_nothing_is_no_interference(name: str, serve: Any) -> None:
    """What is found is found because of what the others do."""
    assert _found(HARMLESS[name], serve) == []


async def _first(use: Use, opened: Any, notes: Notes, hold: Callable[[str, int], Any]) -> None:
    assert use.items is not None
    with hold("chunk", 2):
        async with answered(use, opened, notes) as result:
            try:
                notes("first", await item_of(iterated(use.items(result))))
            except Exception as error:  # noqa: BLE001 - whatever the caller sees
                notes.raised(error)


@pytest.mark.parametrize(("change", "patience_s"), [(list, 1.0), (iter, 60.0)] if HERE else ())
def test_a_buffered_stream_is_found(change: Any, patience_s: float, serve: Any) -> None:
    """The first item does not come while the server withholds the second chunk."""
    hold = serve(CLIENT).simulator.hold
    buffered = Interference(CHUNKS, _of_chunks(change), "", "streamed")

    found = _found(buffered, serve, lambda *given: _first(*given, hold), patience_s)

    assert ("ReadTimeout" in " ".join(found)) is (change is list)


def _leaking(what: str, kept: list[Any]) -> Wrapping:
    def leak(over: threading.Event) -> Any:
        if what == "thread":
            thread = threading.Thread(target=over.wait, args=(60,))
            thread.start()
            return thread
        if what == "task":
            return asyncio.get_running_loop().create_task(asyncio.sleep(60))
        if what == "file":
            return os.open(os.devnull, os.O_RDONLY)
        return [[] for _ in range(20)]

    def around(wrapped: Callable[..., Any]) -> Callable[..., Any]:
        over = threading.Event()
        kept.append(over)

        def create(*args: Any, **kwargs: Any) -> Any:
            kept.append(leak(over))
            return wrapped(*args, **kwargs)

        return create

    return around


@pytest.mark.parametrize(
    ("what", "least"),
    [
        ("thread", Growth(15, 0, 0, 0)),
        ("task", Growth(0, 15, 0, 0)),
        ("file", Growth(0, 0, 15, 0)),
        ("object", Growth(0, 0, 0, 300)),
    ]
    if HERE
    else (),
)
def test_what_grows_is_found(what: str, least: Growth, serve: Any) -> None:
    """A thread, task, file or twenty objects that each call leaves are counted."""
    kept: list[Any] = []
    kind, place = ("async", CREATE_ASYNC) if what == "task" else ("sync", CREATE)
    with pytest.MonkeyPatch.context() as patch:
        _patched(patch, place, _leaking(what, kept))
        uses = [_use("chat.completions.create", "")]
        more, _ = grown(
            CLIENT, uses, Options(kind), serve(CLIENT), settle=lambda: None, load=Load(20, 20, patience_s=1)
        )
    over, *left = kept
    over.set()
    for one in left:
        if isinstance(one, threading.Thread):
            one.join(30)
        elif isinstance(one, int):
            os.close(one)

    assert not more.is_none
    assert all(one >= other for one, other in zip(more, least, strict=True) if other), more
