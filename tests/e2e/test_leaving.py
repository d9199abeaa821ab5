"""Clients that go away, workers that are killed, queues that are full: what is left of them on a real server."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.server_process import ServerProcess, serving, wait_until

STORY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]
FRANCE: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def narrow_server(starter_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that answers one request at a time and lets three wait."""
    flags = ("--max-batch-size", "1", "--max-queued-requests", "3", "--no-use-spare")
    with serving(starter_folder, tmp_path_factory.mktemp("narrow"), *flags) as running:
        yield running


async def test_fifty_clients_that_leave_at_random_leave_nothing(idle_server: ServerProcess) -> None:
    chance = random.Random(50)
    aborted = idle_server.stats()["num_aborted_requests"]

    async def leave(index: int) -> None:
        # A third ask with so long a prompt that they leave while it is prefilled.
        words = chance.choice((5, 50, 900))
        body = {
            "model": idle_server.model,
            "messages": [{"role": "user", "content": f"{index} " + "tell me more " * words}],
            "stream": chance.random() < 0.6,
            "n": chance.choice((1, 1, 3)),
            "ignore_eos": True,
            "max_tokens": 500,
        }
        await asyncio.sleep(chance.uniform(0, 3))
        try:
            async with (
                asyncio.timeout(chance.uniform(0.05, 4)),
                httpx.AsyncClient(timeout=None) as client,
                client.stream("POST", f"{idle_server.url}/v1/chat/completions", json=body) as response,
            ):
                assert response.status_code == 200
                async for _ in response.aiter_bytes():
                    pass
            raise AssertionError("a request of 500 tokens was over before its client left")
        except TimeoutError:
            pass

    await asyncio.gather(*(leave(index) for index in range(50)))
    idle_server.wait_until_idle(within_s=10)
    stats = idle_server.stats()
    assert stats["num_aborted_requests"] > aborted
    assert stats["num_blocks_free"] + stats["num_blocks_cached"] == stats["num_blocks_total"]
    answer = idle_server.sdk.chat.completions.create(model=idle_server.model, messages=FRANCE, temperature=0)
    assert answer.choices[0].message.content == "The capital of France is Paris."


def test_a_killed_worker_ends_its_stream_and_the_next_request_finds_another(idle_server: ServerProcess) -> None:
    client = idle_server.sdk
    before = idle_server.model_health()
    stream = client.chat.completions.create(
        model=idle_server.model, messages=STORY, stream=True, extra_body={"ignore_eos": True}, max_tokens=2000
    )
    next(stream)
    os.kill(before["worker_pid"], signal.SIGKILL)
    with pytest.raises(openai.APIError, match="SIGKILL") as died:
        for _ in stream:
            pass
    assert died.value.code == "worker_died"
    assert httpx.get(f"{idle_server.url}/health").json()["status"] == "ok"
    answer = client.chat.completions.create(model=idle_server.model, messages=FRANCE, temperature=0)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    after = idle_server.model_health()
    assert after["worker_pid"] != before["worker_pid"]
    assert after["num_worker_deaths"] == before["num_worker_deaths"] + 1
    assert idle_server.is_ready()


async def test_a_full_queue_refuses_and_says_when_to_come_back(narrow_server: ServerProcess) -> None:
    async with narrow_server.async_sdk() as client:

        async def ask(max_tokens: int) -> None:
            await client.chat.completions.create(
                model=narrow_server.model, messages=STORY, max_tokens=max_tokens, extra_body={"ignore_eos": True}
            )

        await ask(1)
        await ask(1)
        running = asyncio.create_task(ask(1000))
        await until(lambda: narrow_server.stats()["num_running"] == 1)
        waiting = [asyncio.create_task(ask(1)) for _ in range(3)]
        await until(lambda: narrow_server.stats()["num_waiting"] == 3)
        for is_streamed in (False, True):
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(model=narrow_server.model, messages=STORY, stream=is_streamed)
            assert refused.value.code == "queue_full"
            assert int(refused.value.response.headers["retry-after"]) >= 1
        running.cancel()
        await asyncio.gather(*waiting)
    narrow_server.wait_until_idle()


async def test_who_waits_is_served_by_priority(narrow_server: ServerProcess) -> None:
    order: list[str] = []
    async with narrow_server.async_sdk() as client:

        def has_waiting(count: int) -> bool:
            return bool(narrow_server.stats()["num_waiting"] == count)

        async def ask(priority: str, max_tokens: int) -> None:
            await client.chat.completions.create(
                model=narrow_server.model,
                messages=FRANCE,
                max_tokens=max_tokens,
                extra_headers={"X-Priority": priority},
                extra_body={"ignore_eos": True},
            )
            order.append(priority)

        running = asyncio.create_task(ask("normal", 1000))
        await until(lambda: narrow_server.stats()["num_running"] == 1)
        waiting = []
        for count, priority in enumerate(("low", "normal", "high"), 1):
            waiting.append(asyncio.create_task(ask(priority, 2)))
            await until(partial(has_waiting, count))
        running.cancel()
        await asyncio.gather(*waiting)
    assert order == ["high", "normal", "low"]
    narrow_server.wait_until_idle()


async def until(is_so: Callable[[], object]) -> None:
    """`wait_until`, in a thread, so that the requests of this loop go on."""
    await asyncio.to_thread(wait_until, is_so, 30, time.ctime)
