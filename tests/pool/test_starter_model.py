"""The pool with the real worker and the starter model."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from mlx_manager.backends.local import LocalBackend
from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.errors import ContextLengthExceeded, InvalidRequest, ModelLoadFailed, WorkerDied
from mlx_manager.hub import STARTER_NAME, Inventory
from mlx_manager.ir import (
    Answer,
    ChatPrompt,
    DetokenizeRequest,
    GenerationRequest,
    Message,
    PartDelta,
    PartKind,
    Role,
    Sampling,
    TextContent,
    TextPrompt,
    TokenizeRequest,
    fold,
)
from mlx_manager.pool import ModelPool, ModelState, runs_on_linux_cpu
from tests.pool.counting_pool import status_of, wait_for


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@asynccontextmanager
async def starter_pool(
    find_models: Callable[[], Sequence[ModelEntry]], state: Path, *, use_spare: bool = False
) -> AsyncIterator[ModelPool]:
    """A pool of real workers that loads the starter model at its start; its check's verdict is kept in `state`."""
    options = LoadOptions(kv_budget_bytes=64 * 1024**2, state_folder=str(state))
    pool = ModelPool(find_models, default_model=STARTER_NAME, options=options, use_spare=use_spare, spare_delay_s=0.0)
    try:
        await pool.start()
        yield pool
    finally:
        await pool.close()


def question(request_id: str, max_tokens: int, text: str = "What is the capital of France?") -> GenerationRequest:
    return GenerationRequest(
        request_id=request_id,
        model=STARTER_NAME,
        prompt=ChatPrompt(messages=(Message(role=Role.USER, content=(TextContent(text),)),)),
        sampling=Sampling(temperature=0.0, max_tokens=max_tokens),
    )


async def answer(pool: ModelPool, request: GenerationRequest) -> Answer:
    return await fold(LocalBackend(pool).generate(request), 1)


async def check_tokens(backend: LocalBackend, num_prompt_tokens: int) -> None:
    """Tokens are counted as the engine counts them, spelled, and put together again."""
    chat = TokenizeRequest(request_id="chat", model=STARTER_NAME, prompt=question("", 8).prompt)
    rendered = await backend.tokenize(chat)
    assert len(rendered.token_ids) == num_prompt_tokens
    assert "<|im_start|>user\nWhat is the capital of France?<|im_end|>" in rendered.text

    raw = TextPrompt(text="Ünï 🌍 <|im_start|>")
    words = TokenizeRequest(request_id="raw", model=STARTER_NAME, prompt=raw, wants_token_texts=True)
    tokens = await backend.tokenize(words)
    assert tokens.text == raw.text
    assert len(tokens.token_texts) == len(tokens.token_ids)
    assert tokens.token_texts[-1] == "<|im_start|>"
    back = DetokenizeRequest(request_id="back", model=STARTER_NAME, token_ids=tokens.token_ids)
    assert (await backend.tokenize(back)).text == raw.text
    with pytest.raises(InvalidRequest, match="token 49152 is not in the model's vocabulary"):
        await backend.tokenize(DetokenizeRequest(request_id="out", model=STARTER_NAME, token_ids=(49152,)))


def copy_without_weights(folder: Path, copy: Path) -> None:
    shutil.copytree(folder, copy)
    for weights in copy.glob("*.safetensors"):
        weights.write_bytes(b"")


async def test_the_starter_model_answers_dies_and_answers_again(starter_home: Path, state: Path) -> None:
    async with starter_pool(Inventory(starter_home).entries, state, use_spare=True) as pool:
        answered = await answer(pool, question("first", 8))
        assert "Paris" in answered.choices[0].text_of(PartKind.TEXT)
        status = status_of(pool, STARTER_NAME)
        assert status.state is ModelState.READY
        assert status.report is not None
        assert status.report.max_context <= 8192

        await check_tokens(LocalBackend(pool), answered.usage.num_prompt_tokens)

        async with pool.lease(STARTER_NAME) as worker:
            hello = worker.hello
        assert hello is not None
        assert hello.pid == worker.pid
        assert not runs_on_linux_cpu() or (hello.blas is not None and "openblas" in hello.blas)

        async with aclosing(LocalBackend(pool).generate(question("second", 500, "Count to a hundred."))) as events:
            async for event in events:
                if isinstance(event, PartDelta):
                    break
            os.kill(worker.pid, signal.SIGKILL)
            with pytest.raises(WorkerDied, match="SIGKILL"):
                async for _ in events:
                    pass
        again = await answer(pool, question("third", 8))
        assert again.choices == answered.choices
        status = status_of(pool, STARTER_NAME)
        assert (status.state, status.num_worker_deaths) == (ModelState.READY, 1)
        assert status.worker_pid != worker.pid


async def test_requests_of_the_starter_model_run_together_and_abort_alone(starter_home: Path, state: Path) -> None:
    async with starter_pool(Inventory(starter_home).entries, state) as pool:
        alone = await answer(pool, question("alone", 24))
        abandoned = asyncio.create_task(answer(pool, question("abandoned", 1000, "Tell a long story.")))
        together = [asyncio.create_task(answer(pool, question(f"together-{i}", 24))) for i in range(3)]
        await wait_for(lambda: (stats := status_of(pool, STARTER_NAME).stats) is not None and stats.num_running == 4)
        abandoned.cancel()
        for task in together:
            assert (await task).choices == alone.choices
        with pytest.raises(ContextLengthExceeded):
            await answer(pool, question("too long", 8, "word " * 9000))
        stats = status_of(pool, STARTER_NAME).stats
        assert stats is not None
        assert stats.num_aborted_requests == 1
        assert stats.num_blocks_used == 0


async def test_a_folder_without_weights_is_refused_with_the_reason(starter_home: Path, tmp_path: Path) -> None:
    entry = Inventory(starter_home).find(STARTER_NAME)
    copy_without_weights(Path(entry.path), tmp_path / "empty")
    empty = msgspec.structs.replace(entry, path=str(tmp_path / "empty"))
    async with starter_pool(lambda: [empty], tmp_path / "state") as pool:
        with pytest.raises(
            ModelLoadFailed, match=f"'{STARTER_NAME}' could not be loaded: .* is not a safetensors file"
        ):
            await answer(pool, question("a", 1))
        assert status_of(pool, STARTER_NAME).state is ModelState.FAILED
        assert status_of(pool, STARTER_NAME).num_worker_deaths == 0
