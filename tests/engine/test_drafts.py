"""Drafts come from the sequence's own text, and only while they pay."""

from __future__ import annotations

from mlx_manager.engine.drafts import Drafter, StepCosts

CHEAP = StepCosts(step_s=0.060, row_s=0.005)


def test_a_guess_is_what_followed_the_last_time() -> None:
    drafter = Drafter([1, 2, 3, 4, 5, 9, 1, 2], 8)
    assert drafter.guess(3) == [3, 4, 5]
    drafter.observe(3)
    assert drafter.guess(2) == [4, 5]
    assert Drafter([1, 2, 3], 8).guess(3) == []


def test_the_longest_match_counts() -> None:
    drafter = Drafter([7, 1, 2, 3, 5, 5, 8, 2, 3, 6, 6, 7, 1, 2, 3], 8)
    assert drafter.guess(1) == [5]


def test_a_draft_is_as_long_as_it_pays() -> None:
    drafter = Drafter([1, 2] * 20, 6)
    assert drafter.num_worth(None, 1) == 0
    for token in [1, 2] * 30:
        drafter.observe(token)
    assert drafter.rate > 0.95
    assert drafter.num_worth(CHEAP, 1) == 6
    # Beside fifteen others a row earns too little.
    assert drafter.num_worth(StepCosts(step_s=0.150, row_s=0.012), 16) == 0
    drafter.observe(100)
    before = drafter.rate
    for token in range(101, 140):
        drafter.observe(token)  # nothing to guess: nothing to learn
    assert drafter.rate == before
    hopeless = Drafter([1, 2, 3, 1, 2, 4] * 3, 6)
    for token in (5, 1, 2, 6, 1, 2, 7, 1, 2, 8, 1, 2, 9, 1, 2, 10, 1, 2, 11, 1, 2, 12, 1, 2, 13):
        hopeless.observe(token)
    assert hopeless.rate < 0.2
    assert hopeless.num_worth(StepCosts(step_s=0.060, row_s=0.020), 1) == 0
