"""Books of state checkpoints: recurrent layers keep a state per sequence, and copies of it at block boundaries.

A prefix can be resumed only where a copy of the state was kept, whatever blocks of keys and values are still there.
The copies themselves are the runner's; here are their ids, the prefix keys they stand for, and which goes first when
there are too many. No tensors here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from collections.abc import Sequence as AbstractSequence


class CheckpointBook:
    """At most `max_checkpoints` copies; the least recently used goes first.

    `on_evict` is told each copy that goes for that reason alone, while it is still there: (key, checkpoint).
    """

    def __init__(self, max_checkpoints: int) -> None:
        self.max_checkpoints = max_checkpoints
        self.on_evict: Callable[[bytes, int], None] = lambda key, checkpoint: None
        self._id_by_key: OrderedDict[bytes, int] = OrderedDict()
        self._passing: set[bytes] = set()
        """Keys of copies that a later one of the same answer has left behind."""
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

    def keep(self, key: bytes, checkpoint: int, left_behind: bytes | None = None) -> None:
        """Copy `checkpoint` is the state behind the block with prefix key `key`. An older copy of it stays instead.

        `left_behind` is the key of the copy before it in the same answer: who goes on with the answer needs this one.
        """
        self._passing.discard(key)
        if left_behind is not None and left_behind in self._id_by_key:
            self._passing.add(left_behind)
        if self.max_checkpoints == 0 or key in self._id_by_key:
            self._dropped.append(checkpoint)
            return
        self._id_by_key[key] = checkpoint
        if len(self._id_by_key) > self.max_checkpoints:
            oldest_key, oldest = next(iter(self._id_by_key.items()))
            if oldest_key not in self._passing:
                self.on_evict(oldest_key, oldest)
            self.forget(oldest_key)

    def lasting(self) -> Iterator[tuple[bytes, int]]:
        """(key, checkpoint) of the copies that prompts may go on from, the one used last first.

        Not those inside an answer, which a later one has left behind: they are many, and large.
        """
        return ((key, self._id_by_key[key]) for key in reversed(self._id_by_key) if key not in self._passing)

    def forget(self, key: bytes) -> None:
        """Give up the copy for `key`, if there is one: what it was made from is not to be trusted."""
        self._passing.discard(key)
        checkpoint = self._id_by_key.pop(key, None)
        if checkpoint is not None:
            self._dropped.append(checkpoint)

    def forget_all(self) -> None:
        """Give up every copy."""
        self._dropped.extend(self._id_by_key.values())
        self._id_by_key.clear()
        self._passing.clear()

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
