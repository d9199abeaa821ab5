"""A draft model that computes on the host, see `host_arena`. One of the target's vocabulary is the target itself."""

from __future__ import annotations

from dataclasses import replace

from mlx_manager.engine.batch import Batch, DraftRow, Segment
from mlx_manager.engine.blocks import num_blocks_for
from tests.engine.host_arena import HostArena


class HostGuesser:
    """Implements `Guesser`, pass by pass.

    `num_given` counts the tokens that it was given, `num_sound` the guesses before the one of each draft, number
    `spoiled`, that it changes on purpose and goes on from.
    """

    arena_bytes = 0

    def __init__(self, num_blocks: int, vocabulary: int, spoiled: int | None = None) -> None:
        self.max_context = 0
        self._spoiled = spoiled
        self.num_sound = 0
        self._arena = HostArena(num_blocks, vocabulary)
        self._arena.is_shared_while_written = True
        self.num_given = 0

    def trim(self) -> None:
        """What was there is lost."""
        self._arena.clear()

    def guess(self, batch: Batch) -> dict[int, tuple[int, ...]] | None:
        """All rows are given what they lack in one pass; those that are to guess go on, a pass for each guess."""
        self.num_given += sum(row.missing.num_tokens for row in batch.draft_rows)
        guesses: dict[int, list[int]] = {row.segment: [] for row in batch.draft_rows if row.num_guesses}
        asked = {row.segment: row for row in batch.draft_rows}
        segments = [row.missing for row in batch.draft_rows]
        while segments:
            chosen = self._run(batch, segments, [row for row in asked.values() if row.num_guesses], guesses)
            if None in chosen:
                self.trim()
                return None
            asked = {index: row for index, row in asked.items() if len(guesses.get(index, ())) < row.num_guesses}
            segments = [_next(batch.segments[index], row, guesses[index]) for index, row in asked.items()]
        self.num_sound += sum(len(tokens[: self._spoiled]) for tokens in guesses.values())
        return {segment: tuple(tokens) for segment, tokens in guesses.items()}

    def _run(
        self, batch: Batch, segments: list[Segment], asked: list[DraftRow], guesses: dict[int, list[int]]
    ) -> list[int | None]:
        """One pass; a guess more for each of `asked`."""
        places = {segment.seq_id: place for place, segment in enumerate(segments)}
        samples = []
        for row in asked:
            own = [sample for sample in batch.samples if sample.segment == row.segment]
            said = len(guesses[row.segment])
            samples.append(replace(own[said], segment=places[row.missing.seq_id], num_before_end=0))
        chosen = self._arena.run(
            replace(batch, segments=tuple(segments), samples=tuple(samples), copies=(), scrubs=()), ()
        )
        for row, token in zip(asked, chosen, strict=True):
            is_spoiled = len(guesses[row.segment]) == self._spoiled
            guesses[row.segment].append(((token or 0) + is_spoiled) % self._arena.vocabulary)
        return chosen


def _next(target: Segment, row: DraftRow, guesses: list[int]) -> Segment:
    start = row.missing.end + len(guesses) - 1
    return Segment(target.seq_id, start, (guesses[-1],), None, target.block_table[: num_blocks_for(start + 1)])
