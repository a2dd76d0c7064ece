"""Every way of computing embeddings by Sentence Transformers, with a table of words that is made here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from noninterference.servers import Server
from noninterference.uses import Client, Options, Use

__all__ = ["CLIENT"]

WORDS = ("[UNK]", "tides", "come", "and", "go")
TEXTS = ["tides come", "and go"]


@cache
def _model() -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    try:
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    except ImportError:  # its old place, which the newest version deprecates
        from sentence_transformers.models import StaticEmbedding

    torch.manual_seed(7)
    words = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    return SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=4)], device="cpu")


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    del server, options  # in process, and sync
    yield _model()


ENCODE = "model.encode"

USES = (
    Use(ENCODE, lambda model: model.encode(TEXTS)),
    Use(ENCODE, lambda model: model.encode("tides", convert_to_tensor=True), "as a tensor"),
    Use(ENCODE, lambda model: model.encode(TEXTS, truncate_dim=2, normalize_embeddings=True), "cut and normal"),
    Use(ENCODE, lambda model: model.encode(TEXTS, precision="half a byte"), "refused", fails=True),
    Use("model.encode_query", lambda model: model.encode_query(TEXTS)),
    Use("model.encode_document", lambda model: model.encode_document(TEXTS)),
)

CLIENT = Client(
    "sentence_transformers",
    "SentenceTransformersInstrumentor",
    ("sentence_transformers",),
    _open,
    USES,
    "nobody",
    kinds=lambda: ("sync",),
)
