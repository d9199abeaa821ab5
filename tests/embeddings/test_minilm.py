"""The served vectors of all-MiniLM-L6-v2 are those of its published pooling, whatever runs beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_manager.errors import ContextLengthExceeded, InvalidRequest
from mlx_manager.ir import EmbeddingRequest, TextRole
from mlx_manager.models.embedding import Embedder
from tests.embeddings.reference import NumpyBert
from tests.embeddings.tiny import load_embedder

TEXTS = (
    "A cat sits on the mat.",
    "The feline rested on the rug, wholly content with what the long afternoon had brought it so far.",
    "Stocks fell.",
    "Grüße aus Köln – naïve café, 你好 🌍",
    "?",
    "word " * 60,
)
# longer than the 256 tokens that the model takes
LONG_TEXT = "the quick brown fox " * 100


@pytest.fixture(scope="module")
def embedder(minilm_folder: Path) -> Embedder:
    return load_embedder(minilm_folder)


@pytest.fixture(scope="module")
def reference(minilm_folder: Path) -> NumpyBert:
    return NumpyBert(minilm_folder)


def request_for(*inputs: str | tuple[int, ...], **changes: Any) -> EmbeddingRequest:
    return EmbeddingRequest(request_id="r", model="m", inputs=inputs, **changes)


def embed(embedder: Embedder, *inputs: str | tuple[int, ...], **changes: Any) -> np.ndarray[Any, Any]:
    """The vectors of all inputs in one batch."""
    request = request_for(*inputs, **changes)
    embedder.check(request)
    items = embedder.tokenize(request, 0, len(inputs))
    return embedder.finish(request, embedder.compute(items))


def test_vectors_are_those_of_the_reference(embedder: Embedder, reference: NumpyBert) -> None:
    vectors = embed(embedder, *TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        expected = reference.embed(text)
        assert 1 - float(expected @ vector) < 1e-5
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_the_meaning_is_in_them(embedder: Embedder) -> None:
    cat, feline, stocks = embed(embedder, "cat", "feline", "stocks")
    assert float(cat @ feline) > 0.5 > float(cat @ stocks) + 0.2


def test_tokens_are_those_of_the_reference(embedder: Embedder, reference: NumpyBert) -> None:
    items = embedder.tokenize(request_for(*TEXTS), 0, len(TEXTS))
    assert [list(item.token_ids) for item in items] == [reference.token_ids(text) for text in TEXTS]


def test_token_ids_are_taken_as_they_are(embedder: Embedder, reference: NumpyBert) -> None:
    (vector,) = embed(embedder, tuple(reference.token_ids(TEXTS[1])))
    np.testing.assert_allclose(vector, reference.embed(TEXTS[1]), atol=1e-5)
    with pytest.raises(InvalidRequest, match=r"input\[1\] has the token 30522; the vocabulary .* has 30522"):
        embed(embedder, (101,), (30_522,))


def test_what_is_too_long_is_refused_or_cut(embedder: Embedder, reference: NumpyBert) -> None:
    assert embedder.max_tokens == 256
    with pytest.raises(ContextLengthExceeded, match=r"input\[1\] has 402 tokens, and this model takes 256") as refused:
        embed(embedder, "short", LONG_TEXT)
    assert refused.value.param == "input"
    (vector,) = embed(embedder, LONG_TEXT, truncate=True)
    np.testing.assert_allclose(vector, embed(embedder, tuple(reference.token_ids(LONG_TEXT)))[0], atol=1e-6)
    with pytest.raises(ContextLengthExceeded, match=r"input\[0\] has 300 tokens"):
        embed(embedder, (101,) * 300)
    assert embed(embedder, (101,) * 300, truncate=True).shape == (1, 384)


def test_of_an_endless_text_no_more_is_read_than_tells_that_it_is_too_long(embedder: Embedder) -> None:
    endless = "word " * 500_000
    with pytest.raises(ContextLengthExceeded, match=r"input\[0\] has more than 256 tokens"):
        embed(embedder, endless)
    np.testing.assert_array_equal(
        embed(embedder, endless, truncate=True), embed(embedder, endless[:5000], truncate=True)
    )


def test_fewer_dimensions_are_the_first_ones_at_length_one(embedder: Embedder) -> None:
    (whole,) = embed(embedder, TEXTS[0])
    (cut,) = embed(embedder, TEXTS[0], dimensions=64)
    np.testing.assert_allclose(cut, whole[:64] / np.linalg.norm(whole[:64]), atol=1e-6)
    with pytest.raises(InvalidRequest, match="dimensions cannot be 385: vectors of this model have 384") as refused:
        embed(embedder, TEXTS[0], dimensions=385)
    assert refused.value.param == "dimensions"


def test_a_model_without_prompts_takes_queries_as_texts(embedder: Embedder) -> None:
    (plain,), (query,) = embed(embedder, TEXTS[0]), embed(embedder, TEXTS[0], role=TextRole.QUERY)
    np.testing.assert_array_equal(plain, query)
