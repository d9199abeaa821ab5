"""The honest fallback: each sequence through the library's own cache, one after the other, nothing shared.

For models the paged path does not carry, or failed to agree on. Slower, but what it answers is the library's answer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence as AbstractSequence
from typing import Any, Protocol

import mlx.core as mx
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_manager.engine.batch import Batch, Segment
from mlx_manager.engine.grammar import PendingMasks
from mlx_manager.engine.runner import Launched
from mlx_manager.engine.sampler import choose


class Begin(Protocol):
    """How a library begins with a whole prompt that may hold more than tokens."""

    def __call__(
        self, token_ids: AbstractSequence[int], inputs: object | None, cache: list[Any]
    ) -> tuple[mx.array, dict[str, Any]]:
        """The logits of the prompt, [1, length, vocabulary], and what later calls of the model are given by name."""
        ...


class SequentialRunner:
    """Runs any model the library can load. Owns one library cache per live sequence.

    The scheduler's blocks stand for memory only here; it must be told to keep no prefix cache. With `begin` prompts
    come whole, and one request at a time.
    """

    def __init__(self, model: nn.Module, begin: Begin | None = None) -> None:
        self._model = model
        self._begin = begin
        self._caches: dict[int, list[Any]] = {}
        self._later: dict[int, dict[str, Any]] = {}

    @property
    def arena_bytes(self) -> int:
        """Bytes that the caches of all sequences hold."""
        return sum(layer.nbytes for cache in self._caches.values() for layer in cache)

    def build(self, batch: Batch, previous: Launched | None, masks: PendingMasks | None = None) -> Launched:
        """Build a step without starting it; with masks, its forward pass is started."""
        for seq_id in batch.ended:
            self._caches.pop(seq_id, None)
            self._later.pop(seq_id, None)
        previous_tokens = None if previous is None or previous.samples is None else previous.samples.ahead
        logits = [self._forward(segment, previous_tokens) for segment in batch.segments]
        for sample in batch.samples:
            leader = batch.segments[sample.segment].seq_id
            if sample.seq_id != leader:
                self._caches[sample.seq_id] = copy.deepcopy(self._caches[leader])
                self._later[sample.seq_id] = self._later.get(leader, {})
        samples = None
        if batch.samples:
            rows = mx.concatenate([logits[sample.segment] for sample in batch.samples])
            allowed = None if masks is None else masks.join(rows)
            samples = choose(rows, batch.samples, batch.segments, previous_tokens, allowed)
        return Launched(batch, samples, logits)

    def trim(self) -> None:
        """Drop the caches of sequences that have ended."""
        self._caches.clear()

    def _forward(self, segment: Segment, previous_tokens: mx.array | None) -> mx.array:
        """The logits behind the segment's last token, [1, vocabulary]."""
        if segment.start == 0:
            self._caches[segment.seq_id] = make_prompt_cache(self._model)
            if self._begin is not None:
                begun, later = self._begin(segment.token_ids, segment.inputs, self._caches[segment.seq_id])
                self._later[segment.seq_id] = later
                return begun[:, -1]
        if segment.source_row is not None and previous_tokens is not None:
            tokens = previous_tokens[segment.source_row].reshape(1, 1)
        else:
            tokens = mx.array([segment.token_ids])
        later = self._later.get(segment.seq_id, {})
        logits: mx.array = self._model(tokens, cache=self._caches[segment.seq_id], **later)
        return logits[:, -1]


def bytes_per_token(model: nn.Module) -> int:
    """What a token adds to the library's cache, measured over enough tokens to see past its growth in steps."""
    sizes: list[int] = []
    for num_tokens in (256, 512):
        cache = make_prompt_cache(model)
        mx.eval(model(mx.zeros((1, num_tokens), dtype=mx.int32), cache=cache))
        sizes.append(sum(layer.nbytes for layer in cache))
    return max(0, sizes[1] - sizes[0]) // 256
