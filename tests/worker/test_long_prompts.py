"""Long texts are encoded beside the answers that run, and no further than it takes to find out that they do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from mlx_lm.utils import load_tokenizer

from mlx_manager.catalog import LoadOptions
from mlx_manager.hub import Inventory
from mlx_manager.ipc import FromWorker, RequestFailed, StepDone, Tokenized
from mlx_manager.ir import Finished, GenerationRequest, PromptReady, Sampling, TextPrompt, TokenizeRequest, TokenPrompt
from mlx_manager.models.encoding import TextEncoder
from mlx_manager.worker.load import load
from mlx_manager.worker.serving import Serving
from tests.worker.test_half_precision import write_tiny_llama

FOX = "The quick 狐 jumps over the lazy dog.\n"
FITTING = FOX * 450
"""More characters than are encoded at once, fewer tokens than the context holds."""
FAR_TOO_LONG = "ab " * 500_000
NUM_CONTEXT = 16_384


@pytest.fixture(scope="module")
def loaded(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    home = tmp_path_factory.mktemp("home")
    write_tiny_llama(home / "models" / "tiny", starter_folder, max_position_embeddings=NUM_CONTEXT)
    (entry,) = Inventory(home).entries()
    serving, _ = load(entry, LoadOptions(kv_budget_bytes=64 * 1024**2), lambda stage, fraction: None)
    assert isinstance(serving, Serving)
    assert serving.max_context == NUM_CONTEXT
    return serving


class Heard:
    """What a serving published, by request and in order."""

    def __init__(self, serving: Serving) -> None:
        self.prompts: dict[str, int] = {}
        self.finished: list[str] = []
        self.failed: dict[str, str] = {}
        self.tokenized: dict[str, Tokenized] = {}
        self.num_steps = 0
        self._serving = serving
        serving.publish = self._take

    def run(self) -> None:
        """Until there is nothing left to do."""
        while self._serving.has_work:
            self._serving.step()

    def _take(self, message: FromWorker) -> None:
        if isinstance(message, RequestFailed):
            self.failed[message.request_id] = message.error.code
        elif isinstance(message, Tokenized):
            self.tokenized[message.request_id] = message
        elif isinstance(message, StepDone):
            self.num_steps += 1
            for delta in message.deltas:
                for event in delta.events:
                    if isinstance(event, PromptReady):
                        self.prompts[delta.request_id] = event.num_prompt_tokens
                    elif isinstance(event, Finished):
                        self.finished.append(delta.request_id)


@pytest.fixture
def heard(loaded: Serving) -> Iterator[Heard]:
    """With nothing left behind."""
    heard = Heard(loaded)
    yield heard
    heard.run()
    assert loaded.stats().num_running == loaded.stats().num_waiting == 0


def asked(request_id: str, text: str, num_tokens: int = 2) -> GenerationRequest:
    sampling = Sampling(max_tokens=num_tokens, temperature=0.0, ignore_eos=True)
    return GenerationRequest(request_id=request_id, model="tiny", prompt=TextPrompt(text=text), sampling=sampling)


def test_answers_go_on_while_a_text_that_does_not_fit_is_found_out(loaded: Serving, heard: Heard) -> None:
    assert loaded.submit(asked("running", FOX, 4000)) is None
    loaded.step()
    # not at once: that would be after seconds in which nobody else is served
    assert loaded.submit(asked("long", FAR_TOO_LONG)) is None
    assert loaded.submit(asked("short", FOX)) is None
    num_before = heard.num_steps
    while "long" not in heard.failed or "short" not in heard.finished:
        assert "running" not in heard.finished
        loaded.step()
    assert heard.num_steps > num_before
    assert heard.failed == {"long": "context_length_exceeded"}
    loaded.abort("running")


def test_long_prompts_keep_their_order_and_all_their_tokens(
    loaded: Serving, heard: Heard, starter_folder: Path
) -> None:
    texts = [f"{FITTING}{number}" for number in range(3)]
    for number, text in enumerate(texts):
        assert loaded.submit(asked(f"r{number}", text)) is None
    refused = loaded.submit(asked("r1", FOX))
    assert refused is not None
    assert "r1" in refused.error.message
    heard.run()
    tokenizer = load_tokenizer(starter_folder)
    assert list(heard.prompts.items()) == [(f"r{n}", len(tokenizer.encode(text))) for n, text in enumerate(texts)]
    assert heard.finished == ["r0", "r1", "r2"]


def test_a_request_that_is_aborted_meanwhile_is_forgotten(loaded: Serving, heard: Heard) -> None:
    for request_id in ("first", "second"):
        assert loaded.submit(asked(request_id, FITTING)) is None
        loaded.abort(request_id)
    assert not loaded.has_work
    assert loaded.submit(asked("first", FITTING)) is None
    heard.run()
    assert (heard.finished, heard.failed) == (["first"], {})


def test_a_long_text_is_counted_beside_the_answers(loaded: Serving, heard: Heard, starter_folder: Path) -> None:
    def ask(request_id: str, text: str) -> TokenizeRequest:
        return TokenizeRequest(request_id=request_id, model="tiny", prompt=TextPrompt(text=text))

    assert loaded.tokenize(ask("long", FITTING)) is None
    assert loaded.tokenize(ask("endless", "ab " * 2_000_000)) is None
    short = loaded.tokenize(ask("short", FOX))
    assert short is not None
    heard.run()
    tokenizer = load_tokenizer(starter_folder)
    assert short.token_ids == tuple(tokenizer.encode(FOX))
    assert heard.tokenized["long"].tokens.token_ids == tuple(tokenizer.encode(FITTING))
    assert heard.failed == {"endless": "context_length_exceeded"}


def test_more_tokens_than_the_context_holds_are_not_looked_at(loaded: Serving) -> None:
    sampling = Sampling(max_tokens=1)
    prompt = TokenPrompt(token_ids=(-1,) * (NUM_CONTEXT + 1))
    refused = loaded.submit(GenerationRequest(request_id="r", model="tiny", prompt=prompt, sampling=sampling))
    assert refused is not None
    assert (refused.error.code, refused.error.param) == ("context_length_exceeded", "prompt")


def test_no_more_of_a_text_is_encoded_than_tells_that_it_is_too_long(starter_folder: Path) -> None:
    encoder = TextEncoder(load_tokenizer(starter_folder))
    text = "ab " * 1_000_000
    head = encoder.head(text, 10_000)
    assert 10_000 < len(encoder.encode(head)) < 60_000
    assert encoder.head(text[:40_000], 10_000) == text[:40_000]
    with pytest.raises(CancelledError):
        encoder.head(text, 10_000, lambda: False)
