"""What the scheduler knows of blocks that are kept outside the arena. No tensors here; `disk_cache` is the real one."""

from __future__ import annotations

from typing import Protocol

StoredBlock = tuple[bytes, ...]
"""What each array of the arena holds of one block, [num_kv_heads, BLOCK_SIZE, head_dim] each, as it lies in memory."""


class BlockStore(Protocol):
    """Where the scheduler looks for blocks that the arena does not hold (any more)."""

    @property
    def fetch_s(self) -> float | None:
        """Seconds that fetching a block takes; None before the first."""
        ...

    def __contains__(self, key: bytes) -> bool:
        """Whether the block with this key is here, or about to be."""
        ...

    def fetch(self, key: bytes) -> StoredBlock | None:
        """The block with this key; None where it is not here after all."""
        ...
