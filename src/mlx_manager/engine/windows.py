"""Models all of whose attention has a window: which blocks of a sequence nothing will read again. No tensors here.

    block table  [hole, hole, hole, 17, 4, 23]   a hole is a block that was given back; holes come first
    positions     0 …             96 …     191   the next token reads the last `num_tokens`, itself included

One layer without a window keeps every block in use, because a block id stands for all layers; then the layers with
windows may have an arena of their own (see `residency`, and decision 0007).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

from mlx_manager.engine.blocks import BLOCK_SIZE, HOLE, num_blocks_for


@dataclass(frozen=True)
class Window:
    """The longest window of such a model, and the longest step, which decide what one sequence holds at once."""

    num_tokens: int
    """Positions that a token sees, itself included."""
    max_step_tokens: int

    @property
    def max_held_blocks(self) -> int:
        """The most blocks that a sequence holds at once, however long it is."""
        # A window and a chunk may each begin inside a block.
        return num_blocks_for(self.num_tokens) + num_blocks_for(self.max_step_tokens) + 2

    def first_block(self, position: int) -> int:
        """The first block that a token at `position`, or any later one, reads."""
        return max(0, position + 1 - self.num_tokens) // BLOCK_SIZE

    def resume(self, found: AbstractSequence[int | None], may_resume: Callable[[int], bool]) -> list[int]:
        """The table of the deepest prefix that a sequence can go on behind, given which of its blocks were found.

        `may_resume` is asked about numbers of blocks, deepest first. Blocks that nothing will read are holes.
        """
        num_before = _run_lengths(found)
        for depth in range(len(found), 0, -1):
            first = self.first_block(depth * BLOCK_SIZE)
            if num_before[depth] >= depth - first and may_resume(depth):
                return [HOLE if block is None or index < first else block for index, block in enumerate(found[:depth])]
        return []


@dataclass(frozen=True)
class WindowSlots:
    """An arena of their own for the layers with windows, beside others that see everything (see `residency`)."""

    num_slots: int
    window: int
    """The longest of the windows, in tokens."""


def longest_window(windows: AbstractSequence[int | None]) -> int | None:
    """The longest of the windows of a model's attention layers; None where a layer has none, or there is no layer."""
    known = [window for window in windows if window is not None]
    return max(known) if known and len(known) == len(windows) else None


def _run_lengths(found: AbstractSequence[int | None]) -> list[int]:
    """For each number of leading blocks, how many were found at its end without a gap."""
    lengths = [0]
    for block in found:
        lengths.append(0 if block is None else lengths[-1] + 1)
    return lengths
