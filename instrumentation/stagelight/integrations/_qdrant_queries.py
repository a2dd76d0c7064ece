"""What a Qdrant query searches with, and what its scores are; pure reading of its arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from stagelight.integrations._reading import part

__all__ = ["Scale", "mode_of", "name_of_vector", "scale_of"]

Scale = tuple[str, bool]
"""What scores are, and whether a higher one is better."""

_SCALES: Final[Mapping[str, Scale]] = {
    "Cosine": ("cosine", True),
    "Dot": ("dot", True),
    "Euclid": ("euclid", False),
    "Manhattan": ("manhattan", False),
}
"""Qdrant's distances."""

_KINDS: Final[Mapping[str, str]] = {
    "list": "dense",
    "ndarray": "dense",
    "NamedVector": "dense",
    "Image": "dense",
    "SparseVector": "sparse",
    "NamedSparseVector": "sparse",
}
"""Class of a query -> what it searches with."""

_SPARSE_SCALE: Final[Scale] = ("dot", True)
_SPARSE_MODELS: Final = ("bm25", "bm42", "splade", "sparse", "minicoil")
"""Parts of the names of models that make sparse vectors."""


def mode_of(query: Any, prefetch: Any = None) -> str | None:
    """``dense``, ``sparse`` or ``hybrid``; ``None`` where the arguments do not tell (a query by a point's id)."""
    kinds = {kind for kind in _kinds(query, prefetch) if kind is not None}
    if len(kinds) > 1:
        return "hybrid"
    return kinds.pop() if kinds else None


def _kinds(query: Any, prefetch: Any) -> Iterator[str | None]:
    yield _kind(query)
    for one in prefetch if isinstance(prefetch, list | tuple) else [prefetch]:
        if one is not None:
            yield from _kinds(part(one, "query"), part(one, "prefetch"))


def _kind(query: Any) -> str | None:
    name = type(query).__name__
    if name == "tuple":  # a named vector: (name, vector)
        return _kind(query[1]) if len(query) == 2 and isinstance(query[0], str) else "dense"
    if name == "Document":
        model = str(part(query, "model")).lower()
        return "sparse" if any(known in model for known in _SPARSE_MODELS) else "dense"
    if name == "dict" and "indices" in query:
        return "sparse"
    if name in {"NearestQuery", "dict"}:
        return _kind(part(query, "nearest"))
    return _KINDS.get(name)


def name_of_vector(query: Any, using: Any) -> str:
    """Name of the vector that is searched; empty for the collection's only one."""
    if isinstance(using, str):
        return using
    if isinstance(query, tuple) and len(query) == 2 and isinstance(query[0], str):
        return query[0]
    name = part(query, "name")
    return name if isinstance(name, str) else ""


def scale_of(query: Any, using: Any, vectors: Any) -> Scale | None:
    """What the scores of a query are.

    Args:
        query: the main query; prefetches do not decide.
        using: name of the vector searched.
        vectors: the collection's vector parameters, by name or the only ones; ``None`` when not known.
    """
    fusion = part(query, "fusion")
    if fusion is not None:
        return (str(getattr(fusion, "value", fusion)), True)
    name = type(query).__name__
    if name == "RrfQuery":
        return ("rrf", True)
    kind = _kind(query)
    if kind == "sparse":
        return _SPARSE_SCALE
    nearest = query.nearest if name == "NearestQuery" else query
    if kind is None and not isinstance(nearest, int | str):  # recommend, discover, formula, order: scores of their own
        return None
    wanted = name_of_vector(query, using)
    params = vectors.get(wanted) if isinstance(vectors, Mapping) else None if wanted else vectors
    if part(params, "multivector_config") is not None:
        return None
    distance = part(params, "distance")
    return _SCALES.get(str(getattr(distance, "value", distance)))
