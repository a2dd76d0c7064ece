"""Watching the bodies and event streams of botocore in place: objects, order and time stay the client's affair.

The functions of one object are replaced on that object, never on its class, so no other service is touched. What is
put there holds the object by a weak reference: it goes when the caller lets go of it, as without us.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self
from weakref import ref

from stagelight.integrations._reading import code, part
from stagelight.integrations._watching import Watch

__all__ = ["is_body", "is_events", "watch_body", "watch_events"]

Function = Callable[..., Any]


def is_body(value: Any) -> bool:
    """Whether ``value`` is a body of botocore, or of aiobotocore 3."""
    return _is_named("StreamingBody", value)


def is_events(value: Any) -> bool:
    """Whether ``value`` is an event stream of botocore or aiobotocore."""
    return _is_named("EventStream", value)


def _is_named(name: str, value: Any) -> bool:
    return any(kind.__name__ == name and kind.__module__.startswith("botocore.") for kind in type(value).__mro__)


_STATE = frozenset({"_raw_stream", "_content_length", "_amount_read"})
"""All that a body or an event stream needs to go on."""


class _Holder:
    """Gives back a body, an event stream or a raw response without keeping it.

    ``client.invoke_model(...)["body"].read()`` lets go of the body between fetching the function and calling it; then
    there is another one in the same state to call.
    """

    def __init__(self, instance: Any, amount_read: Callable[[], int] = int) -> None:
        self._held = ref(instance)
        self._kind: Any = type(instance)
        state = {name: value for name, value in vars(instance).items() if name in _STATE}
        # What keeps more than that cannot be made again, so it is kept: its cycle is for the garbage collection.
        self._kept = instance if "_stream_iter" in vars(instance) else None
        self._state = state
        self._amount_read = amount_read

    def get(self) -> Any:
        found = self._held()
        if found is None:
            found = self._kind.__new__(self._kind)
            vars(found).update(self._state, _amount_read=self._amount_read())
        return found

    def method(self, name: str) -> Function:
        """The class's function, for the instance."""
        function = getattr(self._kind, name)
        if inspect.iscoroutinefunction(function):

            async def call_async(*args: Any, **kwargs: Any) -> Any:
                return await function(self.get(), *args, **kwargs)

            return call_async

        def call(*args: Any, **kwargs: Any) -> Any:
            return function(self.get(), *args, **kwargs)

        return call

    def replace(self, instance: Any, names: tuple[str, ...], make: Callable[[Function], Function]) -> None:
        """Put what ``make`` makes of functions of the class on the instance."""
        for name in names:
            if callable(getattr(self._kind, name, None)):
                setattr(instance, name, make(self.method(name)))


# bodies


class _Body:
    """What is known of one body. Functions that read call each other: only the outermost counts."""

    def __init__(self, watch: Watch, length: int | None) -> None:
        self._watch = watch
        self._length = length
        self._read = 0
        self._inside = False

    def amount_read(self) -> int:
        return self._read

    def reading(self, read: Function) -> Function:
        """Stands for ``read``, ``readinto`` and ``readlines``."""
        if inspect.iscoroutinefunction(read):

            async def reading_async(*args: Any, **kwargs: Any) -> Any:
                if self._inside:
                    return await read(*args, **kwargs)
                self._inside = True
                try:
                    result = await read(*args, **kwargs)
                except BaseException as error:
                    self._watch.broke(error)
                    raise
                finally:
                    self._inside = False
                self._took(result, args, kwargs)
                return result

            return reading_async

        def reading(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return read(*args, **kwargs)
            self._inside = True
            try:
                result = read(*args, **kwargs)
            except BaseException as error:
                self._watch.broke(error)
                raise
            finally:
                self._inside = False
            self._took(result, args, kwargs)
            return result

        return reading

    def pieces(self, read: Function) -> Function:
        """Stands for ``read_chunked`` of urllib3, a generator."""

        def pieces(*args: Any, **kwargs: Any) -> Any:
            try:
                for data in read(*args, **kwargs):
                    if not self._inside:
                        self._count(data)
                    yield data
            except GeneratorExit:
                raise
            except BaseException as error:
                if not self._inside:
                    self._watch.broke(error)
                raise
            if not self._inside:
                self._watch.completed()

        return pieces

    def closing(self, close: Function) -> Function:
        """Stands for ``close``."""
        if inspect.iscoroutinefunction(close):

            async def closing_async() -> Any:
                try:
                    return await close()
                finally:
                    self._watch.closed()

            return closing_async

        def closing() -> Any:
            try:
                return close()
            finally:
                if not self._inside:  # urllib3 closes a response by itself at its end
                    self._watch.closed()

        return closing

    def _took(self, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given: Any = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(result, int):  # readinto
            self._count(memoryview(given)[:result])
            is_end = not result and len(given) > 0
        elif isinstance(result, list):  # readlines
            self._count(b"".join(result))
            is_end = True
        else:
            self._count(result)
            asked = given if isinstance(given, int) else -1
            is_end = asked < 0 or (asked > 0 and not result)
        if is_end or (self._length is not None and self._read >= self._length):
            self._watch.completed()

    def _count(self, data: Any) -> None:
        if data:
            self._watch.took(bytes(data))
            self._read += len(data)

    def __del__(self) -> None:
        self._watch.forgotten()


_READS = ("read", "readinto", "readlines")
_CLOSES = ("close", "aclose")
_RAW_READS = ("read", "read1", "readinto")


def watch_body(body: Any, watch: Watch, length: int | None) -> None:
    """Watch the bytes of a body while the caller reads them, however that is done.

    Args:
        body: a ``StreamingBody`` of botocore or aiobotocore.
        watch: takes the bytes.
        length: how many there are, if the server said it: the call ends with the last one.
    """
    known = _Body(watch, length)
    holder = _Holder(body, known.amount_read)
    holder.replace(body, _READS, known.reading)
    holder.replace(body, _CLOSES, known.closing)
    raw = part(body, "_raw_stream")
    if hasattr(raw, "read_chunked") and hasattr(raw, "__dict__"):  # what ``with body as raw`` gives the caller
        of_raw = _Holder(raw)
        of_raw.replace(raw, _RAW_READS, known.reading)
        of_raw.replace(raw, ("read_chunked",), known.pieces)
        of_raw.replace(raw, ("close",), known.closing)


# event streams


class _Messages:
    """Stands where an event stream keeps the iterator of its raw messages: same messages, same exceptions."""

    def __init__(self, inner: Any, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._inner)
        except StopIteration:
            self._watch.completed()
            raise
        except BaseException as error:
            self._watch.broke(error)
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._inner)
        except StopAsyncIteration:
            self._watch.completed()
            raise
        except BaseException as error:
            self._watch.broke(error)
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __del__(self) -> None:
        self._watch.forgotten()


def watch_events(stream: Any, watch: Watch) -> None:
    """Watch the events of a stream where the client makes them of raw messages.

    Args:
        stream: an ``EventStream`` of botocore or aiobotocore.
        watch: takes the parsed events.
    """
    holder = _Holder(stream)
    parse, close = holder.method("_parse_event"), holder.method("close")

    def broke(error: BaseException) -> None:
        told = part(error, "response", "Error", "Code")
        if told is None:
            watch.broke(error)
        else:  # an error that came as a message: its code says more than the one class of all of them
            watch.chunks.failure = code(told, "failed")
            watch.completed()

    def parsing(message: Any) -> Any:
        try:
            event = parse(message)
        except BaseException as error:
            broke(error)
            raise
        if event:
            watch.took(event)
        return event

    async def parsing_async(message: Any) -> Any:
        try:
            event = await parse(message)
        except BaseException as error:
            broke(error)
            raise
        if event:
            watch.took(event)
        return event

    def closing() -> Any:
        try:
            return close()
        finally:
            watch.closed()

    stream._event_generator = _Messages(stream._event_generator, watch)  # noqa: SLF001 - where the stream keeps it
    stream._parse_event = parsing_async if inspect.iscoroutinefunction(parse) else parsing  # noqa: SLF001 - as above
    stream.close = closing
