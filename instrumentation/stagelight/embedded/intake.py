"""From a request body to committed rows: what OTLP over HTTP and over gRPC have in common."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from stagelight.embedded.batch import Batch
from stagelight.embedded.inflate import Budget, Holding, inflate
from stagelight.embedded.options import Limits
from stagelight.embedded.refusal import BUSY_RETRY_S, Busy, Unavailable
from stagelight.embedded.signals import Encoding, Signal
from stagelight.embedded.writer import QueueFull, WriteFailed, Writer, WriterClosed

__all__ = ["Intake"]

_STORE_RETRY_S = 10  # a full disk or a locked file is not mended within a second

# Larger bodies would hold up the event loop, and with it the pages; JSON takes about ten times as long per byte.
_INLINE_BYTES: dict[Encoding, int] = {"protobuf": 1 << 20, "json": 1 << 17}
_INLINE_COMPRESSED_BYTES = 1 << 16  # may still unpack to a thousand times as much


class Intake:
    """Takes request bodies, answers when their rows are committed.

    Args:
        writer: the one that commits.
        limits: bounds on what is held at one time.
    """

    def __init__(self, writer: Writer, limits: Limits) -> None:
        self.limits = limits
        self.budget = Budget(limits.inflight_bytes)
        self._writer = writer
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="stagelight-parse")

    def close(self) -> None:
        """End the parser's thread; requests under way are finished first."""
        self._parser.shutdown()

    async def store(self, signal: Signal, body: bytes, encoding: Encoding) -> Batch:
        """Commit a request; returns when a crash of this process can no longer lose it.

        Raises:
            Malformed: the body is not a request of this signal.
            Busy: the queue in front of the store is full.
            Unavailable: the store failed or is being closed.
        """
        if len(body) <= _INLINE_BYTES[encoding]:
            batch = signal.batch(body, encoding)
        else:
            loop = asyncio.get_running_loop()
            batch = await loop.run_in_executor(self._parser, signal.batch, body, encoding)
        if not batch.is_empty:
            await self._commit(batch)
        return batch

    async def inflate(self, message: bytes, holding: Holding) -> bytes:
        """A gRPC message, decompressed when it is compressed; a large one off the event loop.

        Raises:
            TooLarge, Malformed: as ``inflate.inflate``.
            Busy: all requests together hold too much.
        """
        unpack = partial(inflate, message, wire_limit=self.limits.wire_bytes, limit=self.limits.body_bytes)
        holding.grow_to(len(message))
        if len(message) <= _INLINE_COMPRESSED_BYTES:
            body = unpack()
        else:
            body = await asyncio.get_running_loop().run_in_executor(self._parser, unpack)
        holding.grow_to(len(body))
        return body

    async def check(self) -> None:
        """Commit nothing, the way a request commits: proves that the writer works.

        Raises:
            Busy, Unavailable: as ``store``.
        """
        await self._commit(Batch())

    async def _commit(self, batch: Batch) -> None:
        try:
            committed = asyncio.wrap_future(self._writer.submit(batch))
            # A client that goes away must not cancel a commit that other requests may be part of.
            await asyncio.shield(committed)
        except QueueFull as error:
            raise Busy(f"the store's queue is full: {error}", retry_after_s=BUSY_RETRY_S) from error
        except WriterClosed as error:
            raise Unavailable(f"the store is closed: {error}", retry_after_s=_STORE_RETRY_S) from error
        except WriteFailed as error:
            raise Unavailable(str(error), retry_after_s=_STORE_RETRY_S) from error
