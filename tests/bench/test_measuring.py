"""The bench against a real HTTP server on loopback that streams with known delays."""

import pytest

from mlx_manager.bench import WORKLOADS, Prose, Scale, ServerRefused, first_model, measure, tokens_per_word
from tests.bench.slow_server import FIRST_S, STEP_S, SlowServer, listening

WORKLOAD = {workload.name: workload for workload in WORKLOADS}


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
