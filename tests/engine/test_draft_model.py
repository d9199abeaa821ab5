"""A draft model beside the target, on the host: answers stay what they were, and it is given just what it lacks.

Where the draft model is the target itself, every guess comes true, greedy and seeded, unless a slot of its arena holds
what does not belong there; one of another vocabulary is wrong most of the time.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_manager.engine.config import Lookahead
from mlx_manager.engine.draft_watch import DraftSource
from mlx_manager.engine.requests import EngineRequest, TokenEvent
from mlx_manager.engine.sequence import SamplingParams
from tests.engine.host_arena import Oracle
from tests.engine.host_guesser import HostGuesser
from tests.engine.test_engine_mixes import VOCABULARY, House, Visit, answers_alone, plain, run_mix, visits

GREEDY = SamplingParams(temperature=0.0)
unstopped = visits.map(lambda visit: replace(visit, stops=None))
"""What a stop string cuts off is the worker's business, which is handed all tokens of a step."""


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    mix=st.lists(unstopped, min_size=1, max_size=8),
    is_same=st.booleans(),
    spoiled=st.sampled_from((None, 0, 1, 3)),
    limits=st.tuples(st.integers(4, 20), st.integers(1, 9), st.sampled_from((16, 48, 512))),
    lookahead=st.sampled_from(Lookahead),
)
def test_every_request_gets_the_tokens_it_gets_alone(
    mix: list[Visit], is_same: bool, spoiled: int | None, limits: tuple[int, int, int], lookahead: Lookahead
) -> None:
    num_blocks, max_draft_tokens, max_step_tokens = limits
    house = drafted(
        num_blocks,
        is_same=is_same,
        spoiled=spoiled,
        lookahead=lookahead,
        max_draft_tokens=max_draft_tokens,
        max_step_tokens=max_step_tokens,
    )
    run_mix(house, mix)
    if is_same and not any(visit.has_eos or visit.aborts is not None for visit in mix):
        assert house.engine.drafting.counters[DraftSource.MODEL].num_accepted == house.guesser.num_sound


@pytest.mark.parametrize("spoiled", [None, 2])
@pytest.mark.parametrize("lookahead", list(Lookahead))
def test_of_the_target_itself_every_guess_comes_true(lookahead: Lookahead, spoiled: int | None) -> None:
    """Forks, a shared prefix, a pool too small for all, and prompts that are longer than what one step gives it.

    So does every guess before one that is spoiled: what that left behind is gone by the next draft.
    """
    house = drafted(7, spoiled=spoiled, lookahead=lookahead, max_draft_tokens=5, max_step_tokens=48)
    mix = {
        "forked": plain(60, 60, params=(GREEDY, SamplingParams(seed=1), SamplingParams(seed=2))),
        "long": plain(110, 60),
        "again": plain(110, 40, params=(SamplingParams(seed=3),)),
    }
    for name, visit in mix.items():
        house.add(name, visit)
        house.step()
        house.step()
    house.finish()
    oracle = Oracle(VOCABULARY)
    for name, visit in mix.items():
        tokens = house.received[name].tokens
        assert [tokens[choice] for choice in range(len(visit.params))] == answers_alone(visit, oracle)
    counters = house.engine.drafting.counters[DraftSource.MODEL]
    assert house.engine.scheduler.num_preemptions > 0
    assert counters.num_accepted == house.guesser.num_sound > 30
    assert (counters.num_accepted < counters.num_drafted) == (spoiled is not None)


def test_a_prompt_seen_before_is_not_given_to_it_again() -> None:
    house = drafted(20)
    for name in ("first", "second"):
        guesser = house.guesser
        before = guesser.num_given
        house.add(name, plain(96, 40))
        house.finish()
        num_given = guesser.num_given - before
    assert num_given <= 32 + 40  # the last block that was not full, and the answer


@pytest.mark.parametrize("reason", ["its context is shorter", "the prompt holds more than tokens", "none are guessed"])
def test_what_it_cannot_read_it_is_not_given(reason: str) -> None:
    house = drafted(20, max_context=100, max_draft_tokens=0 if reason == "none are guessed" else 6)
    has_image = reason == "the prompt holds more than tokens"
    house.engine.add(
        EngineRequest(
            request_id="one",
            prompt_token_ids=(0, 1, 2) * 10,
            params=(GREEDY,),
            max_output_tokens=20 if has_image else 90,
            inputs=object() if has_image else None,
            prefix_ids=(-1, 1, 2) * 10 if has_image else (),
        )
    )
    num_tokens = 0
    while house.engine.has_work:
        num_tokens += sum(isinstance(event, TokenEvent) for event in house.engine.step())
    assert num_tokens == (20 if has_image else 90)
    if reason == "its context is shorter":
        assert 0 < house.guesser.num_given <= 100
    else:
        assert house.guesser.num_given == 0


def test_where_it_did_not_pay_it_is_not_given_the_next_prompts_at_once() -> None:
    house = drafted(20, spoiled=0)
    house.add("first", plain(96, 60))
    house.finish()
    assert house.guesser.num_given > 90
    before = house.guesser.num_given
    house.add("short", plain(20, 25, tail=(7, 7)))
    house.finish()
    assert house.guesser.num_given == before
    house.add("long", plain(20, 200, tail=(6, 6)))
    house.finish()
    assert house.guesser.num_given > before


def test_after_a_trim_it_begins_anew() -> None:
    house, oracle = drafted(20), Oracle(VOCABULARY)
    for name in ("first", "second"):
        house.add(name, plain(96, 40))
        house.finish()
        assert [house.received[name].tokens[0]] == answers_alone(plain(96, 40), oracle)
        house.engine.step()
        house.engine.trim()
    counters = house.engine.drafting.counters[DraftSource.MODEL]
    assert counters.num_accepted == counters.num_drafted > 0


class DraftedHouse(House):
    """A house whose engine has a draft model."""

    guesser: HostGuesser


def drafted(
    num_blocks: int,
    *,
    is_same: bool = True,
    spoiled: int | None = None,
    lookahead: Lookahead = Lookahead.NONE,
    max_draft_tokens: int = 6,
    max_step_tokens: int = 512,
    max_context: int = 1 << 20,
) -> DraftedHouse:
    guesser = HostGuesser(num_blocks, VOCABULARY if is_same else VOCABULARY - 1, spoiled)
    guesser.max_context = max_context
    house = DraftedHouse(
        num_blocks,
        lookahead=lookahead,
        max_step_tokens=max_step_tokens,
        max_draft_tokens=max_draft_tokens,
        draft_model=guesser,
    )
    house.guesser = guesser
    return house
