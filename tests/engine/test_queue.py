"""The waiting queue and the pacer: urgent first, nothing starves, and prefill never takes what is not there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_manager.engine.pacing import StepPacer
from mlx_manager.engine.queue import WaitingQueue, turn_s
from mlx_manager.engine.sequence import SamplingParams, Sequence
from mlx_manager.ir import Priority

_URGENT_FIRST = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
seconds = st.floats(0, 1e6, allow_nan=False)


def waiting(seq_id: int, priority: Priority, arrival_s: float) -> Sequence:
    return Sequence(
        seq_id=seq_id,
        request_id=str(seq_id),
        choice=0,
        token_ids=[1],
        num_prompt_tokens=1,
        max_output_tokens=1,
        eos_token_ids=frozenset(),
        params=SamplingParams(),
        priority=priority,
        arrival_s=arrival_s,
    )


arrivals = st.lists(st.tuples(st.sampled_from(Priority), st.integers(0, 40)), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(arrivals=arrivals, leaves=st.lists(st.integers(0, 11)), ageing_s=st.sampled_from((0.0, 1.0, 5.0)))
def test_the_order_is_by_turn_whoever_leaves(
    arrivals: list[tuple[Priority, int]], leaves: list[int], ageing_s: float
) -> None:
    queue = WaitingQueue(ageing_s)
    present = [waiting(index, priority, float(at_s)) for index, (priority, at_s) in enumerate(arrivals)]
    for seq in present:
        queue.push(seq)
    for index in leaves:
        leaving = next((seq for seq in present if seq.seq_id == index), None)
        if leaving is not None:
            present.remove(leaving)
            queue.remove(leaving)
            with pytest.raises(ValueError, match="does not wait"):
                queue.remove(leaving)
    assert len(queue) == len(present)
    expected = sorted(present, key=lambda seq: (turn_s(seq.priority, seq.arrival_s, ageing_s), seq.seq_id))
    assert list(queue) == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(arrival_s=seconds, later_s=seconds, ageing_s=seconds, levels=st.tuples(*[st.sampled_from(_URGENT_FIRST)] * 2))
def test_two_ageings_later_is_always_after(
    arrival_s: float, later_s: float, ageing_s: float, levels: tuple[Priority, Priority]
) -> None:
    queue = WaitingQueue(ageing_s)
    first = waiting(1, levels[0], arrival_s)
    second = waiting(2, levels[1], arrival_s + 2 * ageing_s + later_s)
    assert queue.turn_of(first) < queue.turn_of(second)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(arrival_s=seconds, later_s=seconds, ageing_s=st.floats(0.1, 100))
def test_turns_follow_arrival_within_a_priority_and_priority_within_an_arrival(
    arrival_s: float, later_s: float, ageing_s: float
) -> None:
    for priority in _URGENT_FIRST:
        assert turn_s(priority, arrival_s, ageing_s) <= turn_s(priority, arrival_s + later_s, ageing_s)
    high, normal, low = (turn_s(priority, arrival_s, ageing_s) for priority in _URGENT_FIRST)
    assert high < normal < low


steps = st.lists(
    st.tuples(st.integers(0, 64), st.integers(0, 600), st.one_of(st.just(0.0), st.floats(0, 1e9), st.just(5e-324)))
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(max_step_tokens=st.integers(1, 600), steps=steps, num_decode_tokens=st.integers(0, 700))
def test_the_budget_is_what_is_left_of_a_step_at_most(
    max_step_tokens: int, steps: list[tuple[int, int, float]], num_decode_tokens: int
) -> None:
    pacer = StepPacer(max_step_tokens)
    for num_decode, num_prefill, step_s in steps:
        pacer.observe(num_decode_tokens=num_decode, num_prefill_tokens=num_prefill, step_s=step_s)
    budget = pacer.prefill_budget(num_decode_tokens)
    room = max(0, max_step_tokens - num_decode_tokens)
    assert min(room, 1) <= budget <= room
    if num_decode_tokens == 0:
        assert budget == max_step_tokens


def test_a_step_with_prefill_takes_at_most_twice_as_long() -> None:
    decode_step_s, prefill_token_s = 0.010, 0.000_1
    pacer = StepPacer(512, max_slowdown=2.0)
    for _ in range(50):
        pacer.observe(num_decode_tokens=8, num_prefill_tokens=0, step_s=decode_step_s)
        num_prefill = pacer.prefill_budget(8)
        step_s = decode_step_s + num_prefill * prefill_token_s
        pacer.observe(num_decode_tokens=8, num_prefill_tokens=num_prefill, step_s=step_s)
    assert pacer.prefill_budget(8) == pytest.approx(decode_step_s / prefill_token_s, rel=0.05)


def test_many_who_wait_slow_the_few_who_run_up_to_a_bound() -> None:
    pacer = StepPacer(5000, max_slowdown=2.0, max_stall_s=0.3)
    pacer.observe(num_decode_tokens=2, num_prefill_tokens=0, step_s=0.1)
    pacer.observe(num_decode_tokens=2, num_prefill_tokens=100, step_s=0.2)
    assert pacer.prefill_budget(1, 1) == pacer.prefill_budget(5, 2) == pytest.approx(100, abs=1)
    assert pacer.prefill_budget(2, 2) == pacer.prefill_budget(2, 40) == pytest.approx(300, abs=1)


def test_a_step_that_only_tidies_up_teaches_nothing() -> None:
    pacer = StepPacer(512)
    pacer.observe(num_decode_tokens=4, num_prefill_tokens=0, step_s=0.010)
    pacer.observe(num_decode_tokens=4, num_prefill_tokens=100, step_s=0.020)
    before = pacer.prefill_budget(4)
    for _ in range(20):
        pacer.observe(num_decode_tokens=0, num_prefill_tokens=0, step_s=0.000_01)
    assert pacer.prefill_budget(4) == before


def test_a_pacer_needs_room_for_a_token() -> None:
    with pytest.raises(ValueError, match="at least one"):
        StepPacer(0)
