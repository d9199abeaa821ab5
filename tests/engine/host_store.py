"""What a `HostArena` keeps on disk, in a dictionary: for tests of the scheduler without MLX and without files."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mlx_manager.engine.block_store import StoredBlock, StoredState
from tests.engine.host_arena import HostArena


class HostStore:
    """Implements `BlockStore`. Files vanish when a test says so, and the store only knows when it looks."""

    fetch_s: float | None = None
    state_fetch_s: float | None = None

    def __init__(self, num_at_once: int = 64) -> None:
        self.num_at_once = num_at_once
        self._files: dict[tuple[str, bytes], tuple[bytes, ...]] = {}
        self._known: set[tuple[str, bytes]] = set()
        self.num_fetched = 0

    def __contains__(self, key: bytes) -> bool:
        return ("block", key) in self._known

    def has_state(self, key: bytes) -> bool:
        """Whether it is said to be here."""
        return ("state", key) in self._known

    def wants(self, key: bytes) -> bool:
        """Whether it is not."""
        return key not in self

    def wants_state(self, key: bytes) -> bool:
        """Whether it is not."""
        return not self.has_state(key)

    def fetch(self, key: bytes) -> StoredBlock | None:
        """A block, unless it has vanished."""
        return self._fetch("block", key)

    def fetch_state(self, key: bytes) -> StoredState | None:
        """A state, unless it has vanished."""
        return self._fetch("state", key)

    def touch(self, keys: Sequence[bytes], state: bytes | None) -> None:
        """Nothing here is removed for its age."""

    def forget(self, keys: Sequence[bytes]) -> None:
        """Remove them."""
        for key in keys:
            for kind in ("block", "state"):
                self._files.pop((kind, key), None)
                self._known.discard((kind, key))

    def take(self, spills: Sequence[tuple[int, bytes]], states: Sequence[tuple[int, bytes]], arena: HostArena) -> None:
        """Read from the arena what is to be kept, as it is now."""
        for block, key in spills:
            self._put("block", key, tuple(json.dumps(slots).encode() for slots in arena.block(block)))
        for checkpoint, key in states:
            copy = arena.states and arena.states.copy_of(checkpoint)
            if copy is not None:
                self._put("state", key, (json.dumps(copy).encode(),))

    def lose(self, choose: int) -> None:
        """One of the files vanishes."""
        if self._files:
            del self._files[sorted(self._files)[choose % len(self._files)]]

    def _put(self, kind: str, key: bytes, content: tuple[bytes, ...]) -> None:
        self._files[kind, key] = content
        self._known.add((kind, key))

    def _fetch(self, kind: str, key: bytes) -> tuple[bytes, ...] | None:
        content = self._files.get((kind, key))
        if content is None:
            self._known.discard((kind, key))
        else:
            self.num_fetched += 1
        return content
