"""The socket between gateway and worker, both ends in one process."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import zmq

from mlx_manager.ipc import (
    Abort,
    EngineStats,
    FromWorker,
    GatewayChannel,
    Hello,
    RequestEvents,
    StepDone,
    Stop,
    WorkerChannel,
)
from mlx_manager.ir import PartDelta
from tests.pool.counting_pool import wait_for


class Ends:
    """The two ends and what the gateway's has heard."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self.messages: list[FromWorker] = []
        self.garbage: list[str] = []
        self.gateway = GatewayChannel(context, address, self.messages.append, self.garbage.append)
        self.worker = WorkerChannel.connect(address)

    async def heard(self, num_messages: int) -> None:
        await wait_for(lambda: len(self.messages) + len(self.garbage) >= num_messages)


@asynccontextmanager
async def ends() -> AsyncIterator[Ends]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with tempfile.TemporaryDirectory() as folder:
        both = Ends(context, f"ipc://{Path(folder) / 's'}")
        yield both
        both.worker.close()
        both.gateway.close()
        both.gateway.close()
    context.term()


def step(number: int) -> StepDone:
    return StepDone((RequestEvents("r", (PartDelta(0, f"é{number}"),)),), EngineStats(num_steps=number))


async def test_messages_arrive_in_order_in_both_directions() -> None:
    async with ends() as both:
        sent = [step(number) for number in range(1000)]
        for message in sent:
            both.worker.send(message)
        await both.heard(1000)
        assert both.messages == sent
        for number in range(1000):
            assert both.gateway.send(Abort(f"r{number}"))
        assert [both.worker.poll(5) for _ in range(1000)] == [Abort(f"r{number}") for number in range(1000)]


async def test_nothing_is_missed_while_both_ends_send() -> None:
    async with ends() as both:
        both.worker.send(step(0))
        await both.heard(1)
        for number in range(1, 500):
            both.worker.send(step(number))
            both.gateway.send(Abort("r"))
            await asyncio.sleep(0)
        await both.heard(500)


async def test_poll_waits_no_longer_than_it_was_told() -> None:
    async with ends() as both:
        loop = asyncio.get_running_loop()
        took_s = []
        for _ in range(5):
            begin_s = loop.time()
            assert both.worker.poll() is None
            took_s.append(loop.time() - begin_s)
        # one that another process was in the way of says nothing
        assert min(took_s) < 0.04
        begin_s = loop.time()
        assert both.worker.poll(0.05) is None
        assert 0.04 < loop.time() - begin_s < 5


async def test_send_says_when_no_worker_is_connected() -> None:
    async with ends() as both:
        both.worker.send(step(0))
        await both.heard(1)
        both.worker.close()
        await wait_for(lambda: not both.gateway.send(Stop()))


async def test_a_frame_that_is_no_message_is_reported_once() -> None:
    async with ends() as both:
        both.worker.send(Stop())  # type: ignore[arg-type]
        both.worker.send(Hello(pid=1, device="", blas=None, versions={}))
        await both.heard(1)
        await asyncio.sleep(0.05)
        assert both.messages == []
        assert len(both.garbage) == 1
        assert "'stop'" in both.garbage[0]
