"""Models that mix windows with full attention: slots of passed blocks go to others, and nobody misses them.

`test_scheduler_machine` brings about every order of events; here is what it should come to.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_manager.catalog import split_kv_budget
from mlx_manager.engine.blocks import BLOCK_SIZE, HOLE
from mlx_manager.engine.config import Lookahead
from mlx_manager.engine.residency import Residency
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.engine.windows import Window, WindowSlots
from tests.engine.host_arena import POISON
from tests.engine.test_engine_mixes import VOCABULARY, House, Visit, plain, run_mix, run_with_bad, visits
from tests.engine.test_scheduler_machine import Driver

WINDOW, STEP = 40, 64
MOST_HELD = Window(WINDOW, STEP).max_held_blocks
LONG = tuple((index // 7) % VOCABULARY for index in range(600))
GREEDY = (SamplingParams(temperature=0.0),)


def mixed(num_slots: int, *, num_blocks: int = 48, is_pipelined: bool = False) -> Driver:
    return Driver(num_blocks, 8, STEP, (is_pipelined, True), window=WINDOW, num_slots=num_slots)


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_a_sequence_pins_no_more_than_its_window_and_a_chunk(is_pipelined: bool) -> None:
    driver = mixed(MOST_HELD, is_pipelined=is_pipelined)
    driver.add(LONG, 100, GREEDY, eos_token_ids=frozenset[int]())
    driver.drain()
    [seq] = driver.requests[0]
    assert len(seq.token_ids) == len(LONG) + 100
    assert driver.scheduler.num_preemptions == 0
    assert len(LONG) // BLOCK_SIZE > MOST_HELD


@pytest.mark.parametrize(("num_slots", "is_found"), [(MOST_HELD, False), (2 * MOST_HELD, True)])
def test_a_prefix_is_a_hit_while_its_window_has_slots(num_slots: int, is_found: bool) -> None:
    driver = mixed(num_slots)
    driver.add(LONG, 1, GREEDY, eos_token_ids=frozenset[int]())
    driver.drain()
    driver.add(LONG[::-1][:200], 1, GREEDY, eos_token_ids=frozenset[int]())
    driver.drain()
    driver.add((*LONG, 1, 2, 3), 1, GREEDY, eos_token_ids=frozenset[int]())
    driver.step()
    [again] = driver.requests[2]
    assert (again.num_cached_tokens >= len(LONG) // BLOCK_SIZE * BLOCK_SIZE) == is_found
    driver.drain()


def test_a_slot_from_a_prompt_is_zeroed_before_another_block_gets_it() -> None:
    driver = mixed(MOST_HELD)
    driver.add(LONG, 100, GREEDY, eos_token_ids=frozenset[int]())
    [seq] = driver.requests[0]
    holders: dict[int, int] = {}
    num_reused = 0
    while seq.num_output_tokens < 10:
        batch = driver.scheduler.schedule()
        [segment] = batch.segments
        for block, slot in zip(segment.block_table, segment.table(WINDOW), strict=True):
            if slot != HOLE and holders.get(slot, block) != block:
                assert slot in batch.slot_scrubs
                num_reused += 1
            holders[slot] = block
        [token] = driver.arena.run(batch, []) or [None]
        if token is not None:
            driver.scheduler.commit_token(seq, token)
    assert num_reused > MOST_HELD


def test_fewer_slots_than_one_sequence_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 2"):
        Residency(2, Window(WINDOW, STEP))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    mix=st.lists(visits, min_size=1, max_size=6),
    more_slots=st.integers(0, 6),
    lookahead=st.sampled_from(Lookahead),
    max_step_tokens=st.sampled_from((1, 16, 48)),
    num_drafts=st.sampled_from((0, 0, 3)),
)
def test_every_request_gets_the_tokens_it_gets_alone(
    mix: list[Visit], more_slots: int, lookahead: Lookahead, max_step_tokens: int, num_drafts: int
) -> None:
    slots = WindowSlots(Window(20, max_step_tokens).max_held_blocks + more_slots, 20)
    house = House(20, lookahead=lookahead, max_step_tokens=max_step_tokens, max_draft_tokens=num_drafts, slots=slots)
    run_mix(house, mix)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    mix=st.lists(visits, min_size=1, max_size=4),
    bad=st.lists(st.tuples(st.integers(0, 70), st.integers(1, 100), st.integers(0, 20)), min_size=1, max_size=3),
    more_slots=st.integers(0, 4),
    lookahead=st.sampled_from(Lookahead),
)
def test_values_that_are_not_finite_reach_nobody_through_a_slot(
    mix: list[Visit], bad: list[tuple[int, int, int]], more_slots: int, lookahead: Lookahead
) -> None:
    slots = WindowSlots(Window(20, 16).max_held_blocks + more_slots, 20)
    house = House(24, max_step_tokens=16, slots=slots, lookahead=lookahead)
    everyone = {str(index): visit for index, visit in enumerate(mix)}
    for index, (num_shared, num_behind, comes) in enumerate(bad):
        # Its windows have passed the bad value long before a token shows that it is there.
        tail = (POISON, *(1,) * num_behind)
        everyone[f"bad {index}"] = plain(num_shared, 10, tail=tail, comes=comes, params=GREEDY)
    run_with_bad(house, everyone, {name for name in everyone if name.startswith("bad")})


@pytest.mark.parametrize(
    ("budget", "num_wanted", "split"),
    [
        # 100 blocks of all layers: three quarters of the slots, so that 5 of 6 bytes hold 2.25 times the blocks
        (600, 100, (225, 75)),
        # a sequence of 300 blocks has to fit
        (600, 300, (300, 60)),
        # but two windows have slots, whatever is wanted
        (600, 5000, (500, 20)),
        # no more than a full batch holds
        (60_000, 100, (58_400, 320)),
        # too little to be worth it
        (120, 5000, None),
    ],
)
def test_a_budget_is_split(budget: int, num_wanted: int, split: tuple[int, int] | None) -> None:
    found = split_kv_budget(budget, block_bytes=1, slot_bytes=5, num_held=10, max_batch_size=32, num_wanted=num_wanted)
    assert (found and (found.num_blocks, found.num_slots)) == split


def test_a_budget_is_whole_where_one_kind_of_layer_keeps_nothing() -> None:
    for block_bytes, slot_bytes in ((0, 5), (5, 0)):
        found = split_kv_budget(
            600, block_bytes=block_bytes, slot_bytes=slot_bytes, num_held=1, max_batch_size=1, num_wanted=1
        )
        assert found is None
