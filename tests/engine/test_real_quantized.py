"""Quantized keys and values: stored as mlx-lm quantizes them, and read alike alone, in batches and after prefix hits.

Over a plain arena rounding stays far below the distance of two tokens. Here it can move a stored entry by a whole
level, and so a near tie may fall the other way in another batch; anything but a near tie may not.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import QuantizedKVCache

from mlx_manager.catalog.overrides import KV_CACHE_BITS
from mlx_manager.engine.attention import DecodeAttention
from mlx_manager.engine.batch import Chosen
from mlx_manager.engine.config import Lookahead
from mlx_manager.engine.requests import EngineRequest
from mlx_manager.engine.verify import check_quantized
from tests.engine.real_engine import ANSWER, GREEDY, Drive, Starter, drive
from tests.worker.leaky_worker import LeakyRunner

_NAMES = ("python", "french", "chat", "64 tokens", "one word")
_NEAR_TIE = 0.3
"""Of log-probabilities. Two contexts that were mixed up differ by several."""


@pytest.mark.parametrize(("bits", "least", "most"), [(8, 0.45, 0.6), (4, 0.22, 0.35)])
def test_a_token_takes_about_a_half_and_a_quarter_of_16_bits(
    starter: Starter, bits: int, least: float, most: float
) -> None:
    layers = starter.caches.quantized(bits)
    at_16_bits = sum(layer.num_kv_heads * (layer.key_dim + layer.value_dim) * 2 for layer in layers)
    assert least < sum(layer.bytes_per_token for layer in layers) / at_16_bits < most
    arena = drive(starter, kv_cache_bits=bits).runner.attention.arena
    arena.reserve(100)
    assert sum(array.nbytes for array in arena.arrays()) == arena.nbytes


def test_answers_are_those_of_the_library_over_its_quantized_cache(starter: Starter) -> None:
    names = ("python", "french", "german", "one word")
    alone = drive(starter, kv_cache_bits=8)
    for name in names:
        alone.run(starter.ask(name, ANSWER))
    assert alone.tokens() == {name: [_library_answer(starter, name, bits=8)] for name in names}


@pytest.mark.parametrize(("bits", "attention"), list(zip(KV_CACHE_BITS[1:], DecodeAttention, strict=True)))
def test_the_check_at_load_finds_them_equal(starter: Starter, bits: int, attention: DecodeAttention) -> None:
    runner = drive(starter, kv_cache_bits=bits, attention=attention).runner
    verdict = check_quantized(runner, starter.loaded.vocabulary_size)
    assert verdict.is_equal, verdict.reason


def test_the_check_at_load_finds_a_row_that_reads_anothers_block(starter: Starter) -> None:
    runner = LeakyRunner(starter.loaded.model, starter.caches, 64, DecodeAttention.GATHER_MM)
    runner.lay_out(starter.caches.quantized(4), 64)
    verdict = check_quantized(runner, starter.loaded.vocabulary_size)
    assert not verdict.is_equal
    assert "differ from those of the same row alone" in verdict.reason


@pytest.mark.parametrize("bits", KV_CACHE_BITS[1:])
def test_alone_in_batches_and_after_prefix_hits(starter: Starter, bits: int) -> None:
    alone = drive(starter, kv_cache_bits=bits)
    for name in _NAMES:
        alone.run(_ask(starter, name))
    again = drive(
        starter,
        kv_cache_bits=bits,
        num_blocks=24,
        max_step_tokens=64,
        min_shared_blocks=1,
        lookahead=Lookahead.OVERLAP,
        attention=DecodeAttention.GATHERED_SDPA if bits == 8 else DecodeAttention.GATHER_MM,
    )
    for every in (1, 3):
        # Few blocks: rows are preempted and computed again; the second time all begin with what the first left.
        again.run_staggered([_ask(starter, name, num_choices=2) for name in _NAMES], every=every)
        _check_alike(alone, again)
    assert max(again.cached.values()) >= 32


def _check_alike(one: Drive, other: Drive) -> None:
    """Every choice of `other` is the answer in `one`, but for what follows a near tie; half have none."""
    num_equal = num_choices = 0
    for name in _NAMES:
        [expected] = one.chosen[name]
        for found in other.chosen[name]:
            num_choices += 1
            pair = next(((a, b) for a, b in zip(expected, found, strict=False) if a.token_id != b.token_id), None)
            if pair is None:
                assert len(expected) == len(found)
                num_equal += 1
            else:
                assert _distance(*pair) < _NEAR_TIE, (name, pair)
    assert num_equal >= num_choices / 2


def _distance(one: Chosen, other: Chosen) -> float:
    assert one.logprob is not None
    assert other.logprob is not None
    return abs(one.logprob - other.logprob)


def _ask(starter: Starter, name: str, *, num_choices: int = 1) -> EngineRequest:
    request = starter.ask(name, ANSWER, num_choices=num_choices)
    return replace(request, params=(replace(GREEDY, num_top_logprobs=0),) * num_choices)


def _library_answer(starter: Starter, name: str, *, bits: int) -> tuple[int, ...]:
    cache = [QuantizedKVCache(group_size=64, bits=bits) for _ in starter.caches.layers]
    steps = generate_step(mx.array(starter.prompts[name]), starter.loaded.model, max_tokens=ANSWER, prompt_cache=cache)
    tokens = [int(token) for token, _ in itertools.islice(steps, ANSWER)]
    ends = [index for index, token in enumerate(tokens) if token in starter.loaded.eos_token_ids]
    return tuple(tokens[: ends[0] + 1] if ends else tokens)
