"""What of a prompt is taken from the store, and whether that is faster than to compute it. No tensors here."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass

from mlx_manager.engine.block_store import BlockStore, StoredBlock, StoredState
from mlx_manager.engine.blocks import BLOCK_SIZE
from mlx_manager.engine.checkpoints import CheckpointBook
from mlx_manager.engine.windows import Window

_TRIED_AGAIN_AFTER = 32
"""Prompts for which fetching was the slower way, after which it is measured again: a disk may only have been busy."""


@dataclass(frozen=True)
class Restored:
    """The leading `num_blocks` of a prompt can be gone on behind."""

    num_blocks: int
    first_block: int
    """No layer reads a block before this one."""
    blocks: dict[int, StoredBlock]
    """By logical block: those from `first_block` on that the arena does not hold."""
    state: StoredState | None
    """Behind the last block; None where the model has none, or a copy of it is kept already."""
    num_in_store: int
    """Leading blocks that could be gone on behind with further calls: `num_blocks`, or more."""


class Restorer:
    """Looks for more of a prompt in `store` than the arena and the kept copies of states have."""

    def __init__(self, store: BlockStore, checkpoints: CheckpointBook | None, window: Window | None) -> None:
        self.store = store
        self._checkpoints = checkpoints
        self._window = window
        self._num_declined = 0

    def restore(
        self,
        keys: AbstractSequence[bytes],
        num_held: int,
        find: Callable[[bytes], int | None],
        prefill_token_s: float | None,
    ) -> Restored | None:
        """More than the `num_held` leading blocks of `keys`, fetched; None where there is none, or computing is faster.

        Of many blocks, the first ones; but all at once where only a state behind the last, or a window, makes them of
        use. `find` is asked for blocks of the arena. What turns out to be missing or damaged is done without.
        """
        fetched: dict[int, StoredBlock] = {}
        while True:
            num_in_store = depth = self._depth(keys, num_held, find)
            if self._checkpoints is None and self._window is None:
                depth = min(depth, num_held + self.store.num_at_once)
            first = 0 if self._window is None else self._window.first_block(depth * BLOCK_SIZE)
            missing = [index for index in range(first, depth) if find(keys[index]) is None]
            needs_state = depth > 0 and self._checkpoints is not None and not self._checkpoints.has(keys[depth - 1])
            num_to_fetch = sum(index not in fetched for index in missing)
            if depth <= num_held or not self._is_faster(num_to_fetch, needs_state, depth - num_held, prefill_token_s):
                return None
            # The state first: without it the blocks are in vain.
            state = self.store.fetch_state(keys[depth - 1]) if needs_state else None
            if needs_state and state is None:
                continue
            if not self._fetch(keys, missing, fetched):
                continue
            self.store.touch(keys[first:depth], keys[depth - 1] if needs_state else None)
            return Restored(depth, first, {index: fetched[index] for index in missing}, state, num_in_store)

    def _depth(self, keys: AbstractSequence[bytes], num_held: int, find: Callable[[bytes], int | None]) -> int:
        """How many leading blocks can be gone on behind with what the arena and the store say that they have."""
        is_there = (find(key) is not None or key in self.store for key in keys)
        if self._window is not None:
            found = [0 if each else None for each in is_there]
            return len(self._window.resume(found, lambda depth: self._may_resume(keys, depth)))
        depth = sum(1 for _ in itertools.takewhile(bool, is_there))
        while depth > num_held and not self._may_resume(keys, depth):
            depth -= 1
        return depth

    def _may_resume(self, keys: AbstractSequence[bytes], depth: int) -> bool:
        key = keys[depth - 1]
        return self._checkpoints is None or self._checkpoints.has(key) or self.store.has_state(key)

    def _fetch(self, keys: AbstractSequence[bytes], indices: list[int], fetched: dict[int, StoredBlock]) -> bool:
        """Fetch the blocks that are not `fetched` yet. False: one of them is not there, and the store knows it now."""
        for index in indices:
            if index in fetched:
                continue
            block = self.store.fetch(keys[index])
            if block is None:
                return False
            fetched[index] = block
        return True

    def _is_faster(self, num_blocks: int, has_state: bool, num_gained: int, prefill_token_s: float | None) -> bool:
        """Whether to fetch `num_blocks`, and a state, takes less than to compute `num_gained` blocks.

        Both are measured; it is tried as long as one of them is not known, and now and then again.
        """
        block_s = self.store.fetch_s if num_blocks else 0.0
        state_s = self.store.state_fetch_s if has_state else 0.0
        if block_s is None or state_s is None or prefill_token_s is None:
            return True
        if num_blocks * block_s + state_s < num_gained * BLOCK_SIZE * prefill_token_s:
            return True
        self._num_declined += 1
        return self._num_declined % _TRIED_AGAIN_AFTER == 0
