"""Grammars inside the batch: what each constrained sequence may say next, computed while the forward pass runs.

Masks come from llguidance (Moskal et al., "Making structured outputs negligible in cost", 2025), which walks its parser
over a trie of the vocabulary. It works outside Python's lock, in threads of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence as AbstractSequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from llguidance import LLExecutor, LLMatcher
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par
from numpy.typing import NDArray

from mlx_manager.engine.batch import Sample
from mlx_manager.engine.sampler import AllowedTokens

_NUM_MOST_THREADS = 4


@dataclass(frozen=True)
class Constraint:
    """A compiled grammar before its first token. It is never advanced itself: each sequence gets a copy."""

    matcher: LLMatcher
    num_tokens: int
    """Size of the vocabulary it was compiled for."""


@dataclass
class MaskCounters:
    """Totals since the engine was made."""

    num_masks: int = 0
    compute_s: float = 0.0
    """Time the mask thread worked; most of it beside the forward pass."""
    wait_s: float = 0.0
    """Time steps waited for masks after their forward pass was done, and spread them out."""


class GrammarMasks:
    """The matchers of all constrained sequences, by sequence id, from `add` to `drop`.

    Matchers are touched by the mask thread between `begin` and the `PendingMasks.join` of the same step, and by the
    engine's thread the rest of the time. A preempted sequence keeps its matcher: its tokens are not taken back.
    """

    def __init__(self) -> None:
        self.counters = MaskCounters()
        self._constraints: dict[int, Constraint] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar-masks")
        self._executor: LLExecutor | None = None

    def __contains__(self, seq_id: int) -> bool:
        return seq_id in self._constraints

    def __len__(self) -> int:
        return len(self._constraints)

    def add(self, seq_id: int, constraint: Constraint) -> None:
        """Constrain a sequence that has no output yet."""
        self._constraints[seq_id] = Constraint(constraint.matcher.deep_copy(), constraint.num_tokens)

    def drop(self, seq_id: int) -> None:
        """Forget a sequence; an unconstrained one is ignored."""
        self._constraints.pop(seq_id, None)

    def begin(self, samples: AbstractSequence[Sample]) -> PendingMasks | None:
        """Start computing the masks of a step. Every token before it must have been told to `advance`."""
        rows = tuple(row for row, sample in enumerate(samples) if sample.seq_id in self._constraints)
        if not rows:
            return None
        if self._executor is None:
            self._executor = LLExecutor(num_threads=max(1, min(_NUM_MOST_THREADS, (os.cpu_count() or 1) // 2)))
        constraints = [self._constraints[samples[row].seq_id] for row in rows]
        self.counters.num_masks += len(rows)
        return PendingMasks(rows, self._thread.submit(self._compute, self._executor, constraints), self.counters)

    def advance(self, seq_id: int, token_id: int) -> str | None:
        """Tell a sequence's matcher the token that was chosen. Returns why it failed, None when it did not."""
        constraint = self._constraints.get(seq_id)
        if constraint is None:
            return None
        # A matcher that failed, at a limit of its parser say, allows the end token and takes it: that is no end.
        if constraint.matcher.consume_token(token_id) and not constraint.matcher.is_error():
            return None
        return " ".join(constraint.matcher.get_error().split("<state>", maxsplit=1)[0].split())

    def is_complete(self, seq_id: int) -> bool:
        """Whether the grammar of a sequence allows nothing more than its end."""
        constraint = self._constraints.get(seq_id)
        return constraint is not None and constraint.matcher.is_stopped()

    def _compute(self, executor: LLExecutor, constraints: list[Constraint]) -> NDArray[np.int32]:
        started_s = time.perf_counter()
        bits = allocate_token_bitmask(len(constraints), constraints[0].num_tokens)
        matchers = [(constraint.matcher, index) for index, constraint in enumerate(constraints)]
        fill_next_token_bitmask_par(executor, matchers, bits)
        self.counters.compute_s += time.perf_counter() - started_s
        return bits


@dataclass(frozen=True)
class PendingMasks:
    """The masks of one step, being computed."""

    rows: tuple[int, ...]
    """Samples of the step that are constrained."""
    bits: Future[NDArray[np.int32]]
    """[rows, vocabulary / 32], a bit per token, lowest first."""
    counters: MaskCounters

    def join(self, logits: mx.array) -> AllowedTokens:
        """Start computing `logits`, [R, vocabulary], and wait for the masks meanwhile.

        On MLX's CPU backend starting takes as long as computing, but leaves Python's lock to the mask thread.
        """
        mx.async_eval(logits)
        started_s = time.perf_counter()
        bits = self.bits.result().view(np.uint8)
        # A model may have more logits than its tokenizer has tokens: what is beyond is padded with False.
        is_allowed = np.unpackbits(bits, axis=1, count=logits.shape[-1], bitorder="little").view(np.bool_)
        self.counters.wait_s += time.perf_counter() - started_s
        return AllowedTokens(self.rows, is_allowed)
