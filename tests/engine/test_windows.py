"""Models all of whose attention has a window: blocks that it has passed are given back, and nobody misses them."""

from __future__ import annotations

import pytest

from mlx_manager.engine.blocks import BLOCK_SIZE, HOLE
from mlx_manager.engine.config import EngineConfig
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.engine.windows import Window, longest_window
from tests.engine.host_arena import HostArena
from tests.engine.host_runner import HostRunner
from tests.engine.test_scheduler_machine import VOCABULARY, Driver

WINDOW, STEP = 40, 64
MOST_HELD = Window(WINDOW, STEP).max_held_blocks
LONG = tuple((index // 7) % VOCABULARY for index in range(600))
GREEDY = (SamplingParams(temperature=0.0),)
SEEDS = tuple(SamplingParams(seed=seed) for seed in range(3))


def windowed(num_blocks: int, *, is_pipelined: bool = False, num_checkpoints: int | None = None) -> Driver:
    return Driver(num_blocks, 8, STEP, (is_pipelined, True), num_checkpoints=num_checkpoints, window=WINDOW)


def ask(driver: Driver, params: tuple[SamplingParams, ...] = GREEDY, prompt: tuple[int, ...] = LONG) -> None:
    driver.add(prompt, 100, params, eos_token_ids=frozenset[int]())


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_a_sequence_holds_no_more_than_its_window_and_a_chunk(is_pipelined: bool) -> None:
    driver = windowed(MOST_HELD, is_pipelined=is_pipelined)
    ask(driver)
    [seq] = driver.requests[0]
    held = []
    while driver.scheduler.has_work:
        driver.step()
        driver.scheduler.check_integrity()
        held.append(driver.scheduler.blocks.num_used)
    assert max(held) <= MOST_HELD < len(LONG) // BLOCK_SIZE
    assert len(seq.token_ids) == len(LONG) + 100
    assert driver.scheduler.num_preemptions == 0


@pytest.mark.parametrize("num_checkpoints", [None, 8])
def test_a_prefix_is_found_though_only_its_end_is_still_there(num_checkpoints: int | None) -> None:
    driver = windowed(MOST_HELD + 2, num_checkpoints=num_checkpoints)
    ask(driver)
    driver.drain()
    [seq] = driver.requests[0]
    assert driver.scheduler.tables.prefix.find(seq.block_keys[0]) is None
    ask(driver, prompt=tuple(seq.token_ids[:-1]))
    driver.step()
    [again] = driver.requests[1]
    assert again.num_cached_tokens >= len(LONG) - BLOCK_SIZE
    assert again.block_table[0] == HOLE
    driver.drain()


def test_forks_and_preempted_sequences_go_on_behind_their_holes() -> None:
    driver = windowed(MOST_HELD)
    for first in range(2):
        ask(driver, SEEDS, prompt=(first, *LONG))
    for _ in range(4000):
        if not driver.scheduler.has_work:
            break
        driver.step()
        driver.scheduler.check_integrity()
    driver.drain()
    assert driver.scheduler.num_preemptions > 0


def test_a_block_from_a_prompt_is_zeroed_before_another_sequence_gets_it() -> None:
    driver = windowed(MOST_HELD)
    ask(driver)
    [seq] = driver.requests[0]
    passed: set[int] = set()
    scrubbed: set[int] = set()
    while seq.num_output_tokens < 10:
        before = list(seq.block_table)
        batch = driver.scheduler.schedule()
        scrubbed.update(batch.scrubs)
        assert {*batch.segments[0].block_table} & passed <= scrubbed
        passed |= {block for block, now in zip(before, seq.block_table, strict=False) if now == HOLE and block != HOLE}
        [token] = driver.arena.run(batch, []) or [None]
        if token is not None:
            driver.scheduler.commit_token(seq, token)
    assert passed
    assert scrubbed


def test_the_engine_takes_requests_that_are_longer_than_its_blocks() -> None:
    def engine(window: int | None) -> Engine:
        config = EngineConfig(num_blocks=MOST_HELD, max_step_tokens=STEP, window=window)
        return Engine(HostRunner(HostArena(MOST_HELD, VOCABULARY, window=window)), config)

    request = EngineRequest(request_id="long", prompt_token_ids=LONG, params=GREEDY, max_output_tokens=5)
    with pytest.raises(ValueError, match="do not fit"):
        engine(None).add(request)
    with pytest.raises(ValueError, match="do not fit"):
        engine(WINDOW + 2 * BLOCK_SIZE).add(request)
    passing = engine(WINDOW)
    assert passing.capacity_tokens > len(LONG) + 5
    passing.add(request)
    num_tokens = 0
    while passing.has_work:
        num_tokens += len(passing.step())
    assert num_tokens == 5


def test_only_a_window_in_every_layer_counts() -> None:
    assert longest_window([12, 40, 12]) == 40
    assert longest_window([12, None]) is None
    assert longest_window([]) is None
