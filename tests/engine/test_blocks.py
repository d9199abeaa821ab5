"""The block pool against a model of it: every block in one state, books balanced, the oldest cached reused first."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlx_manager.engine.blocks import BLOCK_SIZE, BlockPool, OutOfBlocks, num_blocks_for


class PoolMachine(RuleBasedStateMachine):
    """References taken and dropped in any order."""

    @initialize(num_blocks=st.integers(1, 12))
    def start(self, num_blocks: int) -> None:
        self.evicted: list[int] = []
        self.pool = BlockPool(num_blocks, on_evict=self.evicted.append)
        self.references: dict[int, int] = {}
        self.cached: list[int] = []
        self.free = set(range(num_blocks))
        self.settled: set[int] = set()

    @rule()
    def allocate(self) -> None:
        self.evicted.clear()
        if not self.free and not self.cached:
            with pytest.raises(OutOfBlocks):
                self.pool.allocate()
            return
        block = self.pool.allocate()
        if self.free:
            assert block in self.free, "contents were given up while a block was free"
            assert self.evicted == []
            self.free.remove(block)
        else:
            assert block == self.cached.pop(0), "not the oldest cached block"
            assert self.evicted == [block]
        self.references[block] = 1

    @precondition(lambda self: self.references or self.cached)
    @rule(choose=st.integers(0, 1 << 16))
    def acquire(self, choose: int) -> None:
        candidates = sorted([*self.references, *self.cached])
        block = candidates[choose % len(candidates)]
        self.pool.acquire(block)
        if block in self.cached:
            self.cached.remove(block)
        self.references[block] = self.references.get(block, 0) + 1

    @precondition(lambda self: self.references)
    @rule(choose=st.integers(0, 1 << 16), keep=st.booleans())
    def release(self, choose: int, keep: bool) -> None:
        block = sorted(self.references)[choose % len(self.references)]
        self.pool.release(block, keep=keep)
        self.references[block] -= 1
        if self.references[block] == 0:
            del self.references[block]
            if keep:
                self.cached.append(block)
                self.settled.discard(block)
            else:
                self.free.add(block)

    @precondition(lambda self: self.cached)
    @rule(choose=st.integers(0, 1 << 16))
    def settle(self, choose: int) -> None:
        block = self.cached[choose % len(self.cached)]
        self.pool.settle(block)
        self.settled.add(block)

    @rule()
    def forget_cached(self) -> None:
        self.evicted.clear()
        self.pool.forget_cached()
        assert self.evicted == self.cached
        self.free |= set(self.cached)
        self.cached.clear()

    @rule()
    def reset(self) -> None:
        """Only a pool of which nobody uses anything can forget all of it."""
        if self.references:
            with pytest.raises(ValueError, match="in use"):
                self.pool.reset()
            return
        self.evicted.clear()
        self.pool.reset()
        assert self.evicted == self.cached
        assert self.pool.num_touched == 0
        self.free |= set(self.cached)
        self.cached.clear()

    @rule(choose=st.integers(0, 1 << 16))
    def misuse(self, choose: int) -> None:
        """A free block cannot be acquired, and one that nobody uses cannot be released."""
        block = choose % self.pool.num_blocks
        if block in self.free:
            with pytest.raises(KeyError):
                self.pool.acquire(block)
        if block not in self.references:
            with pytest.raises(ValueError, match="released more often"):
                self.pool.release(block, keep=True)

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.check_integrity()
        assert self.pool.num_used == len(self.references)
        assert self.pool.num_cached == len(self.cached)
        assert self.pool.num_free == len(self.free)
        assert self.pool.num_available == len(self.free) + len(self.cached)
        assert list(self.pool.unsettled) == [block for block in self.cached if block not in self.settled]
        assert all(self.pool.num_references(block) == count for block, count in self.references.items())
        assert all(block < self.pool.num_touched for block in [*self.references, *self.cached])


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)


def test_the_arena_is_touched_no_further_than_needed() -> None:
    pool = BlockPool(100)
    for _ in range(50):
        pool.release(pool.allocate(), keep=False)
    assert pool.num_touched == 1


def test_a_pool_needs_a_block() -> None:
    with pytest.raises(ValueError, match="at least one"):
        BlockPool(0)


@pytest.mark.parametrize(("num_tokens", "num_blocks"), [(0, 0), (1, 1), (BLOCK_SIZE, 1), (BLOCK_SIZE + 1, 2)])
def test_blocks_for_tokens(num_tokens: int, num_blocks: int) -> None:
    assert num_blocks_for(num_tokens) == num_blocks
