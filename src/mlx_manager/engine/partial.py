"""A part of the attention of some rows, before it is normalized: two parts of one softmax merge into the whole.

The merge is the one by which FlashAttention (Dao et al. 2022) and FlashDecoding join their blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True)
class Partial:
    """What some slots contribute to rows of [rows, num_kv_heads, repeats, …], in float32."""

    mixed: mx.array
    """[…, value_dim] values weighted by exp(score - peak)."""
    peak: mx.array
    """[…, 1] the largest score."""
    total: mx.array
    """[…, 1] the sum of exp(score - peak)."""

    def with_sinks(self, sinks: mx.array | None) -> Partial:
        """The same with a logit per head, [num_heads], that joins the softmax and has no value."""
        if sinks is None:
            return self
        _, num_kv_heads, repeats, _ = self.peak.shape
        logits = sinks.astype(mx.float32).reshape(1, num_kv_heads, repeats, 1)
        peak = mx.maximum(self.peak, logits)
        scale = mx.exp(self.peak - peak)
        return Partial(self.mixed * scale, peak, self.total * scale + mx.exp(logits - peak))

    def merged(self, other: Partial) -> mx.array:
        """The attention over the slots of both, [rows, num_kv_heads, repeats, value_dim]."""
        peak = mx.maximum(self.peak, other.peak)
        own, others = mx.exp(self.peak - peak), mx.exp(other.peak - peak)
        return (self.mixed * own + other.mixed * others) / (self.total * own + other.total * others)


def joined(parts: list[Partial]) -> Partial:
    """Parts of different rows, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    return Partial(
        mx.concatenate([part.mixed for part in parts]),
        mx.concatenate([part.peak for part in parts]),
        mx.concatenate([part.total for part in parts]),
    )


def exponentiated(scores: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """(exp(score - peak), peak, total) over the last axis, in float32."""
    scores = scores.astype(mx.float32)
    peak = scores.max(axis=-1, keepdims=True)
    weights = mx.exp(scores - peak)
    return weights, peak, weights.sum(axis=-1, keepdims=True)
