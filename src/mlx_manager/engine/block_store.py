"""What the scheduler knows of blocks and states that are kept outside the arena. No tensors here; `disk_cache` is the
real one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

StoredBlock = tuple[bytes, ...]
"""What each array of the arena holds of one block, [num_kv_heads, BLOCK_SIZE, head_dim] each, as it lies in memory."""

StoredState = tuple[bytes, ...]
"""A copy of one sequence's recurrent state: first a description of its arrays (see `states`), then each as it lies in
memory."""


class BlockStore(Protocol):
    """Where the scheduler looks for what the arena does not hold (any more). A key is one of the prefix index."""

    @property
    def num_at_once(self) -> int:
        """Blocks to fetch in one step, so that neither running answers wait for long nor much is on its way."""
        ...

    @property
    def fetch_s(self) -> float | None:
        """Seconds that fetching a block takes; None before the first."""
        ...

    @property
    def state_fetch_s(self) -> float | None:
        """Seconds that fetching a state takes; None before the first."""
        ...

    def __contains__(self, key: bytes) -> bool:
        """Whether the block with this key is here, or about to be."""
        ...

    def has_state(self, key: bytes) -> bool:
        """Whether the state behind the block with this key is here, or about to be."""
        ...

    def wants(self, key: bytes) -> bool:
        """Whether the block with this key has never been here, as far as is known."""
        ...

    def wants_state(self, key: bytes) -> bool:
        """Whether the state behind the block with this key has never been here, as far as is known."""
        ...

    def fetch(self, key: bytes) -> StoredBlock | None:
        """The block with this key; None where it is not here after all, nor said to be any more."""
        ...

    def fetch_state(self, key: bytes) -> StoredState | None:
        """The state behind the block with this key; None as with `fetch`."""
        ...

    def touch(self, keys: Sequence[bytes], state: bytes | None) -> None:
        """What was fetched was used: blocks with `keys`, first ones first, and the state behind the block `state`."""
        ...

    def forget(self, keys: Sequence[bytes]) -> None:
        """Blocks with these keys, and states behind them, are not to be trusted."""
        ...
