"""Idle blocks are offered to the store each until it has them, and then left alone: not looked at again and again."""

from __future__ import annotations

from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.prefix import ROOT_KEY
from mlx_manager.engine.tables import BlockTables
from tests.engine.host_store import HostStore

NUM_BLOCKS = 1000


class CountingStore(HostStore):
    """Counts how often it was asked, and takes nothing while it is busy."""

    def __init__(self) -> None:
        super().__init__()
        self.num_asked = 0
        self.kept: set[bytes] = set()

    def wants(self, key: bytes) -> bool:
        """Whether it is not here."""
        self.num_asked += 1
        return key not in self.kept


def cached_blocks(store: CountingStore) -> BlockTables:
    tables = BlockTables(NUM_BLOCKS, has_prefix_cache=True, checkpoints=None, window=None, store=store)
    for number in range(NUM_BLOCKS):
        block = tables.blocks.allocate()
        tables.prefix.enter(block, ROOT_KEY, range(number * BLOCK_SIZE, (number + 1) * BLOCK_SIZE))
        tables.blocks.release(block, keep=True)
    return tables


def test_all_are_offered_once_and_looked_at_twice() -> None:
    store = CountingStore()
    tables = cached_blocks(store)
    offered: list[int] = []
    while spilled := tables.unspilled(8):
        offered += [block for block, _ in spilled]
        store.kept |= {key for _, key in spilled}
    assert offered == list(range(NUM_BLOCKS))
    assert store.num_asked <= 2 * NUM_BLOCKS
    assert tables.unspilled(8) == []
    assert store.num_asked <= 2 * NUM_BLOCKS
    tables.blocks.check_integrity()


def test_what_a_busy_store_left_out_is_offered_again_and_what_was_used_again_is_looked_at_anew() -> None:
    store = CountingStore()
    tables = cached_blocks(store)
    first = tables.unspilled(8)
    assert tables.unspilled(8) == first
    store.kept |= {key for _, key in first}
    block, key = first[0]
    assert tables.unspilled(1) == [(8, tables.prefix.full_key(8))]
    tables.blocks.acquire(block)
    tables.blocks.release(block, keep=True)
    store.kept.discard(key)
    assert (block, key) in tables.unspilled(NUM_BLOCKS)
