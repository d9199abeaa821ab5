"""`sampler.choose` on random logits against the same rules written down in numpy, in float64."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from mlx_manager.engine.batch import Chosen, Sample, Segment
from mlx_manager.engine.sampler import choose, uniform
from mlx_manager.engine.sequence import SamplingParams

VOCABULARY = 300
PROMPT = (5, 9, 9, 17, 40)
OUTPUT = (17, 3, 3, 3, 250)

Row = npt.NDArray[np.float64]

CASES = {
    "greedy": SamplingParams(temperature=0.0),
    "as good as greedy": SamplingParams(seed=1, temperature=1e-40),
    "plain": SamplingParams(seed=1),
    "icy": SamplingParams(seed=2, temperature=1e-6),
    "cold": SamplingParams(seed=2, temperature=0.3),
    "hot": SamplingParams(seed=-3, temperature=2.0),
    "top-k": SamplingParams(seed=4, top_k=5),
    "top-k of one": SamplingParams(seed=5, top_k=1),
    "top-k past the vocabulary": SamplingParams(seed=6, top_k=1000),
    "top-p": SamplingParams(seed=7, top_p=0.5),
    "top-p of nothing": SamplingParams(seed=8, top_p=1e-6),
    "min-p": SamplingParams(seed=9, min_p=0.3),
    "repetition": SamplingParams(temperature=0.0, repetition_penalty=1.7),
    "presence": SamplingParams(seed=10, presence_penalty=1.5),
    "frequency": SamplingParams(seed=11, frequency_penalty=-0.9),
    "bias": SamplingParams(temperature=0.0, logit_bias=((7, 100.0), (9, -100.0))),
    "a ban": SamplingParams(seed=12, temperature=1.4, logit_bias=tuple((token, -100.0) for token in range(0, 300, 2))),
    "everything": SamplingParams(
        seed=13,
        temperature=0.8,
        top_k=40,
        top_p=0.9,
        min_p=0.02,
        repetition_penalty=1.2,
        presence_penalty=0.5,
        frequency_penalty=0.4,
        logit_bias=((3, 2.0), (17, -1.5)),
    ),
}


def allowed_distribution(logits: Row, params: SamplingParams) -> Row:
    """The probability of each token, 0 for those that are filtered out; one-hot when greedy."""
    row = logits.copy()
    for token in set(PROMPT + OUTPUT):
        row[token] = (
            row[token] / params.repetition_penalty if row[token] > 0 else row[token] * params.repetition_penalty
        )
    for token in set(OUTPUT):
        row[token] -= params.presence_penalty + params.frequency_penalty * OUTPUT.count(token)
    for token, bias in params.logit_bias:
        row[token] += bias
    if params.is_greedy:
        certain: Row = np.eye(VOCABULARY)[int(row.argmax())]
        return certain
    weights = np.exp((row - row.max()) / params.temperature)
    order = np.argsort(-weights)
    if params.top_k:
        weights[order[params.top_k :]] = 0
    shares = weights[order] / weights.sum()
    weights[order[1:][shares.cumsum()[:-1] >= params.top_p]] = 0
    weights[weights < params.min_p * weights.max()] = 0
    result: Row = weights / weights.sum()
    return result


def step_of(all_params: list[SamplingParams], output_index: int = len(OUTPUT)) -> tuple[list[Sample], list[Segment]]:
    """One decoding row for each set of parameters."""
    history = PROMPT + OUTPUT
    samples, segments = [], []
    for row, params in enumerate(all_params):
        segments.append(Segment(row, len(history) - 1, history[-1:], None, (row,)))
        known = history if params.has_penalties else None
        samples.append(Sample(row, row, params, output_index, known, len(PROMPT)))
    return samples, segments


def choose_rows(logits: Row, all_params: list[SamplingParams], output_index: int = len(OUTPUT)) -> tuple[Chosen, ...]:
    """What the sampler chooses for the rows of `logits`, [R, VOCABULARY]."""
    return choose(mx.array(logits.astype(np.float32)), *step_of(all_params, output_index), None).read()


def random_logits(seed: int, rows: int) -> Row:
    return np.random.default_rng(seed).normal(0, 3, (rows, VOCABULARY)).astype(np.float32).astype(np.float64)


def assert_is_the_draw(chosen: int, distribution: Row, draw: float) -> None:
    """`draw` falls into the share of the interval from 0 to 1 that belongs to `chosen`, but for float32's rounding."""
    after = distribution.cumsum()[chosen]
    assert distribution[chosen] > 0
    assert after - distribution[chosen] - 1e-5 <= draw <= after + 1e-5


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_row_alone_is_drawn_from_its_distribution(case: str, seed: int) -> None:
    params = replace(CASES[case], seed=CASES[case].seed + 100 * seed)
    logits = random_logits(seed, 1)
    for output_index in range(len(OUTPUT), len(OUTPUT) + 20):
        (chosen,) = choose_rows(logits, [params], output_index)
        distribution = allowed_distribution(logits[0], params)
        if params.is_greedy:
            assert chosen.token_id == distribution.argmax()
        else:
            assert_is_the_draw(chosen.token_id, distribution, uniform(params.seed, output_index))


def test_rows_with_different_parameters_do_not_touch_each_other() -> None:
    all_params = list(CASES.values())
    logits = random_logits(3, len(all_params))
    together = choose_rows(logits, all_params)
    alone = tuple(choose_rows(logits[row : row + 1], [params])[0] for row, params in enumerate(all_params))
    assert together == alone
    backwards = choose_rows(logits[::-1], all_params[::-1])
    assert backwards[::-1] == alone


def test_draws_follow_the_distribution() -> None:
    params = CASES["everything"]
    logits = random_logits(4, 1)
    distribution = allowed_distribution(logits[0], params)
    num_draws = 2000
    rows = [replace(params, seed=seed) for seed in range(num_draws)]
    chosen = choose_rows(np.repeat(logits, num_draws, axis=0), rows)
    counts = np.bincount([c.token_id for c in chosen], minlength=VOCABULARY)
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(distribution))
    # Five standard deviations, of a fixed set of seeds.
    spread = np.sqrt(num_draws * distribution * (1 - distribution))
    assert (abs(counts - num_draws * distribution) <= 5 * spread + 1).all()


def test_log_probabilities_are_the_models_own() -> None:
    # Neither temperature, filters, penalties nor bias show in them, and only rows that ask have them.
    asks = (None, 0, 3, 20)
    all_params = [replace(CASES["everything"], num_top_logprobs=asked) for asked in asks]
    logits = random_logits(5, len(asks))
    expected = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    for row, chosen in enumerate(choose_rows(logits, all_params)):
        if asks[row] is None:
            assert (chosen.logprob, chosen.top) == (None, ())
            continue
        assert chosen.logprob == pytest.approx(expected[row, chosen.token_id], abs=1e-4)
        assert [token for token, _ in chosen.top] == np.argsort(-expected[row])[: asks[row]].tolist()
        assert [logprob for _, logprob in chosen.top] == pytest.approx(
            np.sort(expected[row])[::-1][: asks[row]], abs=1e-4
        )


def test_a_token_the_host_has_not_read_counts_for_the_penalties() -> None:
    params = SamplingParams(temperature=0.0, presence_penalty=2.0, frequency_penalty=1.0, repetition_penalty=1.5)
    logits = random_logits(6, 2)
    newest = [int(row.argmax()) for row in logits]
    history = PROMPT + OUTPUT

    def decided(knows_newest: bool) -> tuple[Chosen, ...]:
        samples, segments = [], []
        for row in range(2):
            known = (*history, newest[row]) if knows_newest else history
            # Rows of the step before were the other way round.
            source = None if knows_newest else 1 - row
            segments.append(Segment(row, len(history), (newest[row] if knows_newest else 0,), source, (row,)))
            samples.append(Sample(row, row, params, len(OUTPUT) + 1, known, len(PROMPT)))
        return choose(mx.array(logits.astype(np.float32)), samples, segments, mx.array(newest[::-1])).read()

    assert decided(False) == decided(True)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_only_the_row_that_is_not_finite_is_told(poison: float) -> None:
    all_params = [CASES["greedy"], CASES["everything"], CASES["top-p"], CASES["plain"]]
    logits = random_logits(7, 4)
    clean = choose_rows(logits, all_params)
    assert all(chosen.is_finite for chosen in clean)
    logits[1, 123] = poison
    chosen = choose_rows(logits, all_params)
    assert [c.is_finite for c in chosen] == [True, False, True, True]
    assert [c for row, c in enumerate(chosen) if row != 1] == [c for row, c in enumerate(clean) if row != 1]


def test_one_seed_gives_one_sequence_of_numbers() -> None:
    numbers = [uniform(seed, index) for seed in (-(2**63), 0, 1, 2**63) for index in range(50)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    assert 0.4 < sum(numbers) / len(numbers) < 0.6
    assert uniform(1, 2) == uniform(1, 2)


def test_what_is_built_ahead_shares_no_array_with_who_reads() -> None:
    """One thread may wait for the tokens while another computes with them, and an array is for one thread at a time."""
    logits = np.random.default_rng(1).normal(size=(2, VOCABULARY)).astype(np.float32)
    samples = choose(mx.array(logits), *step_of([CASES["greedy"]] * 2, 0), None)
    mx.eval(samples.arrays())
    assert samples.ahead is not samples.tokens
    assert samples.ahead.tolist() == samples.tokens.tolist() == logits.argmax(axis=-1).tolist()
