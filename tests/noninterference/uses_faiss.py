"""Every search of FAISS's indexes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from noninterference.servers import Server
from noninterference.uses import Client, Options, Use

__all__ = ["CLIENT"]


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    import faiss
    import numpy

    del server, options  # in process, and sync
    index = faiss.IndexFlatL2(2)
    index.add(numpy.array([[1, at] for at in range(1, 6)], dtype="float32"))
    yield index


def _near(*numbers: int) -> Any:
    import numpy

    return numpy.array([numbers or (1, 1)], dtype="float32")


def _bits(_index: Any) -> Any:
    import faiss
    import numpy

    binary = faiss.IndexBinaryFlat(8)
    bits = numpy.array([[0], [1], [3]], dtype="uint8")
    binary.add(bits)
    return binary.search(bits[:1], 2)


def _chosen(index: Any) -> Any:
    import faiss

    return index.search(_near(), 3, params=faiss.SearchParameters(sel=faiss.IDSelectorRange(1, 4)))


SEARCH = "index.search"

USES = (
    Use(SEARCH, lambda index: index.search(_near(), 3)),
    Use(SEARCH, lambda index: index.search(x=_near(), k=9), "by names"),
    Use(SEARCH, _bits, "of bits"),
    Use(SEARCH, _chosen, "with a filter"),
    Use(SEARCH, lambda index: index.search(_near(1, 2, 3), 3), "of another length", fails=True),
    Use("index.search_and_reconstruct", lambda index: index.search_and_reconstruct(_near(), 2)),
    Use("index.range_search", lambda index: index.range_search(_near(), 4.5)),
)

CLIENT = Client("faiss", "FaissInstrumentor", ("faiss",), _open, USES, "nobody", kinds=lambda: ("sync",))
