"""Greedy output of the engine on the real starter model is mlx-lm's, token for token, whatever happens around it."""

from __future__ import annotations

import itertools

import pytest

from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.config import Lookahead
from mlx_manager.ir import FinishReason
from tests.engine.real_engine import ANSWER, FOLLOW_UP, LONG_ANSWER, Starter, drive
from tests.engine.real_prompts import LONG_ANSWERED


def test_alone_then_all_again_from_the_prefix_cache(starter: Starter) -> None:
    assert len(starter.prompts) >= 20
    assert max(map(len, starter.prompts.values())) == 1500
    alone = drive(starter)
    for name in starter.prompts:
        alone.run(starter.ask(name, ANSWER))
    expected = starter.expected(starter.prompts, ANSWER)
    assert alone.tokens() == expected
    # What comes after an end token, or after the last token allowed, is told apart.
    for name, (tokens,) in expected.items():
        is_ended = tokens[-1] in starter.loaded.eos_token_ids
        assert alone.finishes[name] == [FinishReason.STOP if is_ended else FinishReason.LENGTH]
    assert alone.cached[FOLLOW_UP] >= len(starter.prompts["chat"])

    again = alone.run_staggered([starter.ask(name, ANSWER) for name in starter.prompts], every=1)
    assert again == expected
    for name, prompt in starter.prompts.items():
        assert alone.cached[name] >= (len(prompt) - 1) // 32 * 32


@pytest.mark.parametrize(
    ("batch_size", "every", "lookahead"),
    [(2, 3, Lookahead.NONE), (5, 2, Lookahead.LAUNCH), (16, 1, Lookahead.OVERLAP), (16, 1, Lookahead.LAUNCH)],
)
def test_batches_with_joins_and_leaves(starter: Starter, batch_size: int, every: int, lookahead: Lookahead) -> None:
    names = list(starter.prompts)[: 2 * batch_size]
    lengths = itertools.cycle((ANSWER, 3, 6, 1))
    batch = drive(starter, lookahead=lookahead, max_batch_size=batch_size, max_step_tokens=128)
    asked = {name: next(lengths) for name in names}
    tokens = batch.run_staggered([starter.ask(name, length) for name, length in asked.items()], every=every)
    assert tokens == {name: [starter.answers[name][:length]] for name, length in asked.items()}


@pytest.mark.parametrize("attention", list(DecodeAttention))
def test_rows_of_very_different_lengths(starter: Starter, attention: DecodeAttention) -> None:
    names = ("1500 tokens", "one word", "300 tokens", "700 tokens", "python")
    ragged = drive(starter, attention=attention)
    tokens = ragged.run(*(starter.ask(name, ANSWER) for name in names))
    assert tokens == starter.expected(names, ANSWER)
    # The three are beginnings of one text and arrived together: it was prefilled once.
    assert ragged.cached["1500 tokens"] + ragged.cached["700 tokens"] + ragged.cached["300 tokens"] >= 288 + 672


def test_rows_that_read_a_prefix_together(starter: Starter) -> None:
    names = ("1500 tokens", "700 tokens", "300 tokens", "python")
    together = drive(starter, min_shared_blocks=8)
    together.add(starter.ask("700 tokens", ANSWER, num_choices=2, key="forked"))
    tokens = together.run(*(starter.ask(name, ANSWER) for name in names))
    assert tokens.pop("forked") == [starter.answers["700 tokens"][:ANSWER]] * 2
    assert tokens == starter.expected(names, ANSWER)


@pytest.mark.parametrize("lookahead", [Lookahead.OVERLAP, Lookahead.LAUNCH])
def test_after_preemption_and_resume(starter: Starter, lookahead: Lookahead) -> None:
    # The first three fit with two blocks to spare. The second and third take these at their first border, so that
    # at its own the first takes one from the third.
    crowded = drive(starter, num_blocks=6, lookahead=lookahead)
    tokens = crowded.run(*(starter.ask(name, LONG_ANSWER) for name in LONG_ANSWERED))
    assert crowded.engine.scheduler.num_preemptions > 0
    assert tokens == starter.expected(LONG_ANSWERED, LONG_ANSWER)


@pytest.mark.parametrize("lookahead", [Lookahead.OVERLAP, Lookahead.LAUNCH])
def test_forks_of_one_prompt(starter: Starter, lookahead: Lookahead) -> None:
    names = ("prose", "33 tokens", "32 tokens", "300 tokens")
    forked = drive(starter, lookahead=lookahead)
    tokens = forked.run_staggered([starter.ask(name, ANSWER, num_choices=3) for name in names], every=2)
    assert tokens == {name: [starter.answers[name][:ANSWER]] * 3 for name in names}
    assert forked.engine.counters.num_prompt_tokens == sum(len(starter.prompts[name]) for name in names)


def test_forks_that_are_preempted(starter: Starter) -> None:
    names = ("prose", "german", "digits")
    crowded = drive(starter, num_blocks=6)
    tokens = crowded.run(*(starter.ask(name, LONG_ANSWER, num_choices=3) for name in names))
    assert crowded.engine.scheduler.num_preemptions > 0
    assert tokens == {name: [starter.answers[name][:LONG_ANSWER]] * 3 for name in names}


@pytest.mark.parametrize("lookahead", [Lookahead.OVERLAP, Lookahead.LAUNCH])
def test_beside_requests_that_are_aborted(starter: Starter, lookahead: Lookahead) -> None:
    disturbed = drive(starter, lookahead=lookahead, max_step_tokens=64)
    staying = ("prose", "german", "300 tokens")
    disturbed.add(*(starter.ask(name, ANSWER) for name in staying))
    # One goes while it prefills, one with its forks while it decodes, one before it began.
    disturbed.add(starter.ask("700 tokens", ANSWER), starter.ask("python", ANSWER, num_choices=3))
    disturbed.steps(4)
    disturbed.add(starter.ask("chat", ANSWER))
    for name in ("700 tokens", "python", "chat"):
        disturbed.engine.forget(name, is_aborted=True)
        disturbed.engine.scheduler.check_integrity()
    tokens = disturbed.run()
    assert {name: tokens[name] for name in staying} == starter.expected(staying, ANSWER)
    assert len(tokens["700 tokens"][0]) < ANSWER
    assert disturbed.engine.counters.num_aborted_requests == 3
    # What an aborted request had computed may be found by the next one, and is right.
    tokens = disturbed.run(starter.ask("700 tokens", ANSWER), starter.ask("python", ANSWER))
    assert {name: tokens[name] for name in ("700 tokens", "python")} == starter.expected(
        ("700 tokens", "python"), ANSWER
    )
