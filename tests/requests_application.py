"""An application with routes of every kind that tests of requests ask for, and the calls of a model in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import stagelight
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse


def stage(tokens: int = 10) -> None:
    """One call of a model."""
    with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
        call.usage(input_tokens=tokens, output_tokens=1)


async def words(*, endless: bool) -> AsyncIterator[str]:
    """An answer in pieces, made while a call runs."""
    with stagelight.llm(provider="openai", model="gpt-4o-mini", stream=True) as call:
        for _ in range(10**9 if endless else 3):
            await asyncio.sleep(0.01)
            call.chunk("word")
            yield "word "


def application() -> FastAPI:
    """Routes with a stage, without one, with two turns of their own, failing and streaming."""
    app = FastAPI()

    @app.get("/ask/{question}")
    async def ask(question: str) -> dict[str, str]:
        stage()
        stage()
        return {"question": question}

    @app.get("/threaded")
    def threaded() -> str:
        stage()
        return "done"

    @app.get("/plain")
    async def plain() -> str:
        return "nothing here"

    @app.get("/own")
    async def own() -> str:
        with stagelight.turn("mine"):
            stage()
        stage()
        return "own"

    @app.get("/late")
    async def late() -> str:
        stage()
        stagelight.identify(tenant="late", user_id="u-2")
        return "late"

    @app.get("/fails")
    async def fails() -> str:
        stage()
        raise RuntimeError("private")

    @app.get("/words")
    async def streamed(endless: bool = False) -> StreamingResponse:
        return StreamingResponse(words(endless=endless))

    @app.websocket("/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            stage()
            await socket.send_text(text.upper())

    return app
