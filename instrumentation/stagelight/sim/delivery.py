"""Sends a reply at the pace of a model, through gates, with the faults that happen on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any

from starlette.types import Receive, Scope, Send

from stagelight.sim.faults import Fault, Faults
from stagelight.sim.holds import Holds
from stagelight.sim.models import Latency
from stagelight.sim.wire import Chunk, Reply

__all__ = ["Delivery", "Hanging", "Pace", "Running"]


class Running:
    """The responses that are being sent; all can be broken off at once."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[None]] = set()

    async def until_left(self, receive: Receive, work: Coroutine[Any, Any, None]) -> None:
        """Do the work until it is done, the client has gone or all is broken off."""
        sending = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(_left(receive))
        self._tasks.add(sending)
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._tasks.discard(sending)
            sending.cancel()
            leaving.cancel()
            results = await asyncio.gather(sending, leaving, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def break_off(self) -> None:
        """End all responses where they are; their connections are closed. To be called in the event loop."""
        for task in self._tasks:
            task.cancel()


class Pace:
    """When each chunk of a reply is ready, in seconds after the request came in."""

    def __init__(self, latency: Latency, random: Random, *, speed: float, delay_s: float) -> None:
        self._latency = latency
        self._random = random
        self._speed = speed
        self._waited_first = False
        self._delay_s = delay_s
        self._due_s = 0.0

    def due_s(self, chunk: Chunk) -> float:
        """Return when this chunk is ready; to be asked once per chunk, in their order."""
        if not chunk.early and not self._waited_first:
            self._waited_first = True
            self._due_s += (self._jittered(self._latency.first_s) + self._delay_s) / self._speed
        self._due_s += self._jittered(chunk.work / self._latency.rate) / self._speed
        return self._due_s

    def _jittered(self, seconds: float) -> float:
        spread = self._latency.jitter
        return seconds * self._random.uniform(1 - spread, 1 + spread)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An ASGI response."""

    reply: Reply
    faults: Faults
    pace: Pace
    holds: Holds
    running: Running
    received_s: float
    """Time of the event loop at which the request came in."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.running.until_left(receive, self._send(str(scope["path"]), send))

    async def _send(self, path: str, send: Send) -> None:
        await self.holds.passed("response", 1, path)
        cut = self._fault_at("stream_cut")
        broken = self._fault_at("malformed_chunk")
        failing = self._fault_at("stream_error")
        begun = False
        for number, chunk in enumerate(self.reply.chunks, start=1):
            await self._wait(self.pace.due_s(chunk))
            data = chunk.data
            if not begun:
                begun = True
                await send(self._start(len(data)))
            await self.holds.passed("chunk", number, path)
            if number == cut:
                # Part of a plain answer is sent before the end, so that the caller sees it break in the middle.
                await send(_body(b"" if self.reply.streamed else data[: len(data) // 2], more=True))
                return  # without the last message of the body: the server closes the connection
            if number == failing:
                make_error = self.reply.error_event
                await send(_body(make_error(number) if make_error else b"", more=make_error is None))
                return
            if number == broken:
                data = _half(data)
            await send(_body(data, more=True))
        await send(_body(b"", more=False))

    def _fault_at(self, kind: str) -> int | None:
        fault = self.faults.get(kind)
        if fault is None:
            return None
        # A plain answer has one chunk, and it is this one that goes wrong.
        return int(fault["after"]) + 1 if self.reply.streamed else 1

    async def _wait(self, due_s: float) -> None:
        remaining = self.received_s + due_s - asyncio.get_running_loop().time()
        if remaining > 0:
            await asyncio.sleep(remaining)

    def _start(self, length: int) -> dict[str, object]:
        headers = {"content-type": self.reply.content_type, **self.reply.headers}
        if not self.reply.streamed:
            broken = self.faults.get("malformed_chunk") is not None
            headers["content-length"] = str(length // 2 if broken else length)
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        return {"type": "http.response.start", "status": 200, "headers": encoded}


@dataclass(frozen=True, slots=True)
class Hanging:
    """An ASGI response that never comes: the connection is closed after the time of the fault."""

    fault: Fault
    running: Running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await self.running.until_left(receive, asyncio.sleep(self.fault["seconds"]))
        # The smallest answer that no client accepts: the promised byte never comes, and the connection is closed.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})


def _body(data: bytes, *, more: bool) -> dict[str, object]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _half(data: bytes) -> bytes:
    ending = b"\n\n" if data.endswith(b"\n\n") else b""
    return data[: len(data) // 2] + ending


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
