"""Bodies are decompressed step by step and never beyond their caps."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib

import pytest
from stagelight.embedded.inflate import Body, Budget, inflate
from stagelight.embedded.refusal import Busy, Malformed, TooLarge

KIB = 1024


def body_of(*pieces: bytes, compressed: bool = True, wire_limit: int = 64 * KIB, limit: int = 1024 * KIB) -> bytes:
    body = Body(compressed=compressed, wire_limit=wire_limit, limit=limit)
    for piece in pieces:
        body.feed(piece)
    return body.finish()


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_gzip_in_pieces(step: int) -> None:
    """However a gzip body is cut into pieces, the content is the same."""
    content = bytes(range(256)) * 500
    packed = gzip.compress(content)

    assert body_of(*(packed[at : at + step] for at in range(0, len(packed), step))) == content


def test_gzip_members() -> None:
    """A gzip body of several members is their contents in a row."""
    assert body_of(gzip.compress(b"one ") + gzip.compress(b"two")) == b"one two"


def test_many_members() -> None:
    """A body of very many empty gzip members is refused at once: each member would cost a copy of the rest."""
    body = gzip.compress(b"") * 50_000
    began = time.thread_time()
    with pytest.raises(Malformed, match="more than 16 gzip members"):
        body_of(body, wire_limit=len(body))

    assert time.thread_time() - began < 5
    assert body_of(gzip.compress(b"a") * 16) == b"a" * 16


def test_plain_body() -> None:
    """A body without encoding is kept as it is, gzip or not."""
    packed = gzip.compress(b"kept")

    assert body_of(packed[:5], packed[5:], compressed=False) == packed


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"no gzip at all", "incorrect header check"),
        (gzip.compress(b"cut" * 1000, mtime=0)[:-9], "ends too early"),
        (gzip.compress(b"flipped" * 100, mtime=0)[:-8] + b"\0" * 8, "incorrect data check"),
        (gzip.compress(b"tail", mtime=0) + b"garbage", "incorrect header check"),
    ],
)
def test_bad_gzip(body: bytes, reason: str) -> None:
    """A body that is not gzip, is cut, damaged or followed by something else is malformed, with the reason."""
    with pytest.raises(Malformed, match=reason):
        body_of(body)


def test_bomb_is_not_unpacked() -> None:
    """A bomb of 1 to 1000 is refused after the cap, without taking memory for what lies beyond."""
    bomb = gzip.compress(b"\0" * (64 * KIB * KIB))
    tracemalloc.start()
    with pytest.raises(TooLarge, match="larger than 1048576 bytes when decompressed"):
        body_of(bomb, wire_limit=len(bomb))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4096 * KIB


def test_too_large_as_sent() -> None:
    """The cap on the size as sent holds for plain and for compressed bodies."""
    for compressed in (True, False):
        with pytest.raises(TooLarge, match="larger than 65536 bytes as sent"):
            body_of(b"\0" * (64 * KIB + 1), compressed=compressed)


@pytest.mark.parametrize(
    "message", [b"", b"\x0a", b"\x0a\x03abc", gzip.compress(b"\x0a\x03abc", mtime=0), zlib.compress(b"\x0a\x03abc")]
)
def test_grpc_message_kinds(message: bytes) -> None:
    """A gRPC message is decompressed when its first bytes are those of gzip or zlib, and kept otherwise."""
    plain = message if len(message) < 6 else b"\x0a\x03abc"

    assert inflate(message, wire_limit=KIB, limit=KIB) == plain


def test_budget() -> None:
    """What a request holds is counted while it is under way, and given back however it ends."""
    budget = Budget(100)
    with budget.hold() as first:
        first.grow_to(10)
        first.grow_to(60)
        with pytest.raises(Busy) as refused, budget.hold() as second:
            second.grow_to(41)
        held_by_both = budget.held_bytes

    assert (held_by_both, budget.held_bytes, refused.value.retry_after_s) == (60, 0, 1)
