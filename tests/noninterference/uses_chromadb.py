"""Every search and write of Chroma's collections, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from noninterference.servers import Server
from noninterference.uses import Client, Options, Use

__all__ = ["CLIENT"]

IDS = ["1", "2", "3", "4"]
VECTORS = [[1.0, float(at)] for at in range(1, 5)]
NEAR = [[1.0, 1.0]]


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    import chromadb
    from chromadb.config import Settings

    del server, options  # in process, and sync
    client = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))
    collection = client.create_collection("docs", metadata={"hnsw:space": "cosine"}, embedding_function=None)
    try:
        collection.add(ids=IDS, embeddings=VECTORS, metadatas=[{"even": at % 2 == 0} for at in range(1, 5)])
        yield collection
    finally:
        client.delete_collection("docs")


QUERY = "collection.query"

USES = (
    Use(QUERY, lambda docs: docs.query(query_embeddings=NEAR, n_results=2)),
    Use(QUERY, lambda docs: docs.query(NEAR), "by position"),
    Use(QUERY, lambda docs: docs.query(query_embeddings=NEAR, where={"even": True}), "with a filter"),
    Use(QUERY, lambda docs: docs.query(query_embeddings=[[1.0, 1.0, 1.0]]), "of another length", fails=True),
    Use("collection.add", lambda docs: docs.add(ids=["5"], embeddings=NEAR)),
    Use("collection.upsert", lambda docs: docs.upsert(ids=["1"], embeddings=NEAR)),
    Use("collection.update", lambda docs: docs.update(ids=["1"], embeddings=NEAR)),
)

CLIENT = Client("chromadb", "ChromaInstrumentor", ("chromadb",), _open, USES, "nobody", kinds=lambda: ("sync",))
