"""The worker's loop hears every command, whenever it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from mlx_manager.catalog import LoadOptions, ModelEntry
from mlx_manager.ipc import (
    Abort,
    EngineStats,
    FromWorker,
    Generate,
    Load,
    Loaded,
    RequestFailed,
    ServingReport,
    StepDone,
    Stop,
    Trim,
    Trimmed,
)
from mlx_manager.ir import DetokenizeRequest, GenerationRequest, TextPrompt, TokenizeRequest, Tokens
from mlx_manager.worker.__main__ import WorkerMain
from tests.pool.counting_pool import wait_for
from tests.pool.test_channel import ends

ENTRY = ModelEntry(
    name="m", path="/m", created_unix_s=0, size_bytes=0, architecture="none", quantization="none", max_context=None
)
REPORT = ServingReport(
    path="sequential",
    reason="",
    attention="",
    dtype="float32",
    max_context=1,
    weights_bytes=0,
    kv_bytes_per_token=0,
    kv_budget_bytes=0,
    load_s=0.0,
)
REQUEST = GenerationRequest(request_id="r", model="m", prompt=TextPrompt(text=""))


class OneStep:
    """A served model whose requests take one step, and take in what comes a while after it began."""

    request_type: type[Any] = GenerationRequest
    publish: Callable[[FromWorker], None]

    def __init__(self, step_s: float) -> None:
        self.has_work = False
        self.is_stepping = False
        self.num_trims = 0
        self._step_s = step_s

    def submit(self, request: GenerationRequest) -> RequestFailed | None:
        self.has_work = True
        return None

    def tokenize(self, request: TokenizeRequest | DetokenizeRequest) -> Tokens:
        raise NotImplementedError

    def abort(self, request_id: str) -> None:
        self.has_work = False

    def step(self, take_in: Callable[[], object] | None = None) -> None:
        self.is_stepping = True
        time.sleep(self._step_s)
        if take_in is not None:
            take_in()
        self.has_work = self.is_stepping = False
        self.publish(StepDone((), self.stats()))

    def tidy(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def trim(self) -> None:
        assert not self.has_work
        self.num_trims += 1

    def stats(self) -> EngineStats:
        return EngineStats(num_steps=self.num_trims)


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_trim_is_answered_also_when_it_comes_in_the_last_step(is_busy: bool) -> None:
    model = OneStep(step_s=0.3)
    async with ends() as both:
        main = WorkerMain(both.worker, lambda entry, options, report: (model, REPORT))
        life = asyncio.create_task(asyncio.to_thread(main.run))
        await both.heard(1)
        both.gateway.send(Load(ENTRY, LoadOptions()))
        await wait_for(lambda: any(isinstance(message, Loaded) for message in both.messages))
        if is_busy:
            both.gateway.send(Generate(REQUEST))
            await wait_for(lambda: model.is_stepping)
        both.gateway.send(Trim())
        try:
            await wait_for(lambda: Trimmed(EngineStats(num_steps=1)) in both.messages, 5)
        finally:
            both.gateway.send(Stop())
            assert await life == 0
    assert model.num_trims == 1


class NothingLeft(OneStep):
    """Has nothing more to say of a step in which all its requests were aborted, as the engine has not."""

    def step(self, take_in: Callable[[], object] | None = None) -> None:
        self.is_stepping = True
        time.sleep(self._step_s)
        if take_in is not None:
            take_in()
        self.is_stepping = False

    def stats(self) -> EngineStats:
        return EngineStats(num_waiting=int(self.has_work))


async def test_the_books_are_told_when_a_step_takes_in_the_last_abort() -> None:
    model = NothingLeft(step_s=0.3)
    async with ends() as both:
        main = WorkerMain(both.worker, lambda entry, options, report: (model, REPORT))
        life = asyncio.create_task(asyncio.to_thread(main.run))
        await both.heard(1)
        both.gateway.send(Load(ENTRY, LoadOptions()))
        await wait_for(lambda: any(isinstance(message, Loaded) for message in both.messages))
        both.gateway.send(Generate(REQUEST))
        await wait_for(lambda: model.is_stepping)
        both.gateway.send(Abort("r"))
        try:
            await wait_for(lambda: StepDone((), EngineStats(num_waiting=0)) in both.messages, 5)
        finally:
            both.gateway.send(Stop())
            assert await life == 0
