"""Which slots of its arena the draft model has filled. No tensors here.

The draft model keeps its keys and values in blocks of the same numbers as the target's, so one block table leads to
both. It is given tokens only once it is asked to guess, all that it lacks at once; until then it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence as AbstractSequence

from mlx_manager.engine.blocks import BLOCK_SIZE, HOLE


class DraftLedger:
    """For each block, how many of its first slots hold what belongs to the tokens that the target has there."""

    def __init__(self, num_blocks: int) -> None:
        self._num_filled = [0] * num_blocks

    def allocated(self, block: int) -> None:
        """The block was handed out to be written anew, or copied into: copies are made in the target's arena alone."""
        self._num_filled[block] = 0

    def written(self, block_table: AbstractSequence[int], start: int, end: int) -> None:
        """The target is about to write positions `start` to `end - 1`: other tokens than the last there, for all we
        know, so nothing of them holds any more. That undoes guesses that did not come true."""
        first = start // BLOCK_SIZE
        for index in range(first, (end - 1) // BLOCK_SIZE + 1):
            block = block_table[index]
            kept = start % BLOCK_SIZE if index == first else 0
            self._num_filled[block] = min(self._num_filled[block], kept)

    def num_filled(self, block_table: AbstractSequence[int], end: int) -> int:
        """How many of the first `end` positions are there, one after the other."""
        for index, block in enumerate(block_table):
            num_before = index * BLOCK_SIZE
            if num_before >= end:
                break
            filled = 0 if block == HOLE else self._num_filled[block]
            if filled < BLOCK_SIZE:
                return min(num_before + filled, end)
        return min(len(block_table) * BLOCK_SIZE, end)

    def fill(self, block_table: AbstractSequence[int], start: int, end: int) -> None:
        """The draft model is about to write positions `start` to `end - 1`, behind all that it has."""
        for index in range(start // BLOCK_SIZE, (end - 1) // BLOCK_SIZE + 1):
            self._num_filled[block_table[index]] = min(end - index * BLOCK_SIZE, BLOCK_SIZE)

    def forget(self) -> None:
        """Nothing is there any more."""
        self._num_filled = [0] * len(self._num_filled)
