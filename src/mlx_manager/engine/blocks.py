"""The block pool: which physical KV blocks are free, cached or used, and by how many sequences. No tensors here.

A block is in exactly one state:

    free    never written since it was last given back, or never written at all
    cached  nobody uses it, its contents can still be found (see `prefix`), reused oldest first when room is needed
    used    `num_references` sequences have it in their block table
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

BLOCK_SIZE = 32
"""Tokens per block."""
HOLE = -1
"""In a block table: this block was given back, because no layer will read it again (see `windows`)."""


def num_blocks_for(num_tokens: int) -> int:
    """Blocks that hold `num_tokens` tokens."""
    return -(-num_tokens // BLOCK_SIZE)


class OutOfBlocks(Exception):
    """No block is free and none is cached; the caller has to preempt or wait."""


class BlockPool:
    """Hands out ids of physical blocks, 0 to `num_blocks - 1`, with reference counts.

    `on_evict` is told each block whose cached contents are given up, before the block is handed out again.
    """

    def __init__(self, num_blocks: int, on_evict: Callable[[int], None] = lambda block: None) -> None:
        if num_blocks < 1:
            raise ValueError(f"a block pool needs at least one block, not {num_blocks}")
        self.num_blocks = num_blocks
        self._on_evict = on_evict
        self._num_references = [0] * num_blocks
        self._recycled: list[int] = []
        # Blocks from here on were never handed out: they need no arena yet.
        self._first_fresh = 0
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._unsettled: OrderedDict[int, None] = OrderedDict()
        self._num_used = 0

    @property
    def num_free(self) -> int:
        """Blocks whose contents nobody can find."""
        return len(self._recycled) + self.num_blocks - self._first_fresh

    @property
    def num_cached(self) -> int:
        """Blocks kept for their contents alone."""
        return len(self._cached)

    @property
    def cached(self) -> Iterable[int]:
        """The blocks kept for their contents alone, oldest first."""
        return self._cached

    @property
    def unsettled(self) -> Iterable[int]:
        """Of the cached blocks those that nobody has settled since they became so, oldest first."""
        return self._unsettled

    def settle(self, block: int) -> None:
        """A cached block need not be looked at again while it is cached."""
        self._unsettled.pop(block, None)

    @property
    def num_used(self) -> int:
        """Blocks in at least one block table."""
        return self._num_used

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can hand out, one after the other."""
        return self.num_free + self.num_cached

    @property
    def num_touched(self) -> int:
        """Blocks 0 to this - 1 have been handed out at some time; the arena has to hold these."""
        return self._first_fresh

    def num_references(self, block: int) -> int:
        """How many block tables hold `block`."""
        return self._num_references[block]

    def allocate(self) -> int:
        """Hand out a block with one reference: a recycled one, else a fresh one, else the oldest cached one.

        Raises `OutOfBlocks`.
        """
        if self._recycled:
            block = self._recycled.pop()
        elif self._first_fresh < self.num_blocks:
            block = self._first_fresh
            self._first_fresh += 1
        elif self._cached:
            block, _ = self._cached.popitem(last=False)
            self.settle(block)
            self._on_evict(block)
        else:
            raise OutOfBlocks
        self._num_references[block] = 1
        self._num_used += 1
        return block

    def acquire(self, block: int) -> None:
        """Add a reference to a used or cached block."""
        if self._num_references[block] == 0:
            # KeyError here means that a free block was acquired: its contents are not to be trusted.
            del self._cached[block]
            self.settle(block)
            self._num_used += 1
        self._num_references[block] += 1

    def release(self, block: int, *, keep: bool) -> None:
        """Drop a reference. When it was the last, `keep` says whether the block becomes cached or free."""
        if self._num_references[block] < 1:
            raise ValueError(f"block {block} is released more often than it was acquired")
        self._num_references[block] -= 1
        if self._num_references[block] > 0:
            return
        self._num_used -= 1
        if keep:
            self._cached[block] = None
            self._unsettled[block] = None
        else:
            self._recycled.append(block)

    def forget_cached(self) -> None:
        """Give up every cached block."""
        for block in self._cached:
            self._on_evict(block)
            self._recycled.append(block)
        self._cached.clear()
        self._unsettled.clear()

    def reset(self) -> None:
        """Forget that any block was ever handed out. Raises `ValueError` while one is in use."""
        if self._num_used:
            raise ValueError(f"{self._num_used} blocks are in use")
        self.forget_cached()
        self._recycled.clear()
        self._first_fresh = 0

    def recycled(self) -> list[int]:
        """Free blocks that have been written at some time."""
        return list(self._recycled)

    def check_integrity(self) -> None:
        """Prove that every block is in exactly one state and the books add up. Raises `AssertionError`."""
        used = {block for block, count in enumerate(self._num_references) if count > 0}
        cached = set(self._cached)
        recycled = set(self._recycled)
        fresh = set(range(self._first_fresh, self.num_blocks))
        states = (used, cached, recycled, fresh)
        if len(recycled) != len(self._recycled) or sum(map(len, states)) != self.num_blocks:
            raise AssertionError("the block pool lost or doubled a block")
        if set().union(*states) != set(range(self.num_blocks)):
            raise AssertionError("the block pool holds a block in two states")
        if not set(self._unsettled) <= cached:
            raise AssertionError("the block pool would have a block looked at that is not cached")
        if len(used) != self._num_used:
            raise AssertionError("the block pool miscounts its used blocks")
