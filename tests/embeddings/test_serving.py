"""Requests share passes by length, take turns, and can be taken back in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_manager.catalog import LoadOptions
from mlx_manager.ipc import Embedded, FromWorker, RequestFailed
from mlx_manager.ir import EmbeddingRequest
from mlx_manager.models.embedding import Embedder
from mlx_manager.models.encoder import Item
from mlx_manager.worker.embedding import EmbeddingServing
from tests.embeddings.tiny import config_of, load_embedder, random_weights, write_model


class WatchedEmbedder(Embedder):
    """Remembers the lengths of the texts of each pass; breaks on the text `break`."""

    passes: list[list[int]]

    def compute(self, items: Sequence[Item]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The vectors."""
        self.passes.append([len(item.token_ids) for item in items])
        if any(list(item.token_ids) == [101, 3338, 102] for item in items):
            raise RuntimeError("planted")
        return super().compute(items)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    config = config_of("bert")
    return write_model(tmp_path_factory.mktemp("models") / "tiny", minilm_folder, config, random_weights(config))


@pytest.fixture
def embedder(tiny: Path) -> WatchedEmbedder:
    embedder = WatchedEmbedder(load_embedder(tiny).encoder)
    embedder.passes = []
    return embedder


def serve(embedder: Embedder, **options: Any) -> EmbeddingServing[EmbeddingRequest]:
    return EmbeddingServing(embedder, EmbeddingRequest, LoadOptions(**options))


def request(name: str, *texts: str) -> EmbeddingRequest:
    return EmbeddingRequest(request_id=name, model="m", inputs=texts)


def words(*counts: int) -> list[str]:
    return [" ".join(["fish"] * count) for count in counts]


def step(serving: EmbeddingServing[EmbeddingRequest]) -> list[RequestFailed | Embedded]:
    """What one step answered."""
    messages: list[FromWorker] = []
    serving.publish = messages.append
    serving.step()
    return [message for message in messages if isinstance(message, RequestFailed | Embedded)]


def run(serving: EmbeddingServing[EmbeddingRequest]) -> list[list[str]]:
    """The requests that each step answered."""
    answered = []
    while serving.has_work:
        answered.append([message.request_id for message in step(serving)])
    return answered


def test_texts_of_like_length_run_together_whoever_asked(embedder: WatchedEmbedder) -> None:
    serving = serve(embedder)
    for name, counts in (("a", (2, 40)), ("b", (3,)), ("c", (41, 4))):
        assert serving.submit(request(name, *words(*counts))) is None
    assert [sorted(names) for names in run(serving)] == [["b"], ["a", "c"]]
    assert [sorted(lengths) for lengths in embedder.passes] == [[4, 5, 6], [42, 43]]
    stats = serving.stats()
    assert (stats.num_steps, stats.num_finished_requests, stats.num_prompt_tokens) == (2, 3, 100)


def test_a_short_request_does_not_wait_for_a_long_list(embedder: WatchedEmbedder) -> None:
    serving = serve(embedder, max_step_tokens=64)
    serving.submit(request("list", *words(*[30] * 400)))
    serving.step()
    serving.submit(request("short", *words(2)))
    answered = run(serving)
    assert answered[:2] in ([["short"], []], [[], ["short"]])
    assert answered[-1] == ["list"]
    assert all(len(lengths) * max(lengths) <= 16_384 for lengths in embedder.passes)


def test_a_request_taken_back_is_computed_no_further(embedder: WatchedEmbedder) -> None:
    serving = serve(embedder, max_step_tokens=64)
    serving.submit(request("list", *words(*[30] * 400)))
    serving.step()
    serving.abort("list")
    serving.abort("never sent")
    assert not serving.has_work
    assert serving.stats().num_aborted_requests == 1
    assert sum(map(len, embedder.passes)) < 400


def test_a_text_that_is_too_long_fails_its_request_wherever_it_stands(embedder: WatchedEmbedder) -> None:
    serving = serve(embedder)
    early = serving.submit(request("early", *words(200)))
    assert early is not None
    assert early.error.code == "context_length_exceeded"
    assert serving.submit(request("late", *words(*[2] * 300, 200))) is None
    assert serving.submit(request("other", *words(3))) is None
    messages = []
    while serving.has_work:
        messages += step(serving)
    by_name = {message.request_id: message for message in messages}
    assert isinstance(by_name["other"], Embedded)
    failure = by_name["late"]
    assert isinstance(failure, RequestFailed)
    assert failure.error.message.startswith("input[300] has 202 tokens")


def test_a_pass_that_breaks_fails_the_requests_in_it_and_no_others(embedder: WatchedEmbedder) -> None:
    serving = serve(embedder)
    serving.submit(request("broken", "break"))
    serving.submit(request("with it", *words(2)))
    serving.submit(request("longer", *words(40)))
    first = step(serving)
    assert [(type(message), message.request_id) for message in first] == [
        (RequestFailed, "broken"),
        (RequestFailed, "with it"),
    ]
    assert run(serving) == [["longer"]]


def test_a_full_queue_refuses(embedder: WatchedEmbedder) -> None:
    serving = serve(embedder, max_queued_requests=1, max_batch_size=1)
    refused = [serving.submit(request(name, "fish")) for name in ("a", "b", "c")]
    assert refused[:2] == [None, None]
    assert refused[2] is not None
    assert refused[2].error.code == "queue_full"
    again = serving.submit(request("a", "fish"))
    assert again is not None
    assert again.error.code == "invalid_request"
