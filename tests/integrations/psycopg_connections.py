"""Connections of psycopg, sync and async, and what is recorded of those who use them."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from postgres import Postgres
from stagelight.testing import Captured, Clock, capture

__all__ = ["NEAREST", "play", "recorded_of"]

NEAREST = "SELECT id, embedding <=> %s::vector AS distance FROM docs WHERE even ORDER BY distance LIMIT %s"


def play(server: Postgres, kind: str, scenario: Any, **options: Any) -> Any:
    """Run a scenario with a connection of its own."""

    async def played() -> Any:
        if kind == "async":
            async with await psycopg.AsyncConnection.connect(server.url, **options) as connection:
                return await scenario(connection)
        with psycopg.connect(server.url, **options) as connection:
            return await scenario(connection)

    return asyncio.run(played())


def recorded_of(server: Postgres, kind: str, scenario: Any, **options: Any) -> Captured:
    """What was recorded of a scenario."""
    with capture(clock=Clock()) as captured:
        play(server, kind, scenario, **options)
    return captured
