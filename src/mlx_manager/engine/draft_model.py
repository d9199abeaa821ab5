"""The draft model: a small model of the same tokenizer, whose guesses at next tokens the target checks in one pass.

It runs over an arena of its own, whose blocks have the numbers of the target's: one block table leads to both, and with
it whatever sequences share, copy or give up. Each guess is drawn as the target will draw there, with the same random
number: only where the two models differ does a guess not come true (speculative sampling by a common random number,
which unlike Leviathan et al. 2023 leaves even a seeded answer as it is).
"""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx

from mlx_manager.engine.batch import Batch, DraftRow, Sample, Segment
from mlx_manager.engine.blocks import num_blocks_for
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.engine.sampler import Samples, choose


class DraftModel:
    """Guesses over a `PagedRunner` that nothing else runs on. `target_vocabulary_size` bounds its guesses."""

    def __init__(
        self, runner: PagedRunner, vocabulary_size: int, target_vocabulary_size: int, *, max_context: int
    ) -> None:
        self.max_context = max_context
        self._runner = runner
        self._vocabulary_size = vocabulary_size
        self._num_tokens = min(vocabulary_size, target_vocabulary_size)

    @property
    def arena_bytes(self) -> int:
        """Bytes that its keys and values hold on the device."""
        return self._runner.arena_bytes

    def trim(self) -> None:
        """Give its arena back to the device."""
        self._runner.trim()

    def guess(self, batch: Batch) -> dict[int, tuple[int, ...]] | None:
        """See `Guesser`."""
        rows = batch.draft_rows
        samples = {row.segment: _samples_of(batch, row) for row in rows}
        passes: list[tuple[list[DraftRow], Samples]] = []
        segments = [replace(row.missing, token_ids=self._known(row.missing.token_ids)) for row in rows]
        asked, previous = list(rows), None
        for place in range(max(row.num_guesses for row in rows) or 1):
            logits = self._runner.logits(_batch_of(segments, batch.num_blocks), previous)
            wanting = [index for index, row in enumerate(asked) if row.num_guesses > place]
            if not wanting:
                mx.eval(logits, *self._runner.arrays())
                break
            chosen = self._choose(logits, wanting, [samples[asked[index].segment][place] for index in wanting])
            mx.async_eval(*chosen.arrays(), *self._runner.arrays())
            passes.append(([asked[index] for index in wanting], chosen))
            goes_on = [number for number, index in enumerate(wanting) if asked[index].num_guesses > place + 1]
            asked = [asked[wanting[number]] for number in goes_on]
            segments = [
                _next_segment(row, batch.segments[row.segment], place, source)
                for row, source in zip(asked, goes_on, strict=True)
            ]
            previous = chosen.ahead
        return self._read(passes)

    def _choose(self, logits: mx.array, wanting: list[int], samples: list[Sample]) -> Samples:
        own = logits[:, : self._num_tokens]
        return choose(own if len(wanting) == own.shape[0] else own[mx.array(wanting)], samples, (), None)

    def _read(self, passes: list[tuple[list[DraftRow], Samples]]) -> dict[int, tuple[int, ...]] | None:
        guesses: dict[int, list[int]] = {}
        for rows, samples in passes:
            for row, chosen in zip(rows, samples.read(), strict=True):
                if not chosen.is_finite:
                    self._runner.trim()
                    return None
                guesses.setdefault(row.segment, []).append(chosen.token_id)
        return {segment: tuple(tokens) for segment, tokens in guesses.items()}

    def _known(self, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        """`token_ids` with 0 for those behind its embedding: the target's may be padded further."""
        if max(token_ids) < self._vocabulary_size:
            return token_ids
        return tuple(token if token < self._vocabulary_size else 0 for token in token_ids)


def _samples_of(batch: Batch, row: DraftRow) -> list[Sample]:
    """How the target is going to choose behind each token of the row, the first of which is known."""
    own = [sample for sample in batch.samples if sample.segment == row.segment]
    return [replace(one, params=replace(one.params, num_top_logprobs=None)) for one in own]


def _batch_of(segments: list[Segment], num_blocks: int) -> Batch:
    return Batch(
        segments=tuple(segments),
        samples=(),
        copies=(),
        scrubs=(),
        ended=(),
        saves=(),
        restores=(),
        dropped=(),
        num_blocks=num_blocks,
    )


def _next_segment(row: DraftRow, target: Segment, place: int, source: int) -> Segment:
    """The pass behind guess number `place` of the row, which is row `source` of the guesses before."""
    start = row.missing.end + place
    return Segment(
        seq_id=row.missing.seq_id,
        start=start,
        token_ids=(0,),
        source_row=source,
        block_table=target.block_table[: num_blocks_for(start + 1)],
    )
