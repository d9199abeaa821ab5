"""The bench against a real HTTP server on loopback that streams with known delays."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mlx_manager.bench import WORKLOADS, Prose, Scale, ServerRefused, Target, first_model, measure, tokens_per_word

FIRST_S = 0.10
STEP_S = 0.02
WORKLOAD = {workload.name: workload for workload in WORKLOADS}


class SlowServer:
    """Answers after FIRST_S, then one word each STEP_S. Two tokens a word; counts what it was asked."""

    def __init__(self, *, sends_usage: bool = True, breaks_after: int | None = None, status: int = 200) -> None:
        self.bodies: list[dict[str, object]] = []
        self.num_open = 0
        self.most_open = 0
        self._sends_usage = sends_usage
        self._breaks_after = breaks_after
        self._status = status

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if head.startswith("GET /v1/models "):
            await self._send(writer, "application/json", json.dumps({"data": [{"id": "slow"}]}))
        else:
            length = next(int(line.split(":")[1]) for line in head.lower().split("\r\n") if "content-length" in line)
            self.bodies.append(json.loads(await reader.readexactly(length)))
            self.num_open += 1
            self.most_open = max(self.most_open, self.num_open)
            await self._stream(writer, self.bodies[-1])
            self.num_open -= 1
        writer.close()
        await writer.wait_closed()

    async def _send(self, writer: asyncio.StreamWriter, kind: str, text: str) -> None:
        head = f"HTTP/1.1 {self._status} X\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n"
        writer.write((head + text).encode())
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter, body: dict[str, object]) -> None:
        if self._status != 200:
            await self._send(writer, "application/json", json.dumps({"error": {"message": "no room"}}))
            return
        await self._send(writer, "text/event-stream", ": a comment\n\n")
        await self._event(writer, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        messages = body["messages"]
        assert isinstance(messages, list)
        num_words = body["max_tokens"]
        assert isinstance(num_words, int)
        for place in range(num_words):
            await asyncio.sleep(STEP_S if place else FIRST_S)
            if place == self._breaks_after:
                await self._event(writer, {"error": {"message": "the worker died"}})
                return
            await self._event(writer, {"choices": [{"delta": {"content": f"word{place} "}}]})
        if self._sends_usage:
            num_prompt = 2 * sum(len(message["content"].split()) for message in messages)
            usage = {
                "prompt_tokens": num_prompt,
                "completion_tokens": num_words,
                "prompt_tokens_details": {"cached_tokens": 7},
            }
            await self._event(writer, {"choices": [], "usage": usage})
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    async def _event(self, writer: asyncio.StreamWriter, chunk: object) -> None:
        writer.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await writer.drain()


@asynccontextmanager
async def listening(slow: SlowServer) -> AsyncIterator[Target]:
    async with await asyncio.start_server(slow.answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield Target(f"http://127.0.0.1:{port}", "slow")


async def test_a_single_stream_gives_the_servers_own_times() -> None:
    slow = SlowServer()
    async with listening(slow) as target:
        measurement = await measure(target, WORKLOAD["single"], Prose(1), Scale(max_tokens=10))
    figures = measurement.figures
    assert measurement.errors == ()
    assert (figures.num_requests, figures.num_failed, figures.num_completion_tokens) == (1, 0, 10)
    assert figures.num_cached_tokens == 7
    assert figures.ttft_p50_s is not None
    assert FIRST_S <= figures.ttft_p50_s < FIRST_S + 1.0
    assert figures.inter_token_p50_s is not None
    assert 0.5 * STEP_S < figures.inter_token_p50_s < STEP_S + 0.5
    assert figures.wall_s >= FIRST_S + 9 * 0.9 * STEP_S
    assert figures.output_tokens_per_s == pytest.approx(10 / figures.wall_s)


async def test_requests_are_greedy_streamed_and_ask_for_usage() -> None:
    slow = SlowServer()
    async with listening(slow) as target:
        await measure(target, WORKLOAD["single"], Prose(1), Scale(max_tokens=2))
    body = slow.bodies[0]
    assert body["model"] == "slow"
    assert (body["temperature"], body["stream"], body["max_tokens"]) == (0.0, True, 2)
    assert body["stream_options"] == {"include_usage": True}


async def test_eight_at_once_are_open_together() -> None:
    slow = SlowServer()
    async with listening(slow) as target:
        measurement = await measure(target, WORKLOAD["eight"], Prose(1), Scale(max_tokens=10))
    assert slow.most_open == 8
    assert measurement.figures.num_completion_tokens == 80


async def test_a_chat_sends_its_answers_back() -> None:
    slow = SlowServer()
    async with listening(slow) as target:
        measurement = await measure(target, WORKLOAD["chat"], Prose(1), Scale(max_tokens=2))
    assert measurement.figures.num_requests == 5
    assert slow.most_open == 1
    last = slow.bodies[-1]["messages"]
    assert isinstance(last, list)
    assert [message["role"] for message in last] == ["user", "assistant"] * 4 + ["user"]
    assert last[1]["content"] == "word0 word1 "


async def test_the_long_prompt_comes_while_the_others_run() -> None:
    slow = SlowServer()
    async with listening(slow) as target:
        measurement = await measure(target, WORKLOAD["interrupted"], Prose(1), Scale(max_tokens=12))
    assert slow.most_open == 5
    assert max(range(5), key=lambda place: len(str(slow.bodies[place]["messages"]))) == 4, "the long one is sent last"
    interruption = measurement.figures.interruption
    assert interruption is not None
    assert interruption.idle_p95_s is not None
    assert interruption.during_p95_s is not None
    assert interruption.intruder_ttft_s is not None
    assert interruption.intruder_ttft_s >= FIRST_S


async def test_pieces_are_counted_when_no_usage_comes() -> None:
    async with listening(SlowServer(sends_usage=False)) as target:
        measurement = await measure(target, WORKLOAD["single"], Prose(1), Scale(max_tokens=5))
        with pytest.raises(ServerRefused, match="no usage"):
            await tokens_per_word(target)
    assert measurement.figures.num_completion_tokens == 5
    assert measurement.figures.num_prompt_tokens == 0


async def test_an_error_in_a_stream_is_a_failure() -> None:
    async with listening(SlowServer(breaks_after=3)) as target:
        measurement = await measure(target, WORKLOAD["single"], Prose(1), Scale(max_tokens=5))
    assert measurement.figures.num_failed == 1
    assert "the worker died" in measurement.errors[0]


async def test_a_refusal_is_a_failure_with_its_status() -> None:
    async with listening(SlowServer(status=503)) as target:
        measurement = await measure(target, WORKLOAD["four"], Prose(1), Scale(max_tokens=5))
        with pytest.raises(ServerRefused, match="503"):
            await tokens_per_word(target)
    assert measurement.figures.num_failed == 4
    assert measurement.errors == ('HTTP 503: {"error": {"message": "no room"}}',)


async def test_a_server_that_is_not_there_is_a_failure() -> None:
    async with listening(SlowServer()) as target:
        pass
    measurement = await measure(target, WORKLOAD["single"], Prose(1), Scale(max_tokens=5))
    assert measurement.figures.num_failed == 1
    assert measurement.errors


async def test_tokens_per_word_and_the_models_name_are_asked_for() -> None:
    async with listening(SlowServer()) as target:
        assert await tokens_per_word(target) == pytest.approx(2.0)
        assert await first_model(target.url) == "slow"
