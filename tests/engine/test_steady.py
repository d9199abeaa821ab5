"""The steady load of `make steady`, a few hundred steps of it: nobody's answer depends on who else is there."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from benchmarks.steady import MODELS, WINDOWED, limits_of, run
from benchmarks.steady_load import Limits, Load, Question, Way
from benchmarks.steady_questions import ask_alone, serve_small
from mlx_manager.engine.config import Lookahead

NUM_STEPS = 250
IN_THE_SUITE = ("qwen3", "gemma3_text", "recurrent_gemma", "lfm2")
"""Of the models of `make steady`; with the others the suite would take too long."""
SMALL = Limits(
    max_tokens=260, num_blocks=10, max_batch_size=8, max_step_tokens=64, max_answer_tokens=36, steps_per_wave=80
)


def small_limits(model_type: str) -> Limits:
    return replace(SMALL, num_blocks=6) if model_type == WINDOWED else SMALL


@pytest.mark.parametrize(
    ("model_type", "lookahead"), list(zip(IN_THE_SUITE, (*Lookahead, Lookahead.LAUNCH), strict=True)), ids=str
)
def test_every_answer_is_that_of_the_request_alone(model_type: str, lookahead: Lookahead) -> None:
    tally = run(model_type, NUM_STEPS, small_limits(model_type), num_questions=5, lookahead=lookahead).tally
    assert tally.num_steps >= NUM_STEPS
    assert tally.num_differences == 0
    assert tally.num_compared_tokens > NUM_STEPS
    assert min(tally.num_preemptions, tally.num_cancelled, tally.num_forking) > 0
    assert tally.num_idle_moments > 1


def test_an_answer_that_differs_is_found() -> None:
    small, rng = serve_small("qwen3", 14), Random(3)
    [question] = ask_alone(small, rng, 1, replace(SMALL, max_tokens=60))
    way = question.ways[0]
    wrong = Way(way.params, (*way.answer[:-1], way.answer[-1] ^ 1))
    load = Load(small.new_engine(SMALL, Lookahead.NONE), [Question(question.prompt, (wrong,))], rng, SMALL)
    with pytest.raises(AssertionError, match=rf"token {len(way.answer) - 1} of request"):
        load.play(200)


def test_the_whole_load_is_longer_than_the_blocks() -> None:
    for model_type in MODELS:
        limits = limits_of(model_type)
        assert limits.num_blocks * 32 < limits.max_live * limits.max_tokens
