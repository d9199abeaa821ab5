"""The honest fallback: each sequence through the library's own cache, one after the other.

For models the paged path does not carry, or failed to agree on. Slower, but what it answers is the library's answer.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence
from typing import Any, Protocol

import mlx.core as mx
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_manager.engine.batch import Batch, Segment
from mlx_manager.engine.grammar import PendingMasks
from mlx_manager.engine.kept_line import Line
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
    """Runs any model the library can load. Owns one library cache per live sequence, and the last one that ended.

    The scheduler's blocks stand for memory only here; it must be told to keep no prefix cache. What a sequence has in
    common with the one that ended last is not computed again, as long as both caches fit `kept_bytes`. With `begin`
    prompts come whole, and one request at a time, and nothing is kept.
    """

    def __init__(self, model: nn.Module, begin: Begin | None = None, *, kept_bytes: int = 0) -> None:
        self._model = model
        self._begin = begin
        self._kept_bytes = kept_bytes if begin is None else 0
        self._lines: dict[int, Line] = {}
        self._kept: Line | None = None
        self._later: dict[int, dict[str, Any]] = {}
        self.num_reused_tokens = 0
        """Tokens that were in the kept cache."""

    @property
    def arena_bytes(self) -> int:
        """Bytes that the caches of all sequences hold, and the one that is kept."""
        return sum(line.nbytes for line in [*self._lines.values(), *([self._kept] if self._kept else [])])

    def build(self, batch: Batch, previous: Launched | None, masks: PendingMasks | None = None) -> Launched:
        """Build a step without starting it; with masks, its forward pass is started."""
        for seq_id in batch.ended:
            ended = self._lines.pop(seq_id, None)
            self._kept = ended if self._kept_bytes and ended is not None else self._kept
            self._later.pop(seq_id, None)
        if batch.scrubs:
            # a sequence broke: nobody may go on with what it left
            self._kept = None
        previous_tokens = None if previous is None or previous.samples is None else previous.samples.ahead
        sampled = {sample.segment for sample in batch.samples}
        logits = [
            self._forward(segment, previous_tokens, is_sampled=index in sampled)
            for index, segment in enumerate(batch.segments)
        ]
        for sample in batch.samples:
            leader = batch.segments[sample.segment].seq_id
            if sample.seq_id != leader:
                self._lines[sample.seq_id] = self._lines[leader].fork()
                self._later[sample.seq_id] = self._later.get(leader, {})
        samples = None
        if batch.samples:
            rows = mx.concatenate([logits[sample.segment] for sample in batch.samples])
            allowed = None if masks is None else masks.join(rows)
            samples = choose(rows, batch.samples, batch.segments, previous_tokens, allowed)
        if self._kept is not None and self.arena_bytes > self._kept_bytes:
            self._kept = None
        return Launched(batch, samples, logits)

    def trim(self) -> None:
        """Drop the caches of sequences that have ended."""
        self._lines.clear()
        self._kept = None

    def _forward(self, segment: Segment, previous_tokens: mx.array | None, *, is_sampled: bool) -> mx.array:
        """The logits behind the segment's last token, [1, vocabulary]; nothing where nobody needs them."""
        if segment.start == 0:
            line = self._lines[segment.seq_id] = self._first_line(segment)
            if self._begin is not None:
                begun, later = self._begin(segment.token_ids, segment.inputs, line.cache)
                self._later[segment.seq_id] = later
                return begun[:, -1]
        line = self._lines[segment.seq_id]
        if segment.source_row is not None and previous_tokens is not None:
            token = previous_tokens[segment.source_row]
            line.tokens.append(token)
            return self._run(token.reshape(1, 1), line, segment.seq_id)
        num_known = line.take(segment.token_ids, is_last_needed=is_sampled)
        fed = list(segment.token_ids)
        if num_known is None:
            # it differs where its cache cannot be cut
            self.num_reused_tokens -= len(line.tokens)
            line.cache, line.ahead, num_known = make_prompt_cache(self._model), [], 0
            fed = [*(int(token) for token in line.tokens), *fed]
        self.num_reused_tokens += num_known
        line.tokens.extend(segment.token_ids)
        if num_known == len(fed):
            return mx.zeros((1, 1))
        return self._run(mx.array([fed[num_known:]]), line, segment.seq_id)

    def _run(self, tokens: mx.array, line: Line, seq_id: int) -> mx.array:
        logits: mx.array = self._model(tokens, cache=line.cache, **self._later.get(seq_id, {}))
        return logits[:, -1]

    def _first_line(self, segment: Segment) -> Line:
        """The kept cache where the sequence begins as it does, for whom it may; else a new one."""
        kept = self._kept
        if kept is not None and kept.first_id == segment.first_id:
            handed_on = kept.handed_on(segment.token_ids)
            if handed_on is not None:
                self._kept = None
                return handed_on
        return Line(make_prompt_cache(self._model), segment.first_id)


def bytes_per_token(model: nn.Module) -> int:
    """What a token adds to the library's cache, measured over enough tokens to see past its growth in steps."""
    sizes: list[int] = []
    for num_tokens in (256, 512):
        cache = make_prompt_cache(model)
        mx.eval(model(mx.zeros((1, num_tokens), dtype=mx.int32), cache=cache))
        sizes.append(sum(layer.nbytes for layer in cache))
    return max(0, sizes[1] - sizes[0]) // 256
