"""Rerankers of every form score as their formula says, alone and in a batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models import qwen3

from mlx_manager.errors import ContextLengthExceeded, InvalidRequest, ModelLoadFailed
from mlx_manager.ir import RerankRequest
from mlx_manager.models.reranking import Reranker
from tests.embeddings.tiny import config_of, load_reranker, random_weights, write_model

QUERY = "who eats fish"
DOCUMENTS = (
    "cats eat fish",
    "stocks",
    "the cat on the mat in the house by the sea, which is not a dog, eats fish " * 2,
)

Floats = np.ndarray[Any, Any]


def normal(*shape: int) -> mx.array:
    mx.random.seed(sum(shape))
    return mx.random.normal(shape) * 0.5


def head_of(model_type: str) -> dict[str, mx.array]:
    """The weights that the checkpoint's architecture has behind its encoder."""
    if model_type == "xlm-roberta":
        return {
            "classifier.dense.weight": normal(32, 32),
            "classifier.dense.bias": normal(32),
            "classifier.out_proj.weight": normal(1, 32),
            "classifier.out_proj.bias": normal(1),
        }
    if model_type == "modernbert":
        norm = {"head.norm.weight": normal(32)}
        return {"head.dense.weight": normal(32, 32), "classifier.weight": normal(1, 32), **norm}
    if model_type == "qwen3":
        return {"score.weight": normal(1, 32)}
    return {"classifier.weight": normal(1, 32), "classifier.bias": normal(1)}


PREFIXES = {"bert": "bert.", "xlm-roberta": "roberta."}


def cross_encoder(folder: Path, tokenizer_from: Path, model_type: str, **config: Any) -> Path:
    """The folder of a random one, its weights named as such checkpoints name them."""
    config = config_of(model_type, architectures=["XForSequenceClassification"], **config)
    encoder = {PREFIXES.get(model_type, "") + name: array for name, array in random_weights(config).items()}
    return write_model(folder, tokenizer_from, config, encoder | head_of(model_type))


def ask(*documents: str, **changes: Any) -> RerankRequest:
    return RerankRequest(request_id="r", model="m", query=QUERY, documents=documents, **changes)


def scores(reranker: Reranker, *documents: str, **changes: Any) -> list[float]:
    """One score for each document, in one batch."""
    request = ask(*documents, **changes)
    reranker.check(request)
    items = reranker.tokenize(request, 0, len(documents))
    return [float(score) for score in reranker.compute(items)[:, 0]]


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta", "modernbert", "qwen3"])
def test_a_head_scores_each_document_alone_and_in_a_batch(tmp_path: Path, minilm_folder: Path, model_type: str) -> None:
    reranker = load_reranker(cross_encoder(tmp_path / "model", minilm_folder, model_type))
    together = scores(reranker, *DOCUMENTS)
    assert together == pytest.approx([scores(reranker, document)[0] for document in DOCUMENTS], abs=1e-5)
    assert len(set(together)) == len(together)
    (item,) = reranker.tokenize(ask(DOCUMENTS[0]), 0, 1)
    hidden = np.array(reranker.encoder.hidden_states([item])[0][0], dtype=np.float64)
    weights = {name: np.array(array) for name, array in head_of(model_type).items()}
    logit = _logit(model_type, hidden, weights, reranker)
    assert together[0] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)


def _logit(model_type: str, hidden: Floats, weights: dict[str, Floats], reranker: Reranker) -> float:
    """By the formulas of the published classes."""
    if model_type == "qwen3":
        return float((weights["score.weight"] @ hidden[-1]).item())
    if model_type == "xlm-roberta":
        inner = np.tanh(weights["classifier.dense.weight"] @ hidden[0] + weights["classifier.dense.bias"])
        return float((weights["classifier.out_proj.weight"] @ inner + weights["classifier.out_proj.bias"]).item())
    if model_type == "modernbert":
        inner = weights["head.dense.weight"] @ hidden.mean(axis=0)
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / np.sqrt(2)))
        inner = (inner - inner.mean()) / np.sqrt(inner.var() + 1e-5) * weights["head.norm.weight"]
        return float((weights["classifier.weight"] @ inner).item())
    pooler = reranker.encoder.model["pooler"]["dense"]
    inner = np.tanh(np.array(pooler["weight"]) @ hidden[0] + np.array(pooler["bias"]))
    return float((weights["classifier.weight"] @ inner + weights["classifier.bias"]).item())


def test_the_two_texts_of_a_pair_are_told_apart(tmp_path: Path, minilm_folder: Path) -> None:
    reranker = load_reranker(cross_encoder(tmp_path / "model", minilm_folder, "bert"))
    (item,) = reranker.tokenize(ask("stocks"), 0, 1)
    assert reranker.encoder.tokenizer.decode(list(item.token_ids)) == f"[CLS] {QUERY} [SEP] stocks [SEP]"
    assert list(item.segments or ()) == [0, 0, 0, 0, 0, 1, 1]


def test_a_long_document_is_cut_or_refused(tmp_path: Path, minilm_folder: Path) -> None:
    reranker = load_reranker(cross_encoder(tmp_path / "model", minilm_folder, "bert"))
    long = "fish " * 200
    (item,) = reranker.tokenize(ask(long), 0, 1)
    assert len(item.token_ids) == 128
    with pytest.raises(ContextLengthExceeded, match=r"documents\[0\] with the query has 206 tokens.* takes 128"):
        reranker.tokenize(ask(long, truncate=False), 0, 1)
    assert reranker.tokenize(ask(long * 1000), 0, 1) == [item]
    with pytest.raises(ContextLengthExceeded, match=r"documents\[0\] has more than 128 tokens"):
        reranker.tokenize(ask(long * 1000, truncate=False), 0, 1)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_language_model_is_asked_for_yes_or_no(tmp_path: Path, minilm_folder: Path, is_tied: bool) -> None:
    # the reference: mlx-lm's own class, and the softmax over its logits of the two words
    config = config_of("qwen3", architectures=["Qwen3ForCausalLM"], tie_word_embeddings=is_tied, rope_theta=1e6)
    weights = random_weights(config) | ({} if is_tied else {"lm_head.weight": normal(config["vocab_size"], 32)})
    reranker = load_reranker(write_model(tmp_path / "tiny-reranker", minilm_folder, config, weights))
    model = qwen3.Model(qwen3.ModelArgs.from_dict(config))
    model.load_weights(list(weights.items()))
    vocabulary = reranker.encoder.tokenizer.get_vocab()
    request = ask(*DOCUMENTS[:2], instruction="Find what eats.")
    expected = []
    for item in reranker.tokenize(request, 0, 2):
        text = reranker.encoder.tokenizer.decode(list(item.token_ids))
        assert "find what eats" in text
        assert text.index("judge whether") < text.index(QUERY) < text.index("assistant")
        logits = np.array(model(mx.array([item.token_ids]))[0, -1], dtype=np.float64)
        no, yes = np.exp(logits[vocabulary["no"]]), np.exp(logits[vocabulary["yes"]])
        expected.append(yes / (no + yes))
    assert scores(reranker, *DOCUMENTS[:2], instruction="Find what eats.") == pytest.approx(expected, abs=1e-4)
    assert reranker.describe() == "scores by yes or no, between 0 and 1"


def test_an_instruction_goes_only_to_models_that_take_words(tmp_path: Path, minilm_folder: Path) -> None:
    reranker = load_reranker(cross_encoder(tmp_path / "model", minilm_folder, "bert"))
    with pytest.raises(InvalidRequest, match="takes no instruction") as refused:
        scores(reranker, "cats", instruction="Find cats.")
    assert refused.value.param == "instruction"


def test_a_classifier_is_no_reranker(tmp_path: Path, minilm_folder: Path) -> None:
    config = config_of("bert", architectures=["BertForSequenceClassification"])
    weights = {f"bert.{name}": array for name, array in random_weights(config).items()}
    folder = write_model(tmp_path / "model", minilm_folder, config, weights | {"classifier.weight": normal(3, 32)})
    with pytest.raises(ModelLoadFailed, match="tells 3 classes apart"):
        load_reranker(folder)


def test_a_language_model_without_a_known_question_is_refused(tmp_path: Path, minilm_folder: Path) -> None:
    folder = write_model(
        tmp_path / "a-reranker", minilm_folder, config_of("llama_bidirec"), random_weights(config_of("llama_bidirec"))
    )
    with pytest.raises(ModelLoadFailed, match="no head that scores"):
        load_reranker(folder)
