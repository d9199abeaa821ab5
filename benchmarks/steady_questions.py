"""What the steady load asks, and what each question's answer is when it is asked alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from mlx import nn

from benchmarks.steady_load import Limits, Question, Way
from mlx_manager.engine.attach import wrap_attention
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.batch import Chosen
from mlx_manager.engine.config import EngineConfig, Lookahead
from mlx_manager.engine.engine import Engine
from mlx_manager.engine.probe import ModelCaches, probe_caches
from mlx_manager.engine.requests import EngineRequest, TokenEvent
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sequence import SamplingParams
from mlx_manager.engine.windows import longest_window
from mlx_manager.models.families.adapters import adapt
from tests.models.serving import fewest_slots
from tests.models.zoo import VOCABULARY_SIZE, build

_NUM_BASES = 4
_MIN_MARGIN = 5e-4
"""Least distance between the two likeliest tokens' log-probabilities: an answer ends before rounding could decide."""
_NUDGE = 3e-4
"""A seeded answer ends before the first token that a temperature so little higher or lower would change."""
_STEP_S = 0.005
_NUM_CHECKPOINTS = 24


@dataclass(frozen=True)
class Small:
    """A small random model on the paged path."""

    model: nn.Module
    caches: ModelCaches
    runner: PagedRunner
    num_blocks: int

    def new_engine(self, limits: Limits, lookahead: Lookahead) -> Engine:
        """A new engine, on a clock that moves evenly so that a run can be repeated.

        Where a model has windows beside full attention, an arena of few slots is theirs.
        """
        slots = fewest_slots(self.caches.layers, limits.max_step_tokens)
        self.runner.lay_out(self.caches.layers, self.num_blocks, None if slots is None else slots.num_slots)
        config = EngineConfig(
            num_blocks=limits.num_blocks,
            max_batch_size=limits.max_batch_size,
            max_step_tokens=limits.max_step_tokens,
            lookahead=lookahead,
            num_checkpoints=_NUM_CHECKPOINTS if self.caches.state_bytes else None,
            window=longest_window(self.caches.layout.windows),
            slots=slots,
        )
        return Engine(self.runner, config, clock=even_clock())

    def answers(self, prompt: tuple[int, ...], ways: list[SamplingParams], num_tokens: int) -> list[list[Chosen]]:
        """The answers of one request, one for each of `ways`, alone in an engine of its own that keeps no prefixes."""
        self.runner.lay_out(self.caches.layers, self.num_blocks)
        engine = Engine(self.runner, EngineConfig(num_blocks=self.num_blocks, has_prefix_cache=False))
        engine.add(
            EngineRequest(request_id="", prompt_token_ids=prompt, params=tuple(ways), max_output_tokens=num_tokens)
        )
        answers: list[list[Chosen]] = [[] for _ in ways]
        while engine.has_work:
            for event in engine.step():
                if not isinstance(event, TokenEvent):
                    raise AssertionError(event.reason)
                answers[event.choice].append(event.chosen)
        return answers


def serve_small(model_type: str, num_blocks: int) -> Small:
    """A random model of `model_type`, always the same one."""
    model = build(model_type)
    adapt(model, model_type)
    wrap_attention(model)
    caches = probe_caches(model)
    return Small(model, caches, PagedRunner(model, caches, num_blocks, DecodeAttention.GATHER_MM), num_blocks)


def even_clock() -> Callable[[], float]:
    """A clock on which every look takes the same time."""
    looks = iter(range(1 << 62))
    return lambda: next(looks) * _STEP_S


def ask_alone(small: Small, rng: Random, num_questions: int, limits: Limits) -> list[Question]:
    """Questions of every length up to the limit, many of which begin alike, with their answers alone."""
    max_tokens = limits.max_tokens
    bases = [_text(rng, max_tokens) for _ in range(_NUM_BASES)]
    questions: list[Question] = []
    while len(questions) < num_questions:
        # Every fourth is short and every fourth long, whatever the draw.
        share = (rng.random(), rng.random(), 0.2, 0.97)[len(questions) % 4]
        length = round(max_tokens**share)
        num_shared = rng.choice((0, rng.randrange(length), length // 32 * 32))
        prompt = (*rng.choice(bases)[: min(num_shared, length - 1)], *_text(rng, length))[:length]
        num_wanted = min(
            max_tokens - length,
            rng.choice((12, limits.max_answer_tokens // 2, limits.max_answer_tokens, limits.max_answer_tokens)),
        )
        if num_wanted < 1:
            continue
        greedy = _ask_greedy(small, prompt, num_wanted)
        ways = [greedy, *_ask_seeded(small, prompt, rng, num_wanted)]
        if all(way.answer for way in ways):
            questions.append(Question(prompt, tuple(ways)))
    return questions


def _ask_greedy(small: Small, prompt: tuple[int, ...], num_tokens: int) -> Way:
    params = SamplingParams(temperature=0.0)
    [chosen] = small.answers(prompt, [replace(params, num_top_logprobs=2)], num_tokens)
    is_close = [one.top[0][1] - one.top[1][1] < _MIN_MARGIN for one in chosen]
    tokens = [one.token_id for one in chosen]
    return Way(params, tuple(tokens[: is_close.index(True)] if True in is_close else tokens))


def _ask_seeded(small: Small, prompt: tuple[int, ...], rng: Random, num_tokens: int) -> Iterator[Way]:
    """Each alone, then all of them again a little hotter and colder: only as far as that changes nothing."""
    ways = [
        SamplingParams(temperature=1.0, seed=rng.randrange(1 << 30)),
        SamplingParams(temperature=0.8, top_k=30, repetition_penalty=1.2, seed=rng.randrange(1 << 30)),
    ]
    answers = [small.answers(prompt, [params], num_tokens)[0] for params in ways]
    nudged = [replace(way, temperature=way.temperature * by) for way in ways for by in (1 - _NUDGE, 1 + _NUDGE)]
    others = small.answers(prompt, nudged, num_tokens)
    for index, (params, answer) in enumerate(zip(ways, answers, strict=True)):
        tokens = [one.token_id for one in answer]
        for other in others[2 * index : 2 * index + 2]:
            same = itertools.takewhile(lambda pair: pair[0] == pair[1].token_id, zip(tokens, other, strict=False))
            tokens = [token for token, _ in same]
        yield Way(params, tuple(tokens))


def _text(rng: Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randrange(VOCABULARY_SIZE) for _ in range(length))
