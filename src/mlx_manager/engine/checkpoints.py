"""Books of state checkpoints: recurrent layers keep a state per sequence, and copies of it at block boundaries.

A prefix can be resumed only where a copy of the state was kept, whatever blocks of keys and values are still there.
The copies themselves are the runner's; here are their ids, the prefix keys they stand for, and which goes first when
there are too many. No tensors here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as AbstractSequence


class CheckpointBook:
    """At most `max_checkpoints` copies; the least recently used goes first."""

    def __init__(self, max_checkpoints: int) -> None:
        self._max_checkpoints = max_checkpoints
        self._id_by_key: OrderedDict[bytes, int] = OrderedDict()
        self._next_id = 0
        self._dropped: list[int] = []

    @property
    def num_kept(self) -> int:
        """Copies that can be found."""
        return len(self._id_by_key)

    def new_id(self) -> int:
        """An id for a copy that the next step will make."""
        self._next_id += 1
        return self._next_id

    def keep(self, key: bytes, checkpoint: int) -> None:
        """Copy `checkpoint` is the state behind the block with prefix key `key`. An older copy of it stays instead."""
        if self._max_checkpoints == 0 or key in self._id_by_key:
            self._dropped.append(checkpoint)
            return
        self._id_by_key[key] = checkpoint
        if len(self._id_by_key) > self._max_checkpoints:
            _, oldest = self._id_by_key.popitem(last=False)
            self._dropped.append(oldest)

    def forget(self, key: bytes) -> None:
        """Give up the copy for `key`, if there is one: what it was made from is not to be trusted."""
        checkpoint = self._id_by_key.pop(key, None)
        if checkpoint is not None:
            self._dropped.append(checkpoint)

    def forget_all(self) -> None:
        """Give up every copy."""
        self._dropped.extend(self._id_by_key.values())
        self._id_by_key.clear()

    def discard(self, checkpoint: int) -> None:
        """A copy that will never be found: its sequence ended before its tokens were known."""
        self._dropped.append(checkpoint)

    def deepest(self, keys: AbstractSequence[bytes]) -> int:
        """How many of the leading `keys` can be resumed behind: up to the last that has a copy; 0 if none has."""
        for depth in range(len(keys), 0, -1):
            if keys[depth - 1] in self._id_by_key:
                return depth
        return 0

    def has(self, key: bytes) -> bool:
        """Whether there is a copy for `key`."""
        return key in self._id_by_key

    def use(self, key: bytes) -> int:
        """The copy for `key`, which becomes the last to go. Raises `KeyError`."""
        self._id_by_key.move_to_end(key)
        return self._id_by_key[key]

    def take_dropped(self) -> tuple[int, ...]:
        """Copies that nobody can ask for any more; each is told once."""
        dropped, self._dropped = tuple(self._dropped), []
        return dropped
