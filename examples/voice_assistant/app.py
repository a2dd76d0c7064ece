"""A voice assistant that answers questions about Stagelight from its own pages.

``POST /ask`` answers with speech, ``POST /chat`` with text. See the README beside this file.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import stagelight
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from openai import APIError, AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, Field
from qdrant_client import AsyncQdrantClient
from qdrant_client.models import Distance, PointStruct, ScoredPoint, VectorParams

EMBEDDING_MODEL = "text-embedding-3-small"
CHAT_MODEL = "gpt-4o-mini"
SPEECH_MODEL = "tts-1"
COLLECTION = "docs"
DIMENSIONS = 1536

INSTRUCTIONS = (
    "You answer questions about Stagelight. Answer from the context only, in at most three sentences that are easy "
    "to follow when heard. If the context does not answer the question, say so."
)

stagelight.configure()


class Question(BaseModel):
    """What somebody wants to know."""

    question: str = Field(min_length=1, max_length=500)
    conversation_id: str | None = None
    user_id: str | None = None
    tenant: str | None = None


class Assistant:
    """Finds the pages that fit a question, writes an answer from them and speaks it."""

    def __init__(self) -> None:
        self.openai = AsyncOpenAI()  # OPENAI_BASE_URL and OPENAI_API_KEY from the environment
        self.qdrant = AsyncQdrantClient(":memory:")

    async def load(self, sections: list[str]) -> None:
        """Put sections of pages into the search index."""
        vectors = await self.embed(sections)
        await self.qdrant.create_collection(COLLECTION, VectorParams(size=DIMENSIONS, distance=Distance.COSINE))
        points = [
            PointStruct(id=number, vector=vector, payload={"text": section})
            for number, (section, vector) in enumerate(zip(sections, vectors, strict=True))
        ]
        await self.qdrant.upsert(COLLECTION, points)

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """Return one vector per text."""
        response = await self.openai.embeddings.create(model=EMBEDDING_MODEL, input=texts)
        return [item.embedding for item in response.data]

    async def search(self, question: str) -> list[ScoredPoint]:
        """Return the sections nearest to a question."""
        [vector] = await self.embed([question])
        found = await self.qdrant.query_points(COLLECTION, vector, limit=4)
        return found.points

    async def write(self, question: str) -> AsyncIterator[str]:
        """Yield the answer as the model writes it."""
        found = await self.search(question)
        context = "\n\n".join(point.payload["text"] for point in found if point.payload)
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": f"{INSTRUCTIONS}\n\nContext:\n{context}"},
            {"role": "user", "content": question},
        ]
        stream = await self.openai.chat.completions.create(
            model=CHAT_MODEL,
            messages=messages,
            max_tokens=300,
            stream=True,
            stream_options={"include_usage": True},  # without it the provider does not say what a stream used
        )
        async with stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        """Yield the spoken text as the model speaks it."""
        async with self.openai.audio.speech.with_streaming_response.create(
            model=SPEECH_MODEL, voice="coral", input=text, response_format="wav"
        ) as response:
            async for audio in response.iter_bytes():
                yield audio

    async def close(self) -> None:
        """Close the connections."""
        await self.openai.close()
        await self.qdrant.close()


def read_sections(folder: Path) -> list[str]:
    """Return the sections of all pages of a folder: their headings and texts."""
    pages = [page.read_text(encoding="utf-8") for page in sorted(folder.glob("*.md"))]
    return [section.strip() for page in pages for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the pages before the first question."""
    assistant = app.state.assistant = Assistant()
    try:
        with stagelight.job("index"):
            await assistant.load(read_sections(Path(__file__).parent / "docs"))
        yield
    finally:
        await assistant.close()


app = FastAPI(title="Voice assistant", lifespan=lifespan)


@app.post("/ask")
async def ask(asked: Question) -> StreamingResponse:
    """Answer with speech: a WAV that begins to play while the rest is still being spoken."""
    assistant: Assistant = app.state.assistant
    with stagelight.turn("answer", feature="voice", conversation_id=asked.conversation_id) as turn:
        stagelight.identify(user_id=asked.user_id, tenant=asked.tenant)
        text = "".join([part async for part in assistant.write(asked.question)])
        return StreamingResponse(turn.stream(assistant.speak(text)), media_type="audio/wav")


@app.post("/chat")
async def chat(asked: Question) -> StreamingResponse:
    """Answer with text as it is written."""
    assistant: Assistant = app.state.assistant
    with stagelight.turn("answer", feature="chat", conversation_id=asked.conversation_id) as turn:
        stagelight.identify(user_id=asked.user_id, tenant=asked.tenant)
        return StreamingResponse(turn.stream(assistant.write(asked.question)), media_type="text/plain")


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that questions are answered: the pages are loaded."""
    return {"status": "ok"}


@app.exception_handler(APIError)
async def provider_failed(_: Request, error: APIError) -> JSONResponse:
    """Tell the caller that the provider failed, without its details."""
    return JSONResponse({"error": f"The AI provider failed: {type(error).__name__}. Try again later."}, status_code=502)
