"""A mix of requests to three models on a server whose memory budget fits two of them, and what it did to the memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import psutil
import pytest

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.hub.starter import EMBEDDING_NAME
from mlx_manager.pool.memory import MemoryPlan, measure_process, predict_here
from tests.e2e.server_process import PATIENCE_S, ServerProcess

OPTIONS = LoadOptions(kv_budget_bytes=64 * 1024**2, max_context=1024)
"""With long contexts the activations that a plan counts are so much that trims alone would make the room."""
OPTION_FLAGS = ("--kv-budget", str(OPTIONS.kv_budget_bytes), "--max-context", str(OPTIONS.max_context))
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
    server: ServerProcess, phases: Sequence[tuple[str, str]], requests_per_phase: int, *, broken: str | None = None
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
            if broken is not None:
                try:
                    await ask(client, broken, phase)
                except openai.InternalServerError as error:
                    mix.errors.append(str(error))
            await timed(models[1], phase, phase)
    return mix
