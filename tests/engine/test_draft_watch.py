"""Guessing stops by itself where it is slower, by what is measured, and is tried again."""

from __future__ import annotations

from mlx_manager.engine.draft_watch import DraftSource, DraftWatch
from mlx_manager.engine.drafts import ModelDrafts, StepCosts

MODEL, TEXT = DraftSource.MODEL, DraftSource.TEXT


def test_what_is_slower_stops_and_is_tried_again_ever_later() -> None:
    watch = watching()
    rests = []
    for _ in range(3):
        num_steps = steps_until(watch, num_tokens=3, step_s=0.4)
        assert num_steps >= 8
        assert "7.5 tokens/s with guesses and 10 without, with 1 running" in watch.reason(MODEL)
        assert watch.may(TEXT, 1), "only this source was slower"
        assert watch.may(MODEL, 16), "and only beside so many"
        rests.append(rest(watch))
        assert watch.reason(MODEL) == ""
    assert rests == [64, 128, 256]


def test_what_is_faster_goes_on_and_the_plain_pace_is_measured_now_and_then() -> None:
    watch = watching()
    num_looks = 0
    for _ in range(400):
        if watch.may(MODEL, 1):
            watch.observe_drafted(MODEL, 1, 3, 0.2)
        else:
            num_looks += 1
            watch.observe_plain(1, 0.1)
    assert watch.reason(MODEL) == ""
    assert 4 <= num_looks <= 12


def test_the_pace_that_it_is_held_against_follows_what_becomes_of_it() -> None:
    """Plain steps become faster: what was worth it is not any more."""
    watch = watching()
    for _ in range(400):
        if watch.may(MODEL, 1):
            watch.observe_drafted(MODEL, 1, 3, 0.2)
        else:
            watch.observe_plain(1, 0.02)
        if watch.reason(MODEL):
            break
    assert watch.reason(MODEL)


def test_a_sequence_for_which_it_does_not_pay_is_tried_again_later() -> None:
    costs = StepCosts(step_s=0.060, row_s=0.002, draft_pass_s=0.010)
    drafts = ModelDrafts(6, 0.7)
    assert drafts.num_worth(costs, 1, 100) > 2
    num_tokens = 100
    rests = []
    for _ in range(3):
        while length := drafts.num_worth(costs, 1, num_tokens):
            drafts.learn(length, 0, costs, 1, num_tokens)
            num_tokens += 1
        resting = num_tokens
        while not drafts.num_worth(costs, 1, num_tokens):
            num_tokens += 1
        assert drafts.num_worth(costs, 1, num_tokens) == 2
        rests.append(num_tokens - resting)
    assert rests[0] < rests[1] < rests[2] <= 512
    # Once guesses come true again it is asked for as many as pay.
    for _ in range(40):
        drafts.learn(2, 2, costs, 1, num_tokens)
    assert drafts.num_worth(costs, 1, num_tokens + 600) == 6
    # A pass of the draft model as long as the target's step never pays, however right it is.
    slow = StepCosts(step_s=0.060, row_s=0.002, draft_pass_s=0.060)
    sure = ModelDrafts(6, 1.0)
    sure.learn(6, 6, slow, 1, 10)
    assert sure.num_worth(slow, 1, 11) == 0


def watching() -> DraftWatch:
    """A watch that has seen plain steps of a tenth of a second."""
    watch = DraftWatch()
    for _ in range(10):
        watch.observe_plain(1, 0.1)
    return watch


def steps_until(watch: DraftWatch, num_tokens: int, step_s: float) -> int:
    """Steps with drafts until they stop."""
    num_steps = 0
    while watch.may(MODEL, 1):
        watch.observe_drafted(MODEL, 1, num_tokens, step_s)
        num_steps += 1
        assert num_steps < 100
    return num_steps


def rest(watch: DraftWatch) -> int:
    """Plain steps until it is tried again."""
    num_steps = 0
    while not watch.may(MODEL, 1):
        watch.observe_plain(1, 0.1)
        num_steps += 1
    return num_steps
