"""Plays uses and notes whatever their caller can see of them."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from inspect import isawaitable
from pathlib import Path
from typing import Any

import stagelight
from noninterference.servers import Server
from noninterference.uses import Client, Options, Use

__all__ = ["Notes", "Run", "answered", "call_only", "differences", "item_of", "iterated", "play", "played", "told"]

Run = tuple[list[Any], list[Any]]
"""What the caller saw, and what the server got."""

PATIENCE_S = 5.0
"""How long tasks that a client left may take to end, on a busy machine."""

_USERS = str(Path(__file__).parent)
_BESIDE = re.compile(
    re.escape(str(Path(stagelight.__file__).parent)) + r"|[\\/](?:wrapt|opentelemetry)[\\/]|contextlib\.py$"
)
"""Frames of ours, and of what a client that traces itself enters once there is a span."""

_PLACES = re.compile(r"0x[0-9a-f]+|\b7[0-9a-f]{11}\b|(?<=fd=)\d+|(?<=Task-)\d+|'127\.0\.0\.1', \d+")
"""Addresses of objects, numbers of files, tasks and sockets: they differ in any two runs."""


class Notes:
    """What was seen, and how much the server had got by then."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.seen: list[tuple[Any, ...]] = []

    def __call__(self, what: str, value: Any) -> None:
        """Note a result of the client's."""
        attributes = sorted(name for name in getattr(value, "__dict__", ()) if not name.startswith("_"))
        self.seen.append((what, self._server.count(), type(value), _text(value), attributes))

    def say(self, what: str, *more: Any) -> None:
        """Note anything else."""
        self.seen.append((what, self._server.count(), *more))

    def raised(self, error: BaseException) -> None:
        """Note what the client raised."""
        self.seen.append(("raised", self._server.count(), *told(error)))

    def complained(self, message: str) -> None:
        """Note what the event loop says of forgotten tasks; which left generators it mentions is chance."""
        if "asynchronous generator" not in message:
            self.say("loop", _PLACES.sub("", message))


def _text(value: Any) -> str:
    try:
        return _PLACES.sub("", repr(value))
    except Exception as error:  # noqa: BLE001 - a client's own, asyncpg's for one
        return f"no text: {error!r}"


def told(error: BaseException | None) -> tuple[Any, ...]:
    """An exception as far as it can be compared: frames of the user by line, of the client by function, and causes."""
    if error is None:
        return ()
    frames = [
        (frame.filename, frame.name, frame.lineno if frame.filename.startswith(_USERS) else None)
        for frame in traceback.extract_tb(error.__traceback__)
        if not _BESIDE.search(frame.filename)
    ]
    notes = getattr(error, "__notes__", [])
    chain = (told(error.__cause__), error.__suppress_context__, told(error.__context__))
    return type(error), _PLACES.sub("", str(error)), _text(error.args), notes, frames, chain


def iterated(stream: Any) -> Any:
    """The iterator of a stream of either kind."""
    return aiter(stream) if hasattr(stream, "__aiter__") else iter(stream)


async def item_of(items: Any) -> Any:
    """The next item; ``StopAsyncIteration`` after the last, because a coroutine cannot raise the other one."""
    if hasattr(items, "__anext__"):
        return await anext(items)
    try:
        return next(items)
    except StopIteration:
        raise StopAsyncIteration from None


@asynccontextmanager
async def answered(use: Use, client: Any, notes: Callable[[str, Any], None]) -> AsyncIterator[Any]:
    """Call, and enter the block of the result if it has one."""
    result = use.call(client)
    notes("made", result)
    if use.is_awaited and isawaitable(result):
        result = await result
        notes("got", result)
    if not use.is_block:
        yield result
    elif hasattr(result, "__aenter__"):
        async with result as entered:
            notes("entered", entered)
            yield entered
    else:
        with result as entered:
            notes("entered", entered)
            yield entered


async def play(use: Use, client: Any, notes: Notes) -> None:
    """Use the client to the end, as its documentation shows it."""
    try:
        async with answered(use, client, notes) as result:
            if use.items is not None:
                items = iterated(use.items(result))
                notes("items", items)
                while True:
                    try:
                        item = await item_of(items)
                    except StopAsyncIteration:
                        break
                    notes("item", item)
            notes.say("found", _text(use.seen(result)))
        notes("left", result)
    except Exception as error:  # noqa: BLE001 - whatever the caller sees
        notes.raised(error)


async def call_only(use: Use, client: Any) -> None:
    """Use the client to the end without looking at anything."""
    with suppress(Exception):
        async with answered(use, client, lambda *_: None) as result:
            if use.items is not None:
                items = iterated(use.items(result))
                with suppress(StopAsyncIteration):
                    while True:
                        await item_of(items)


def _warning(heard: warnings.WarningMessage) -> tuple[str, ...]:
    return heard.category.__name__, _PLACES.sub("", str(heard.message)), heard.filename


@contextmanager
def lived(notes: Notes) -> Iterator[None]:
    """Note what nobody could catch: warnings, with the file that they blame, and errors of destructors."""
    unheard: list[tuple[Any, ...]] = []

    def hear(event: Any) -> None:
        unheard.append((event.exc_type, _PLACES.sub("", str(event.exc_value))))

    gc.freeze()  # or each collection would look at the whole of every imported client
    before, sys.unraisablehook = sys.unraisablehook, hear
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = before
    # When each is collected is the interpreter's affair.
    notes.say("unheard", *sorted(map(repr, unheard)))
    # Whether a forgotten socket is closed before it is freed depends on where a collection opens their cycle.
    notes.say("warned", *sorted({_warning(one) for one in heard if one.category is not ResourceWarning}))


def played(client: Client, server: Server, options: Options, act: Callable[[Any, Notes], Any]) -> Run:
    """Let ``act`` use a new client of this kind; what its caller saw, and what the server got."""
    notes = Notes(server)

    async def acted() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: notes.complained(context["message"]))
        async with client.open(server, options) as opened:
            server.forget()
            before = asyncio.all_tasks()
            await act(opened, notes)
            left = asyncio.all_tasks() - before
            if left:  # those that close what was left may finish
                _, left = await asyncio.wait(left, timeout=PATIENCE_S)
            notes.say("tasks", len(left))

    with lived(notes):
        asyncio.run(acted())
    return notes.seen, server.sent()


def differences(alone: Run, with_us: Run) -> list[str]:
    """Where two runs differ, for reports."""
    found = []
    for where, ours, theirs in zip(("seen", "sent"), with_us, alone, strict=True):
        for at in range(max(len(ours), len(theirs))):
            one, other = (side[at] if at < len(side) else "nothing" for side in (ours, theirs))
            if one != other:
                found.append(f"{where} {at}: {one} with us, {other} alone")
    return found
