"""Embeddings computed in process by Sentence Transformers, with tiny models made here; nothing is downloaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import stagelight
import torch
from opentelemetry.trace import SpanKind, StatusCode
from sentence_transformers import SentenceTransformer
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.integrations import sentence_transformers as integration
from stagelight.integrations.sentence_transformers import SentenceTransformersInstrumentor
from stagelight.testing import Captured, Clock, capture
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tides", "come", "and", "go"]
TEXTS = ["tides come", "and go"]
PRICES = """
prices:
  - provider: sentence_transformers
    model: tiny
    from: 2020-01-01
    prices: { per_gpu_hour: 3.60 }
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    """A transformer with random weights, read from a folder called ``tiny``."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    torch.manual_seed(7)
    BertModel(config).save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    return SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(scope="module")
def static() -> SentenceTransformer:
    """A table of word vectors, which has no name."""
    try:
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    except ImportError:  # its old place, which the newest version deprecates
        from sentence_transformers.models import StaticEmbedding

    words = Tokenizer(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    return SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=4)], device="cpu")


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[SentenceTransformersInstrumentor]:
    """The library is instrumented."""
    instrumentor = SentenceTransformersInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def recorded(work: Callable[[], Any], **settings: Any) -> Captured:
    """What is recorded of some work."""
    with capture(clock=Clock(), **settings) as captured:
        work()
    return captured


def test_an_embedding(model: SentenceTransformer) -> None:
    """An embedding has the model's name and the length of its vectors, and nobody's price."""
    (span,) = recorded(lambda: model.encode(TEXTS, truncate_dim=6, precision="float32")).spans

    assert (span.name, span.kind) == ("embeddings tiny", SpanKind.CLIENT)
    assert span.attributes == {
        a.STAGELIGHT_STAGE: "embedding",
        a.GEN_AI_OPERATION_NAME: "embeddings",
        a.GEN_AI_PROVIDER_NAME: "sentence_transformers",
        a.GEN_AI_REQUEST_MODEL: "tiny",
        a.GEN_AI_REQUEST_ENCODING_FORMATS: ("float32",),
        a.GEN_AI_EMBEDDINGS_DIMENSION_COUNT: 6,
        a.STAGELIGHT_USAGE_COMPUTE_SECONDS: 0.0,
        a.STAGELIGHT_COST_STATUS: "unpriced",
        a.STAGELIGHT_COST_REASON: "no_rate",
        a.STAGELIGHT_OUTCOME: "completed",
    }


def test_a_price_per_hour(model: SentenceTransformer, tmp_path: Path) -> None:
    """Whoever gives a price for the hardware gets a cost from the seconds that it was busy."""
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    clock = Clock()
    handle = model[0].register_forward_pre_hook(lambda *_: clock.advance(1.0))

    with capture(clock=clock, prices=str(prices)) as captured:
        model.encode("tides")
    handle.remove()

    assert captured.call("embedding").attributes[a.STAGELIGHT_COST_AMOUNT] == pytest.approx(0.001)


WAYS: list[tuple[Callable[[Any], Any], int | None]] = [
    (lambda model: model.encode("tides"), 8),
    (lambda model: model.encode(TEXTS, convert_to_tensor=True), 8),
    (lambda model: model.encode(TEXTS, convert_to_numpy=False), 8),
    (lambda model: model.encode(TEXTS, output_value="token_embeddings"), 8),
    (lambda model: model.encode(TEXTS, output_value=None), None),
    (lambda model: model.encode(TEXTS, precision="ubinary"), None),
    (lambda model: model.encode([]), None),
]


@pytest.mark.parametrize(("way", "dimensions"), WAYS)
def test_ways_to_encode(model: SentenceTransformer, way: Callable[[Any], Any], dimensions: int | None) -> None:
    """Arrays, tensors, lists and dictionaries come back as they are; one call each."""
    captured = recorded(lambda: way(model))

    assert captured.call("embedding").attributes.get(a.GEN_AI_EMBEDDINGS_DIMENSION_COUNT) == dimensions


def test_queries_and_documents(static: SentenceTransformer) -> None:
    """Encoding a query or a document is one call; a model of one's own modules has no name."""

    def work() -> None:
        static.encode_query("tides")
        static.encode_document(TEXTS)

    calls = recorded(work).calls

    assert [call.name for call in calls] == ["embeddings"] * 2
    assert [call.attributes[a.GEN_AI_EMBEDDINGS_DIMENSION_COUNT] for call in calls] == [4, 4]
    assert not any(a.GEN_AI_REQUEST_MODEL in call.attributes for call in calls)


def test_a_failure(model: SentenceTransformer) -> None:
    """A call that raises is an error of its class, which the caller gets."""

    def work() -> None:
        with pytest.raises(ValueError, match=r"(?i)precision"):
            model.encode(TEXTS, precision="none")

    captured = recorded(work)

    assert (captured.call("embedding").outcome, captured.call("embedding").error_type) == ("error", "ValueError")
    assert captured.spans[0].status.status_code is StatusCode.ERROR


def test_a_manual_embedding_is_one_call(model: SentenceTransformer) -> None:
    """A block around the library is the call; it may name the model."""

    def work() -> None:
        with stagelight.turn("answer"), stagelight.embedding(provider="sentence_transformers", model="ours"):
            model.encode("tides")

    captured = recorded(work)

    assert [span.name for span in captured.spans] == ["embeddings ours", "invoke_workflow answer"]
    assert captured.call("embedding").attributes[a.GEN_AI_EMBEDDINGS_DIMENSION_COUNT] == 8


def test_two_calls_at_the_same_time(model: SentenceTransformer) -> None:
    """Calls of two threads stay in their turns."""

    def one(name: str) -> None:
        with stagelight.turn(name):
            model.encode(TEXTS)

    def both() -> None:
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(one, ["first", "second"]))

    captured = recorded(both)

    assert [len(captured.turn(name).calls) for name in ("first", "second")] == [1, 1]


def test_results_are_the_librarys_own(
    model: SentenceTransformer, static: SentenceTransformer, instrumented: SentenceTransformersInstrumentor
) -> None:
    """Types and values are equal with and without us."""

    def everything() -> list[Any]:
        return [
            model.encode(TEXTS),
            model.encode("tides", convert_to_tensor=True),
            model.encode(TEXTS, output_value=None),
            static.encode(TEXTS, normalize_embeddings=True),
        ]

    with capture() as captured:
        observed = everything()
    signature = inspect.signature(SentenceTransformer.encode)
    instrumented.uninstrument()
    alone = everything()

    assert repr(observed) == repr(alone)
    assert [type(one) for one in observed] == [type(one) for one in alone]
    assert signature == inspect.signature(SentenceTransformer.encode)
    assert len(captured.calls) == 4


def test_our_errors_stay_ours(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When reading a question or an answer fails inside us, the caller gets the library's result."""

    def broken(*_: Any) -> Any:
        raise LookupError("ours")

    _guard.set_strict(False)
    for name in ("_dimensions", "_asked"):
        monkeypatch.setattr(integration, name, broken)
        assert model.encode(TEXTS).shape == (2, 8)
    assert _guard.errors()


def test_switching_on_and_off_restores_the_same_function(instrumented: SentenceTransformersInstrumentor) -> None:
    """Afterwards the class has the very function it had."""
    wrapped = vars(SentenceTransformer)["encode"]
    instrumented.uninstrument()

    assert vars(SentenceTransformer)["encode"] is wrapped.__wrapped__


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("/home/ann/models/minilm/", "minilm"),
        ("C:\\models\\minilm", "minilm"),
        ("", None),
    ],
)
def test_the_name_of_a_model(model: SentenceTransformer, path: str, name: str | None) -> None:
    """A hub name is the name; of a path only the last part is told."""
    config = model._modules["0"].auto_model.config
    before, config._name_or_path = config._name_or_path, path
    try:
        attributes = recorded(lambda: model.encode("tides")).call("embedding").attributes
    finally:
        config._name_or_path = before

    assert attributes.get(a.GEN_AI_REQUEST_MODEL) == name
