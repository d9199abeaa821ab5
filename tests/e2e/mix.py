"""A mix of requests to three models on a server whose memory budget fits two of them, and what it did to the memory."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.hub.starter import EMBEDDING_NAME
from mlx_manager.pool.memory import MemoryPlan, measure_process, predict_here
from tests.e2e.server_process import PATIENCE_S, ServerProcess, wait_until
from tests.e2e.tiny_model import make_tiny_model

OPTIONS = LoadOptions(kv_budget_bytes=64 * 1024**2, max_context=1024)
"""With long contexts the activations that a plan counts are so much that trims alone would make the room."""
OPTION_FLAGS = ("--kv-budget", str(OPTIONS.kv_budget_bytes), "--max-context", str(OPTIONS.max_context))
BROKEN = "broken"
"""The name of the model that cannot be loaded."""
NUM_CLIENTS = 8
NUM_PHASES = 4


@dataclass
class Mix:
    """How one went."""

    num_answered: int = 0
    errors: list[str] = field(default_factory=list)
    """Of the model that is broken."""
    waits_s: dict[tuple[int, str], float] = field(default_factory=dict)
    """The longest request of each phase and model: with one that had to be loaded, what the switch took."""


def phases_of(first: str, second: str, third: str) -> Sequence[tuple[str, str]]:
    """Each needs the second model of the one before and another; its last request is one to its own second model."""
    return ((first, second), (second, third), (third, first), (first, second))


def switches_of(first: str, second: str, third: str) -> list[tuple[str, str, bool]]:
    """(who goes, for whom, whether only its caches), in the order in which they have to: least recently used first."""
    return [(first, third, False), (second, first, False), (third, second, False)]


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
    """What the budget counts for a model."""
    return MemoryPlan(OPTIONS, predict_here(entry, OPTIONS)).num_bytes


def admin(server: ServerProcess, path: str) -> Any:
    """What GET /admin/… answers."""
    return httpx.get(f"{server.url}/admin/{path}", timeout=PATIENCE_S).raise_for_status().json()


def evictions(server: ServerProcess) -> list[tuple[str, str, bool]]:
    """As `switches_of`, what happened."""
    log = [(one["model"], one["for_model"], one["is_trim"]) for one in admin(server, "evictions")["evictions"]]
    return log[::-1]


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


async def play(
    server: ServerProcess, phases: Sequence[tuple[str, str]], requests_per_phase: int, *, with_broken: bool = False
) -> Mix:
    """So many requests in each phase by eight clients, to its two models in turn, and one to the broken model."""
    mix = Mix()
    async with server.async_sdk() as client:

        async def timed(model: str, number: int, phase: int) -> None:
            started_s = time.monotonic()
            await ask(client, model, number)
            mix.num_answered += 1
            key = (phase, model)
            mix.waits_s[key] = max(mix.waits_s.get(key, 0.0), time.monotonic() - started_s)

        async def one_client(work: Iterator[str], phase: int) -> None:
            for number, model in enumerate(work):
                await timed(model, phase * 100 + number, phase)

        for phase, models in enumerate(phases):
            work = iter([models[index % 2] for index in range(requests_per_phase - 1)])
            await asyncio.gather(*(one_client(work, phase) for _ in range(NUM_CLIENTS)))
            if with_broken:
                try:
                    await ask(client, BROKEN, phase)
                except openai.InternalServerError as error:
                    mix.errors.append(str(error))
            await timed(models[1], phase, phase)
    return mix


def make_broken_model(folder: Path, starter_folder: Path) -> None:
    """A model folder whose weights break off."""
    make_tiny_model(folder, starter_folder, 0)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def assert_broken_was_told(server: ServerProcess, mix: Mix) -> None:
    """Each phase's request to the broken model got an error that names it and says why."""
    assert len(mix.errors) == NUM_PHASES
    assert all(BROKEN in error and "breaks off" in error for error in mix.errors)
    assert admin(server, f"models/{BROKEN}")["state"] == "failed"


async def kill_during_load(server: ServerProcess, name: str, other: str) -> None:
    """The worker of `name`, which is cold, is killed while it loads: that is told, and `other` and a next try work."""
    async with server.async_sdk() as client:
        asked = asyncio.create_task(ask(client, name, 1))
        deadline_s = time.monotonic() + 30
        while not (status := admin(server, f"models/{name}"))["worker_pid"]:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.02)
        assert status["state"] == "loading"
        os.kill(status["worker_pid"], signal.SIGKILL)
        with pytest.raises(openai.InternalServerError, match=r"SIGKILL.*A request will try again in"):
            await asked
        assert admin(server, f"models/{name}")["state"] == "failed"
        await ask(client, other, 2)
        wait_until(lambda: admin(server, f"models/{name}")["retry_in_s"] == 0, 10, lambda: "no retry")
        await ask(client, name, 3)
