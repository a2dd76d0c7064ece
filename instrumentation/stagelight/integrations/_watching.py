"""Watching a client's own stream objects in place: what the caller gets, and when, stays the client's affair."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, Self
from weakref import ref

from stagelight._guard import guard
from stagelight.facts import Outcome, Response, Usage
from stagelight.integrations._audio import Length
from stagelight.integrations._engine import Observed

__all__ = ["AudioBytes", "Body", "Chunks", "Items", "JsonBytes", "UnreadBytes", "Watch", "watch_body"]

_MOST_JSON_BYTES = 8_388_608
"""An answer in one piece that is longer is not read for its usage."""


class Chunks(Protocol):
    """Takes the chunks of one stream and says what they told; keeps none of them."""

    streamed: ClassVar[bool]
    """Whether chunks are worth counting and timing."""
    finished: bool
    """Whether the provider has said that nothing more comes."""
    failure: str | None
    """The value of ``error.type`` when the provider said inside the stream that it failed."""

    def take(self, chunk: Any) -> bool:
        """Take one chunk; whether it has text or audio."""

    def response(self) -> Response | None:
        """What the chunks told so far."""


class _Bytes:
    streamed: ClassVar[bool] = True
    finished = False
    failure: str | None = None


class UnreadBytes(_Bytes):
    """Bytes whose meaning is the caller's to find: they are counted and timed only."""

    def take(self, chunk: Any) -> bool:
        return bool(chunk)

    def response(self) -> Response | None:
        return None


class AudioBytes(_Bytes):
    """Audio: its bytes are counted while they pass, and its duration where ``length`` can tell it."""

    def __init__(self, length: Length | None = None) -> None:
        self._length = length
        self._bytes = 0

    def take(self, chunk: Any) -> bool:
        self._bytes += len(chunk)
        if self._length is not None:
            self._length.feed(chunk)
        return bool(chunk)

    def response(self) -> Response | None:
        seconds = self._length.seconds if self._length is not None else None
        return Response(
            usage=None if seconds is None else Usage(audio_seconds=seconds), audio_bytes=self._bytes or None
        )


class JsonBytes(_Bytes):
    """An answer in one piece that the caller reads as bytes; a longer one than ``most_bytes`` is not read."""

    streamed: ClassVar[bool] = False

    def __init__(
        self, encoding: str | None, read: Callable[[Any], Response | None], most_bytes: int = _MOST_JSON_BYTES
    ) -> None:
        self._encoding = encoding
        self._read = read
        self._most_bytes = most_bytes
        self._kept = bytearray()

    def take(self, chunk: Any) -> bool:
        if len(self._kept) <= self._most_bytes:
            self._kept += chunk[: self._most_bytes + 1 - len(self._kept)]
        return False

    def response(self) -> Response | None:
        if not self._kept or len(self._kept) > self._most_bytes:
            return None
        try:
            told = json.loads(self._decoded())
        except (ValueError, zlib.error):  # cut, or compressed in a way the standard library does not know
            return None
        return self._read(told)

    def _decoded(self) -> bytes:
        if self._encoding in {None, "", "identity"}:
            return bytes(self._kept)
        # 47: zlib tells gzip from deflate by itself.
        return zlib.decompressobj(47).decompress(bytes(self._kept), self._most_bytes)


class Watch:
    """What one stream tells while it passes, and its one end."""

    __slots__ = ("_end", "_observed", "chunks")

    def __init__(self, observed: Observed, chunks: Chunks) -> None:
        self._observed = observed
        self._end = observed.stream_end()
        self.chunks = chunks

    def took(self, chunk: Any) -> None:
        """A chunk went to the caller."""
        with guard("integration chunk"):
            if self._end.open:
                if self.chunks.streamed:
                    self._observed.call.tick()
                if self.chunks.take(chunk):
                    self._observed.call.content()
                if self._observed.call.is_foreign and self.chunks.finished:
                    self._observed.absorb(self.chunks.response())
                    self._observed.call.last_item()

    def completed(self) -> None:
        """The stream came to its end."""
        if self._learn():
            failure = self.chunks.failure
            self._end.with_outcome("completed" if failure is None else "provider_aborted", failure)

    def broke(self, error: BaseException, otherwise: Outcome = "provider_aborted") -> None:
        """The stream raised ``error``; the outcome is ``otherwise`` unless it is a timeout or a cancellation."""
        if self._learn():
            self._end.with_error(error, otherwise)

    def closed(self) -> None:
        """The caller closed the stream."""
        if self.chunks.finished:
            self.completed()
        elif self._learn():
            self._end.with_outcome("client_abandoned")

    def forgotten(self) -> None:
        """Nobody holds the stream any more; safe inside a garbage collection."""
        if self._learn():
            self._end.abandoned_unseen("completed" if self.chunks.finished else "client_abandoned")

    def _learn(self) -> bool:
        if not self._end.open:
            return False
        with guard("integration response"):
            self._observed.absorb(self.chunks.response())
        return True


class Items:
    """Stands where a client's stream keeps its own iterator: same items, same exceptions.

    Args:
        inner: the client's iterator; ``None`` where the client makes it when the first item is asked for.
        watch: takes the items.
        make: makes the iterator then.
    """

    __slots__ = ("__weakref__", "_inner", "_make", "_pulling", "_watch")

    def __init__(self, inner: Any, watch: Watch, make: Callable[[], Any] | None = None) -> None:
        self._inner = inner
        self._make = make
        self._watch = watch
        self._pulling = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        self._pulling = True
        try:
            item = next(self._inner if self._inner is not None else self._made())
        except StopIteration:
            self._watch.completed()
            raise
        except BaseException as error:
            self._watch.broke(error)
            raise
        finally:
            self._pulling = False
        self._watch.took(item)
        return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        self._pulling = True
        try:
            item = await anext(self._inner if self._inner is not None else self._made())
        except StopAsyncIteration:
            self._watch.completed()
            raise
        except BaseException as error:
            self._watch.broke(error)
            raise
        finally:
            self._pulling = False
        self._watch.took(item)
        return item

    def _made(self) -> Any:
        if self._make is not None:
            self._inner = self._make()
        return self._inner

    def closed(self) -> None:
        """The response was closed: by the iterator itself at its end, or by the caller before it."""
        if self._pulling:
            return
        if getattr(self._inner, "gi_running", False):  # only a collection makes it run when nobody pulls
            self._watch.forgotten()
        else:
            self._watch.closed()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Body:
    """Stands where an HTTP response keeps its byte stream; sees every way of reading and closing it.

    When the client makes items of the bytes (``items_of``), those are watched in their place.
    """

    def __init__(self, stream: Any, watch: Watch, chunks: Callable[[], Chunks]) -> None:
        self._stream = stream
        self._watch = watch
        self._chunks = chunks
        self._iterator: Any = None
        # Weak: what makes the items may hold the response, and a dropped stream is to be closed at once.
        self._items: ref[Items] | None = None

    def items_of(self, inner: Any, make: Callable[[], Any] | None = None) -> Items:
        """Watch the items that ``inner``, or what ``make`` makes of it later, makes of the bytes."""
        self._watch.chunks = self._chunks()
        items = Items(inner, self._watch, make)
        self._items = ref(items)
        return items

    @property
    def watch(self) -> Watch:
        """What is known of the stream."""
        return self._watch

    def __iter__(self) -> Self:
        self._iterator = iter(self._stream)
        return self

    def __next__(self) -> bytes:
        try:
            data: bytes = next(self._iterator)
        except StopIteration:
            if self._items is None:
                self._watch.completed()
            raise
        except BaseException as error:
            self._broke(error)
            raise
        if self._items is None:
            self._watch.took(data)
        return data

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._closed()

    def __aiter__(self) -> Self:
        self._iterator = aiter(self._stream)
        return self

    async def __anext__(self) -> bytes:
        try:
            data: bytes = await anext(self._iterator)
        except StopAsyncIteration:
            if self._items is None:
                self._watch.completed()
            raise
        except BaseException as error:
            self._broke(error)
            raise
        if self._items is None:
            self._watch.took(data)
        return data

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._closed()

    def _broke(self, error: BaseException) -> None:
        if self._items is None:  # the items' iterator raises the client's own error, which says more
            self._watch.broke(error)

    def _closed(self) -> None:
        items = None if self._items is None else self._items()
        if items is not None:
            items.closed()
        elif self._items is None:
            self._watch.closed()
        else:
            self._watch.forgotten()

    def __getattr__(self, name: str) -> Any:
        if name == "_stream":  # not initialised
            raise AttributeError(name)
        return getattr(self._stream, name)  # httpx2 keeps `elapsed` here

    def __del__(self) -> None:
        self._watch.forgotten()


_classes: dict[tuple[type, ...], type[Body]] = {}
_BASES = frozenset({"SyncByteStream", "AsyncByteStream"})


def watch_body(response: Any, watch: Watch, chunks: Callable[[], Chunks]) -> Body:
    """Watch the unread body of an HTTP response (``httpx``, or a library of its shape) in place.

    Args:
        response: the response.
        watch: takes its bytes.
        chunks: makes what takes the items, should the client make items of the bytes.
    """
    stream = response.stream
    # The response checks that its stream is one of its own library's.
    bases = tuple(kind for kind in type(stream).__mro__ if kind.__name__ in _BASES)
    if bases not in _classes:
        _classes[bases] = type("WatchedStream", (Body, *bases), {})
    body = _classes[bases](stream, watch, chunks)
    response.stream = body
    return body
