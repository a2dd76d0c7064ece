"""A relay before a PostgreSQL that keeps what clients send, message by message."""

from __future__ import annotations

import asyncio
import re
import threading
from types import TracebackType
from typing import Any, Self

__all__ = ["Relay"]

_STARTED = frozenset({196608, 196610})
"""Versions 3.0 and 3.2 of the protocol: after one of them every message has a type."""
_CANCEL = 80877102
_GOODBYE = b"X"
"""Clients do not wait for an answer to it, so it may come in after all is compared."""
_NUMBERED = re.compile(rb"(?<=__asyncpg_stmt_)[0-9a-f]+|(?<=__asyncpg_portal_)[0-9a-f]+|(?<=c_)[0-9a-f]+_[0-9a-f]+")
"""Names that clients number through their process, or draw."""


class _Messages:
    """What one connection sends."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.is_open = True
        self._rest = b""
        self._has_types = False

    def feed(self, data: bytes) -> None:
        self._rest += data
        while True:
            at = 1 if self._has_types else 0
            if len(self._rest) < at + 4:
                return
            ends = at + int.from_bytes(self._rest[at : at + 4])
            if len(self._rest) < ends:
                return
            message, self._rest = self._rest[:ends], self._rest[ends:]
            content = message[at + 4 :]
            if not self._has_types:
                code = int.from_bytes(content[:4])
                self._has_types = code in _STARTED
                content = content[:4] if code == _CANCEL else content  # process and secret are the server's
            if message[:at] != _GOODBYE:
                # Without the length, which differs with the names.
                self.seen.append(message[:at] + _NUMBERED.sub(b"", content))


class Relay:
    """Listens on a free port of loopback and passes everything on."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._connections: list[_Messages] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def forget(self) -> None:
        """Forget what was sent."""
        with self._lock:
            self._connections = [one for one in self._connections if one.is_open]
            for connection in self._connections:
                connection.seen.clear()

    def messages(self) -> list[list[bytes]]:
        """What each connection has sent, in the order in which they were opened; those that sent nothing left out."""
        with self._lock:
            return [list(one.seen) for one in self._connections if one.seen]

    async def _listen(self) -> Any:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return self._server

    async def _end(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(*self._to)
        messages = _Messages()
        self._writers |= {writer, back_writer}
        with self._lock:
            self._connections.append(messages)

        def note(data: bytes) -> None:
            with self._lock:
                messages.feed(data)

        try:
            await asyncio.gather(_pump(reader, back_writer, note), _pump(back_reader, writer, lambda _: None))
        finally:
            messages.is_open = False
            self._writers -= {writer, back_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Any) -> None:
    try:
        while data := await reader.read(65_536):
            note(data)
            writer.write(data)
            await writer.drain()
    except OSError:  # one side has gone
        pass
    finally:
        writer.close()
