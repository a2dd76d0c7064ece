"""Sentence Transformers: embeddings computed in process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from stagelight import _clock
from stagelight._lifecycle import Attachment
from stagelight.facts import Request, Response, Usage
from stagelight.integrations._engine import Observed, around
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._reading import count, part, text

__all__ = ["SentenceTransformersInstrumentor", "read"]

_PROVIDER: Final = "sentence_transformers"
_PACKED: Final = frozenset(("binary", "ubinary"))
"""Precisions that put eight dimensions into a number."""
_HUB_NAME: Final = re.compile(r"[\w.-]+(?:/[\w.-]+)?")


# what was asked


def _model(transformer: Any) -> str | None:
    """The model's name on the hub, or the last part of its path; a model made of parts has none."""
    modules = part(transformer, "_modules")
    first = next(iter(modules.values()), None) if isinstance(modules, dict) else None
    for holder in ("model", "auto_model"):
        named = text(part(first, holder, "config", "_name_or_path"))
        if named is not None:
            return named if _HUB_NAME.fullmatch(named) else re.split(r"[\\/]", named.rstrip("\\/"))[-1] or None
    return None


def _asked(transformer: Any, given: dict[str, Any]) -> Request:
    precision = text(given.get("precision"))
    return Request(
        provider=_PROVIDER,
        model=_model(transformer),
        dimensions=count(given.get("truncate_dim")),
        encoding_formats=None if precision is None else (precision,),
    )


# what came back


def _dimensions(result: Any, request: Request) -> int | None:
    """Length of one embedding; token embeddings and packed bits have another meaning."""
    if request.encoding_formats is not None and not _PACKED.isdisjoint(request.encoding_formats):
        return None
    one = result[0] if isinstance(result, list) and result else result
    shape = part(one, "shape")
    return count(int(shape[-1])) or None if shape is not None and len(shape) > 0 else None


def read(_response: Any) -> Response | None:
    """Nothing: arrays do not say whose they are."""
    return None


class _Encoding:
    """One call of ``encode``; the seconds it takes are those in which the hardware is busy."""

    def __init__(self, transformer: Any, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._request = _asked(transformer, kwargs)
        self._observed = Observed("embedding", self._request)
        self._begun_s = _clock.seconds()

    def active(self) -> Attachment:
        return self._observed.call.active()

    def returned(self, result: Any) -> None:
        busy = Usage(compute_seconds=_clock.seconds() - self._begun_s)
        dimensions = _dimensions(result, self._request)
        self._observed.absorb(Response(usage=busy, embedding_dimensions=dimensions))
        self._observed.end()

    def failed(self, error: BaseException) -> None:
        self._observed.fail(error)


class SentenceTransformersInstrumentor(Instrumentor):
    """Records the embeddings that a ``SentenceTransformer`` computes."""

    distribution = "sentence-transformers"
    supported = "sentence-transformers >= 5, < 7"
    coverage = Coverage(
        title="Sentence Transformers",
        calls={f"model.{name}": "embedding" for name in ("encode", "encode_query", "encode_document")},
        ways="in process; any backend and device",
        recorded=(
            "The model's name on the hub, or the last part of the folder it was loaded from; the precision asked for;"
            " the length of the vectors.",
            "Busy seconds, which an own price per GPU hour makes a cost; without one a call is `unpriced`.",
        ),
        not_recorded=(
            "Tokens: counting them would mean to tokenise twice.",
            "What the processes of a pool do: the call that waits for them is recorded.",
            "The length of vectors whose bits are packed (`binary`, `ubinary`), and the name of a model that was put"
            " together from modules without one.",
            "Cross encoders, sparse and multi-vector encoders.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        # ``encode_query`` and ``encode_document`` call ``encode``.
        return (Target("sentence_transformers", "SentenceTransformer.encode", around(_Encoding)),)
