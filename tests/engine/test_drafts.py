"""Drafts come from the sequence's own text, and only while they pay."""

from __future__ import annotations

from collections.abc import Iterable

from mlx_manager.engine.drafts import Drafter, StepCosts

CHEAP = StepCosts(step_s=0.060, row_s=0.005)


def test_a_guess_is_what_followed_the_last_time() -> None:
    text = [1, 2, 3, 4, 5, 9, 1, 2]
    drafter = Drafter(text, 8)
    assert drafter.guess(3) == [3, 4, 5]
    text.append(3)
    drafter.observe()
    assert drafter.guess(2) == [4, 5]
    assert Drafter([1, 2, 3], 8).guess(3) == []


def test_the_longest_match_counts() -> None:
    drafter = Drafter([7, 1, 2, 3, 5, 5, 8, 2, 3, 6, 6, 7, 1, 2, 3], 8)
    assert drafter.guess(1) == [5]


def test_a_draft_is_as_long_as_it_pays() -> None:
    text = [1, 2] * 20
    drafter = Drafter(text, 6)
    assert drafter.num_worth(None, 1) == 0
    go_on(drafter, text, [1, 2] * 30)
    assert drafter.rate > 0.95
    assert drafter.num_worth(CHEAP, 1) == 6
    # Beside fifteen others a row earns too little.
    assert drafter.num_worth(StepCosts(step_s=0.150, row_s=0.012), 16) == 0
    go_on(drafter, text, [100])
    before = drafter.rate
    go_on(drafter, text, range(101, 140))  # nothing to guess: nothing to learn
    assert drafter.rate == before
    text = [1, 2, 3, 1, 2, 4] * 3
    hopeless = Drafter(text, 6)
    go_on(hopeless, text, (5, 1, 2, 6, 1, 2, 7, 1, 2, 8, 1, 2, 9, 1, 2, 10, 1, 2, 11, 1, 2, 12, 1, 2, 13))
    assert hopeless.rate < 0.2
    assert hopeless.num_worth(StepCosts(step_s=0.060, row_s=0.020), 1) == 0


def go_on(drafter: Drafter, text: list[int], token_ids: Iterable[int]) -> None:
    """The text goes on, and the drafter watches."""
    for token_id in token_ids:
        text.append(token_id)
        drafter.observe()
