"""What the scheduler does in situations picked by hand; `test_scheduler_machine` finds the others. No MLX."""

from __future__ import annotations

from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.sequence import SamplingParams, Status
from mlx_manager.ir import Priority
from tests.engine.test_scheduler_machine import Driver

GREEDY = (SamplingParams(temperature=0.0),)


def seeds(num_choices: int) -> tuple[SamplingParams, ...]:
    return tuple(SamplingParams(seed=seed) for seed in range(num_choices))


def prompt(first: int, num_blocks: float) -> tuple[int, ...]:
    """A prompt of its own for each `first`."""
    return (first,) * int(num_blocks * BLOCK_SIZE)


def test_a_choice_ended_before_its_start_stays_ended_when_its_leader_is_preempted() -> None:
    driver = Driver(num_blocks=4, max_batch_size=8, max_step_tokens=2, modes=(False, True))
    none = frozenset[int]()
    driver.add(prompt(1, 0.9), 80, GREEDY, priority=Priority.HIGH, eos_token_ids=none)
    driver.add(prompt(2, 2), 8, seeds(3), priority=Priority.LOW, eos_token_ids=none)
    leader, fork = driver.requests[1][:2]
    while leader.status is Status.WAITING:
        driver.step()
    driver.end([fork], "stopped")
    while driver.scheduler.num_preemptions == 0:
        assert leader.is_prefilling
        driver.step()
    assert leader in driver.scheduler.waiting
    assert fork.status is Status.FINISHED
    driver.drain()
    assert len(fork.token_ids) == fork.num_prompt_tokens


def test_a_copy_of_a_state_is_used_only_by_steps_after_the_one_that_makes_it() -> None:
    driver = Driver(num_blocks=12, max_batch_size=8, max_step_tokens=512, modes=(False, True), num_checkpoints=8)
    none = frozenset[int]()
    for tail in (5, 6, 7):
        driver.add((*prompt(1, 2), tail, tail), 4, GREEDY, eos_token_ids=none)
    driver.drain()
    second, third = driver.requests[1][0], driver.requests[2][0]
    assert second.num_cached_tokens == third.num_cached_tokens == 2 * BLOCK_SIZE
