"""Draft models in MLX: small random models beside each other, the target's own weights and quite other ones."""

from __future__ import annotations

from random import Random

import mlx.core as mx
import pytest

from benchmarks.steady_load import Limits, Question
from benchmarks.steady_questions import Small, ask_alone, even_clock, serve_small
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.draft_model import DraftModel
from mlx_manager.engine.draft_watch import DraftSource
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.requests import EngineRequest, TokenEvent
from mlx_manager.engine.runner import PagedRunner
from tests.models.zoo import VOCABULARY_SIZE

LIMITS = Limits(max_tokens=180, num_blocks=14, max_batch_size=8, max_step_tokens=64, max_answer_tokens=40)


@pytest.fixture(scope="module")
def target() -> Small:
    return serve_small("qwen3", LIMITS.num_blocks)


@pytest.fixture(scope="module")
def questions(target: Small) -> list[Question]:
    return ask_alone(target, Random(7), 5, LIMITS)


def test_of_its_own_weights_nearly_every_guess_comes_true(target: Small, questions: list[Question]) -> None:
    engine = drafting(target, target, Lookahead.OVERLAP)
    assert_alike(engine, questions)
    counters = engine.drafting.counters[DraftSource.MODEL]
    # An answer goes on behind what is compared, to where rounding decides: there another pass may choose otherwise.
    assert counters.num_accepted > 0.9 * counters.num_drafted > 20
    assert engine.scheduler.num_preemptions > 0


@pytest.mark.parametrize("lookahead", list(Lookahead))
def test_of_other_weights_hardly_one_does(target: Small, questions: list[Question], lookahead: Lookahead) -> None:
    engine = drafting(target, serve_small("llama", LIMITS.num_blocks), lookahead)
    assert_alike(engine, questions)
    counters = engine.drafting.counters[DraftSource.MODEL]
    assert counters.num_accepted < 0.2 * counters.num_drafted
    assert counters.num_drafted > 5


def test_values_that_are_not_finite_leave_the_answers_alone(target: Small, questions: list[Question]) -> None:
    broken = serve_small("llama", LIMITS.num_blocks)
    broken.model.model.norm.weight = broken.model.model.norm.weight * mx.inf
    engine = drafting(target, broken, Lookahead.NONE)
    assert_alike(engine, questions)
    assert engine.drafting.counters[DraftSource.MODEL].num_drafted == 0
    assert "not finite" in engine.drafting.off_reason(DraftSource.MODEL)


def drafting(target: Small, small: Small, lookahead: Lookahead) -> Engine:
    """An engine over the target whose draft model is `small`, with too few blocks for all."""
    target.runner.reset()
    runner = PagedRunner(small.model, small.caches, LIMITS.num_blocks, DecodeAttention.GATHER_MM)
    config = EngineConfig(
        num_blocks=LIMITS.num_blocks,
        max_batch_size=LIMITS.max_batch_size,
        max_step_tokens=LIMITS.max_step_tokens,
        lookahead=lookahead,
        max_draft_tokens=4,
    )
    guesser = DraftModel(runner, VOCABULARY_SIZE, VOCABULARY_SIZE, max_context=LIMITS.max_tokens)
    return Engine(target.runner, config, even_clock(), draft_model=guesser)


def assert_alike(engine: Engine, questions: list[Question]) -> None:
    """Every question, greedy and seeded, as forks of one request and again later, is answered as it is alone."""
    said: dict[tuple[str, int], list[int]] = {}
    asked = [*enumerate(questions), *enumerate(questions)]
    for place, (index, question) in enumerate(asked):
        engine.add(
            EngineRequest(
                request_id=f"{index}/{place}",
                prompt_token_ids=question.prompt,
                params=tuple(way.params for way in question.ways),
                max_output_tokens=max(len(way.answer) for way in question.ways),
            )
        )
        for _ in range(3):
            take(engine, said)
    while engine.has_work:
        take(engine, said)
    engine.scheduler.check_integrity()
    for place, (index, question) in enumerate(asked):
        for choice, way in enumerate(question.ways):
            assert tuple(said[f"{index}/{place}", choice][: len(way.answer)]) == way.answer


def take(engine: Engine, said: dict[tuple[str, int], list[int]]) -> None:
    for event in engine.step():
        assert isinstance(event, TokenEvent)
        said.setdefault((event.request_id, event.choice), []).append(event.chosen.token_id)
