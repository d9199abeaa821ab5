"""/v1/embeddings and /v1/rerank from the front door: the real server, MiniLM, the official SDK."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from mlx_manager.hub.starter import EMBEDDING_NAME
from tests.e2e.server_process import ServerProcess, serving
from tests.embeddings.reference import NumpyBert
from tests.embeddings.test_reranking import cross_encoder
from tests.embeddings.tiny import config_of, random_weights, write_model

CHAT, CROSS = "tiny-chat", "tiny-cross"
THAT_CAN = "Models here that can:"
SAID = [{"role": "user", "content": "a"}]
RANK = {"model": CROSS, "query": "a", "documents": ["b"]}
CATS = "A cat sits on the mat."


@pytest.fixture(scope="module")
def server(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """MiniLM as the default model, which `serve` finds in its package, beside a reranker and a chat model."""
    home = tmp_path_factory.mktemp("home")
    chat = config_of("qwen3", architectures=["Qwen3ForCausalLM"])
    write_model(home / "models" / CHAT, minilm_folder, chat, random_weights(chat))
    cross_encoder(home / "models" / CROSS, minilm_folder, "bert")
    with serving(Path(EMBEDDING_NAME), home, "--no-use-spare") as running:
        yield running


@pytest.fixture(scope="module")
def expected(minilm_folder: Path) -> list[float]:
    return [float(number) for number in NumpyBert(minilm_folder).embed(CATS)]


def post(server: ServerProcess, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


def test_the_sdk_gets_the_vectors_in_its_own_base64_and_as_numbers(
    server: ServerProcess, expected: list[float]
) -> None:
    answer = server.sdk.embeddings.create(model=EMBEDDING_NAME, input=["Stocks fell.", CATS])
    assert [item.index for item in answer.data] == [0, 1]
    assert answer.model == EMBEDDING_NAME
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 5 + 9
    np.testing.assert_allclose(answer.data[1].embedding, expected, atol=1e-5)
    numbers = server.sdk.embeddings.create(model=EMBEDDING_NAME, input=CATS, encoding_format="float")
    np.testing.assert_allclose(numbers.data[0].embedding, expected, atol=1e-5)


def test_base64_is_the_bytes_of_the_numbers(server: ServerProcess) -> None:
    sent = {"model": EMBEDDING_NAME, "input": CATS}
    numbers = post(server, "/v1/embeddings", **sent).json()["data"][0]["embedding"]
    text = post(server, "/v1/embeddings", **sent, encoding_format="base64").json()["data"][0]["embedding"]
    assert list(struct.unpack("<384f", base64.b64decode(text))) == numbers


def test_token_ids_dimensions_and_lists_of_them(
    server: ServerProcess, expected: list[float], minilm_folder: Path
) -> None:
    token_ids = NumpyBert(minilm_folder).token_ids(CATS)
    for given in (token_ids, [token_ids]):
        answer = server.sdk.embeddings.create(model=EMBEDDING_NAME, input=given, dimensions=64)
        wanted = np.array(expected[:64]) / np.linalg.norm(expected[:64])
        np.testing.assert_allclose(answer.data[0].embedding, wanted, atol=1e-5)


def test_many_clients_at_once_get_each_their_own(server: ServerProcess) -> None:
    words = [f"the number {number} and {'more ' * (number % 7)}" for number in range(60)]
    alone = {word: server.sdk.embeddings.create(model=EMBEDDING_NAME, input=word).data[0] for word in words[:7]}
    steps_before = server.stats()["num_steps"]
    with ThreadPoolExecutor(30) as clients:
        answers = clients.map(lambda word: server.sdk.embeddings.create(model=EMBEDDING_NAME, input=word), words)
        together = {word: answer.data[0].embedding for word, answer in zip(words, answers, strict=True)}
    for word, embedding in alone.items():
        np.testing.assert_allclose(together[word], embedding.embedding, atol=1e-5)
    server.wait_until_idle()
    assert server.stats()["num_steps"] - steps_before < len(words)


def test_a_long_list_of_mixed_lengths_keeps_its_order(server: ServerProcess) -> None:
    texts = [f"{number} " * (1 + number % 20) for number in range(150)]
    answer = server.sdk.embeddings.create(model=EMBEDDING_NAME, input=texts)
    for index in (0, 19, 149):
        single = server.sdk.embeddings.create(model=EMBEDDING_NAME, input=texts[index])
        np.testing.assert_allclose(answer.data[index].embedding, single.data[0].embedding, atol=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        ("embeddings", {}, "input", "input is required"),
        ("embeddings", {"input": ""}, "input", "input cannot be ''"),
        ("embeddings", {"input": []}, "input", "at least 1 item"),
        ("embeddings", {"input": ["a", ""]}, "input[1]", "input[1] cannot be ''"),
        ("embeddings", {"input": ["a", 5]}, "input[1]", "input[1] cannot be 5"),
        ("embeddings", {"input": [[]]}, "input[0]", "at least 1 item"),
        ("embeddings", {"input": [-1]}, "input[0]", "input[0] cannot be -1"),
        ("embeddings", {"input": [99_999]}, "input", "the vocabulary of this model has 30522"),
        ("embeddings", {"input": ["a"] * 2049}, "input", "at most 2048 items"),
        ("embeddings", {"input": "word " * 300}, "input", "has 302 tokens, and this model takes 256"),
        ("embeddings", {"input": "a", "dimensions": 385}, "dimensions", "vectors of this model have 384"),
        ("embeddings", {"input": "a", "dimensions": 0}, "dimensions", "dimensions cannot be 0"),
        ("embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        ("embeddings", {"input": "a", "input_type": "other"}, "input_type", "'query', 'document'"),
        ("embeddings", {"input": "a", "task": "retrieval"}, "task", "Send input_type"),
        ("embeddings", {"input": "a", "model": CHAT}, "model", f"cannot embed texts. {THAT_CAN} {EMBEDDING_NAME}."),
        ("embeddings", {"input": "a", "model": CROSS}, "model", "a reranking model and cannot embed"),
        ("rerank", {**RANK, "model": EMBEDDING_NAME}, "model", f"cannot rank documents. {THAT_CAN} {CROSS}."),
        ("rerank", {"model": CROSS, "query": "", "documents": ["b"]}, "query", "query cannot be ''"),
        ("rerank", {"model": CROSS, "query": "a", "documents": []}, "documents", "at least 1 item"),
        ("rerank", {"model": CROSS, "query": "a", "documents": [5]}, "documents[0]", "documents[0] cannot be 5"),
        ("rerank", {**RANK, "top_n": 0}, "top_n", "top_n cannot be 0"),
        ("rerank", {**RANK, "rank_fields": ["c"]}, "rank_fields", "text is what"),
        ("rerank", {**RANK, "instruction": "c"}, "instruction", "no instruction"),
        ("chat/completions", {"messages": SAID}, "model", f"cannot generate text. {THAT_CAN} {CHAT}."),
        ("completions", {"prompt": "a"}, "model", "an embedding model and cannot generate text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    server: ServerProcess, path: str, body: dict[str, Any], param: str, message: str
) -> None:
    answer = post(server, f"/v1/{path}", **{"model": EMBEDDING_NAME, **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert message in error["message"]


def test_an_unknown_model_is_not_found(server: ServerProcess) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        server.sdk.embeddings.create(model="no-such-model", input="a")


def test_parameters_without_effect_are_named_and_harmless_ones_are_not(server: ServerProcess) -> None:
    answer = post(server, "/v1/embeddings", model=EMBEDDING_NAME, input="a", user="me", color="red")
    assert answer.headers["x-mlx-manager-ignored"] == "color"
    answer = post(
        server, "/v1/embeddings", model=EMBEDDING_NAME, input="word " * 300, truncate=True, input_type="query"
    )
    assert answer.json()["usage"]["prompt_tokens"] == 256
    assert "x-mlx-manager-ignored" not in answer.headers


def test_documents_are_ranked(server: ServerProcess) -> None:
    documents = ["stocks", "cats eat fish", {"text": "the sea"}, "cats eat fish"]
    sent = {"model": CROSS, "query": "who eats fish", "documents": documents}
    whole = post(server, "/v1/rerank", **sent).json()
    scores = [result["relevance_score"] for result in whole["results"]]
    order = [result["index"] for result in whole["results"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(order) == [0, 1, 2, 3]
    assert order.index(3) == order.index(1) + 1
    assert all(0 < score < 1 for score in scores)
    assert all("document" not in result for result in whole["results"])
    assert whole["usage"]["prompt_tokens"] == 4 * 6 + 1 + 3 + 2 + 3
    best = post(server, "/v1/rerank", **sent, top_n=2, return_documents=True).json()
    texts = ["stocks", "cats eat fish", "the sea", "cats eat fish"]
    assert best["results"] == [
        {**result, "document": {"text": texts[result["index"]]}} for result in whole["results"][:2]
    ]


def test_requests_are_accounted_for(server: ServerProcess) -> None:
    headers = {"x-request-id": "accounted"}
    httpx.post(
        f"{server.url}/v1/embeddings", json={"model": EMBEDDING_NAME, "input": CATS}, headers=headers, timeout=60
    )
    lines = [line for line in server.output.read_text().splitlines() if '"accounted"' in line]
    assert len(lines) == 1
    assert '"num_prompt_tokens":9' in lines[0]
    assert '"status":200' in lines[0]
