"""Choosing tokens: one vectorised pass over all rows of a step, each with its own parameters.

Order per row: penalties, logit bias, grammar, then greedy, or temperature, top-k, top-p, min-p and one draw; a forced
token comes before all that. The draw inverts the cumulative distribution at a number that depends on the row's seed and
its count of output tokens alone, so a seed gives the same tokens whatever else is in the batch. Penalties follow Keskar
et al. 2019 (repetition) and OpenAI's API reference (presence and frequency, over the output only).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_manager.engine.batch import Chosen, Sample, Segment

_NEVER = -1e30


@dataclass(frozen=True)
class AllowedTokens:
    """Which tokens the grammars of some rows allow next."""

    rows: tuple[int, ...]
    is_allowed: NDArray[np.bool_]
    """[rows, vocabulary]"""


@dataclass(frozen=True)
class Samples:
    """The choices of one step, still on the device. Rows are in the order of the step's samples."""

    tokens: mx.array
    """[R] int32. For `read`, which a second thread may call: nothing that is built later may hang on it."""
    ahead: mx.array
    """[R] the same, for what is built on them before they are read. An array of its own: while one thread waits for an
    array, MLX lets no other thread compute with it."""
    is_finite: mx.array
    """[R] bool."""
    reported: tuple[int, ...]
    """Rows that asked for log-probabilities."""
    logprobs: mx.array | None
    """[len(reported)] of the chosen tokens."""
    top_tokens: mx.array | None
    """[len(reported), k]"""
    top_logprobs: mx.array | None
    """[len(reported), k], likeliest first."""
    num_top: tuple[int, ...]
    """How many alternatives each reported row asked for."""

    def arrays(self) -> list[mx.array]:
        """Everything to evaluate."""
        optional = (self.logprobs, self.top_tokens, self.top_logprobs)
        return [self.tokens, self.ahead, self.is_finite, *(array for array in optional if array is not None)]

    def read(self) -> tuple[Chosen, ...]:
        """Wait for the device and bring the choices to the host."""
        tokens: list[int] = self.tokens.tolist()  # type: ignore[assignment]
        finite: list[bool] = self.is_finite.tolist()  # type: ignore[assignment]
        chosen = [Chosen(token, ok) for token, ok in zip(tokens, finite, strict=True)]
        if self.logprobs is None:
            return tuple(chosen)
        logprobs: list[float] = self.logprobs.tolist()  # type: ignore[assignment]
        top_tokens: list[list[int]] = [] if self.top_tokens is None else self.top_tokens.tolist()  # type: ignore[assignment]
        top_logprobs: list[list[float]] = [] if self.top_logprobs is None else self.top_logprobs.tolist()  # type: ignore[assignment]
        for index, row in enumerate(self.reported):
            count = self.num_top[index]
            pairs = zip(top_tokens[index][:count], top_logprobs[index][:count], strict=True) if count else ()
            chosen[row] = Chosen(tokens[row], finite[row], logprobs[index], tuple(pairs))
        return tuple(chosen)


def choose(
    logits: mx.array,
    samples: AbstractSequence[Sample],
    segments: AbstractSequence[Segment],
    previous_tokens: mx.array | None,
    allowed: AllowedTokens | None = None,
) -> Samples:
    """Choose a token for each sample from its row of `logits`, [R, vocabulary], of any float type.

    `previous_tokens` are the tokens of the step before, for penalties that must count one the host has not seen yet.
    Log-probabilities are of the model's distribution before penalties, biases and grammars.
    """
    logits = logits.astype(mx.float32)
    adjusted = _with_bias(_with_penalties(logits, samples, segments, previous_tokens), samples)
    adjusted = _with_grammars(adjusted, allowed)
    tokens = mx.argmax(adjusted, axis=-1)
    drawing = [row for row, sample in enumerate(samples) if not sample.params.is_greedy]
    if drawing:
        rows = mx.array(drawing)
        drawn = _draw(adjusted if len(drawing) == len(samples) else adjusted[rows], [samples[row] for row in drawing])
        tokens = drawn if len(drawing) == len(samples) else _put_rows(tokens, rows, drawn)
    tokens = _with_forced(tokens, samples)
    reported = tuple(row for row, sample in enumerate(samples) if sample.params.num_top_logprobs is not None)
    num_top = tuple(samples[row].params.num_top_logprobs or 0 for row in reported)
    logprobs, top_tokens, top_logprobs = _report(logits, tokens, reported, max(num_top, default=0))
    tokens = tokens.astype(mx.int32)
    return Samples(
        tokens=tokens,
        ahead=tokens + 0,
        is_finite=mx.isfinite(mx.max(logits, axis=-1)),
        reported=reported,
        logprobs=logprobs,
        top_tokens=top_tokens,
        top_logprobs=top_logprobs,
        num_top=num_top,
    )


def _with_forced(tokens: mx.array, samples: AbstractSequence[Sample]) -> mx.array:
    forced = [(row, sample.forced_token) for row, sample in enumerate(samples) if sample.forced_token is not None]
    if not forced:
        return tokens
    rows, token_ids = zip(*forced, strict=True)
    return _put_rows(tokens, mx.array(rows), mx.array(token_ids))


def _put_rows(target: mx.array, rows: mx.array, new: mx.array) -> mx.array:
    target = target + 0
    target[rows] = new.astype(target.dtype)
    return target


def uniform(seed: int, output_index: int) -> float:
    """The number in [0, 1) that decides the draw of a sequence's `output_index`-th token; 53 bits of BLAKE2b."""
    message = seed.to_bytes(16, "little", signed=True) + output_index.to_bytes(8, "little")
    digest = hashlib.blake2b(message, digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)


def _with_penalties(
    logits: mx.array,
    samples: AbstractSequence[Sample],
    segments: AbstractSequence[Segment],
    previous_tokens: mx.array | None,
) -> mx.array:
    rows = [row for row, sample in enumerate(samples) if sample.history is not None]
    if not rows:
        return logits
    vocabulary = logits.shape[-1]
    prompt_counts = np.zeros((len(rows), vocabulary), dtype=np.float32)
    output_counts = np.zeros((len(rows), vocabulary), dtype=np.float32)
    unseen: list[tuple[int, int]] = []
    for index, row in enumerate(rows):
        sample = samples[row]
        history = np.array(sample.history, dtype=np.int64)
        prompt_counts[index] = np.bincount(history[: sample.num_prompt_tokens], minlength=vocabulary)[:vocabulary]
        output_counts[index] = np.bincount(history[sample.num_prompt_tokens :], minlength=vocabulary)[:vocabulary]
        source_row = segments[sample.segment].source_row
        if source_row is not None:
            unseen.append((index, source_row))
    outputs = mx.array(output_counts)
    if unseen and previous_tokens is not None:
        here = mx.array([index for index, _ in unseen])
        newest = previous_tokens[mx.array([source for _, source in unseen])]
        outputs = outputs.at[here, newest].add(1.0)
    is_seen = (mx.array(prompt_counts) + outputs) > 0

    def column(values: list[float]) -> mx.array:
        return mx.array(values, dtype=mx.float32)[:, None]

    params = [samples[row].params for row in rows]
    repetition = column([p.repetition_penalty for p in params])
    row_index = mx.array(rows)
    own = logits[row_index]
    repeated = mx.where(own > 0, own / repetition, own * repetition)
    own = mx.where(is_seen, repeated, own)
    own = own - outputs * column([p.frequency_penalty for p in params])
    own = own - (outputs > 0) * column([p.presence_penalty for p in params])
    return _put_rows(logits, row_index, own)


def _with_bias(logits: mx.array, samples: AbstractSequence[Sample]) -> mx.array:
    entries = [(row, token, bias) for row, s in enumerate(samples) for token, bias in s.params.logit_bias]
    if not entries:
        return logits
    rows, tokens, biases = zip(*entries, strict=True)
    return logits.at[mx.array(rows), mx.array(tokens)].add(mx.array(biases, dtype=mx.float32))


def _with_grammars(logits: mx.array, allowed: AllowedTokens | None) -> mx.array:
    if allowed is None:
        return logits
    is_allowed = mx.array(allowed.is_allowed)
    if len(allowed.rows) == logits.shape[0]:
        return mx.where(is_allowed, logits, -mx.inf)
    rows = mx.array(allowed.rows)
    return _put_rows(logits, rows, mx.where(is_allowed, logits[rows], -mx.inf))


def _draw(logits: mx.array, samples: AbstractSequence[Sample]) -> mx.array:
    """One token per row of `logits`, [R, vocabulary] float32, by temperature, filters and the row's own number."""
    params = [sample.params for sample in samples]
    temperature = mx.array([p.temperature for p in params], dtype=mx.float32)[:, None]
    scaled = logits / temperature
    vocabulary = logits.shape[-1]
    top_ks = [p.top_k if 0 < p.top_k < vocabulary else vocabulary for p in params]
    if min(top_ks) < vocabulary:
        scaled = _keep_top_k(scaled, top_ks)
    if any(p.top_p < 1.0 for p in params):
        scaled = _keep_top_p(scaled, [p.top_p for p in params])
    if any(p.min_p > 0.0 for p in params):
        min_p = mx.array([p.min_p for p in params], dtype=mx.float32)[:, None]
        # log(0) is -inf, which keeps everything
        scaled = mx.where(scaled >= scaled.max(axis=-1, keepdims=True) + mx.log(min_p), scaled, _NEVER)
    weights = mx.exp(scaled - scaled.max(axis=-1, keepdims=True))
    cumulative = mx.cumsum(weights, axis=-1)
    draws = mx.array([uniform(s.params.seed, s.output_index) for s in samples], dtype=mx.float32)[:, None]
    target = draws * cumulative[:, -1:]
    # The first token whose cumulative weight exceeds the target; tokens of no weight never do.
    return mx.argmax(cumulative > mx.minimum(target, cumulative[:, -1:] * (1 - 1e-6)), axis=-1)


def _keep_top_k(scaled: mx.array, top_ks: list[int]) -> mx.array:
    vocabulary = scaled.shape[-1]
    largest = max(k for k in top_ks if k < vocabulary)
    top = mx.sort(mx.topk(scaled, largest, axis=-1), axis=-1)
    place = mx.array([largest - min(k, largest) for k in top_ks])[:, None]
    threshold = mx.take_along_axis(top, place, axis=-1)
    is_unlimited = mx.array([k >= vocabulary for k in top_ks])[:, None]
    return mx.where(mx.logical_or(is_unlimited, scaled >= threshold), scaled, _NEVER)


def _keep_top_p(scaled: mx.array, top_ps: list[float]) -> mx.array:
    """Keep the smallest set of likeliest tokens whose probability reaches top_p; only rows that ask are sorted."""
    asking = [row for row, top_p in enumerate(top_ps) if top_p < 1.0]
    rows = mx.array(asking)
    own = scaled[rows]
    descending = -mx.sort(-own, axis=-1)
    probabilities = mx.softmax(descending, axis=-1, precise=True)
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    limit = mx.array([top_ps[row] for row in asking], dtype=mx.float32)[:, None]
    # A token stays while the mass before it has not reached top_p; the likeliest always stays.
    num_kept = mx.maximum((before < limit).sum(axis=-1, keepdims=True), 1)
    threshold = mx.take_along_axis(descending, num_kept - 1, axis=-1)
    return _put_rows(scaled, rows, mx.where(own >= threshold, own, _NEVER))


def _report(
    logits: mx.array, tokens: mx.array, reported: tuple[int, ...], num_top: int
) -> tuple[mx.array | None, mx.array | None, mx.array | None]:
    if not reported:
        return None, None, None
    rows = mx.array(reported)
    own = logits[rows]
    own = own - mx.logsumexp(own, axis=-1, keepdims=True)
    chosen = mx.take_along_axis(own, tokens[rows][:, None], axis=-1)[:, 0]
    if num_top == 0:
        return chosen, None, None
    top = mx.argpartition(-own, num_top - 1, axis=-1)[:, :num_top]
    values = mx.take_along_axis(own, top, axis=-1)
    order = mx.argsort(-values, axis=-1)
    return chosen, mx.take_along_axis(top, order, axis=-1), mx.take_along_axis(values, order, axis=-1)
