"""How a KV budget is split where some attention layers have windows and others see everything."""

from __future__ import annotations

from dataclasses import dataclass

_MOST_SLOTS = 0.75
"""Of the blocks that the budget holds of all layers, at most so many slots: fewer than that save too little."""
_LEAST_WINDOWS = 2
"""Requests whose windows have slots at once, however long the context is to be."""
_LEAST_GAIN = 1.25
"""Fewer blocks more than without a split are not worth giving up the prefixes whose windows were passed."""


@dataclass(frozen=True)
class KvSplit:
    """What the budget holds."""

    num_blocks: int
    """Blocks of the layers that see everything."""
    num_slots: int
    """Blocks of the layers with windows."""


def split_kv_budget(
    budget_bytes: int,
    *,
    block_bytes: int,
    slot_bytes: int,
    num_held: int,
    max_batch_size: int,
    num_wanted: int,
) -> KvSplit | None:
    """As many slots as a full batch holds, and fewer as long as one sequence of `num_wanted` blocks does not fit.

    A block takes `block_bytes` in the layers that see everything and a slot `slot_bytes` in those with windows; one
    sequence holds up to `num_held` slots at once. None where all layers had better share their blocks.
    """
    if not block_bytes or not slot_bytes:
        return None
    num_whole = budget_bytes // (block_bytes + slot_bytes)
    num_slots = min(max_batch_size * num_held, int(num_whole * _MOST_SLOTS))
    num_affordable = (budget_bytes - num_wanted * block_bytes) // slot_bytes
    num_slots = max(_LEAST_WINDOWS * num_held, min(num_slots, num_affordable))
    num_blocks = (budget_bytes - num_slots * slot_bytes) // block_bytes
    if num_blocks < num_whole * _LEAST_GAIN:
        return None
    return KvSplit(num_blocks, num_slots)
