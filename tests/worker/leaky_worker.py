"""A worker with a planted fault: its arena writes what belongs into one block into another one too."""

from __future__ import annotations

import sys
from functools import partial

import mlx.core as mx

from mlx_manager.engine.arena import Arena
from mlx_manager.engine.planes import Places
from mlx_manager.engine.runner import PagedRunner
from mlx_manager.worker.__main__ import main
from mlx_manager.worker.load import load

_FROM, _INTO = 3, 7
"""Every write to block 3 also lands in block 7: one row's keys and values reach another row."""


class LeakyArena(Arena):
    """Leaks one block between rows."""

    def write(self, layer: int, places: Places, keys: mx.array, values: mx.array) -> None:
        """As the real one, and once more where it should not."""
        super().write(layer, places, keys, values)
        leaked = Places(mx.where(places.blocks == _FROM, _INTO, places.blocks), places.slots)
        super().write(layer, leaked, keys, values)


class LeakyRunner(PagedRunner):
    """Runs over the leaky arena."""

    arena_class = LeakyArena


if __name__ == "__main__":
    sys.exit(main(partial(load, paged_runner=LeakyRunner)))
