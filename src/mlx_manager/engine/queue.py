"""The waiting queue: three priorities with ageing, so that urgent requests go first and nothing starves."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from mlx_manager.engine.sequence import Sequence
from mlx_manager.ir import Priority

_LEVEL = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


def turn_s(priority: Priority, arrival_s: float, ageing_s: float) -> float:
    """When a request's turn is, in seconds of the arrival clock: the smaller goes first.

    Each priority below high counts as having arrived `ageing_s` later. So a waiting request rises by one priority every
    `ageing_s` seconds, and anything that arrives `2 * ageing_s` after a request can never overtake it.
    """
    return arrival_s + _LEVEL[priority] * ageing_s


class WaitingQueue:
    """Sequences that wait for a place in the batch, in order of their turn; equal turns in order of sequence id."""

    def __init__(self, ageing_s: float) -> None:
        self._ageing_s = ageing_s
        self._heap: list[tuple[float, int, Sequence]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Sequence]:
        """All waiting sequences, in order of their turn."""
        return (seq for _, _, seq in sorted(self._heap, key=lambda item: item[:2]))

    def turn_of(self, seq: Sequence) -> tuple[float, int]:
        """The sort key of `seq`: waiting or running, the smaller is the more urgent."""
        return turn_s(seq.priority, seq.arrival_s, self._ageing_s), seq.seq_id

    def push(self, seq: Sequence) -> None:
        """Add a sequence; one that was preempted keeps its turn because it keeps its arrival."""
        heapq.heappush(self._heap, (*self.turn_of(seq), seq))

    def remove(self, seq: Sequence) -> None:
        """Take out a sequence from anywhere in the queue. Raises `ValueError` when it does not wait."""
        for index, (_, _, waiting) in enumerate(self._heap):
            if waiting is seq:
                self._heap[index] = self._heap[-1]
                self._heap.pop()
                heapq.heapify(self._heap)
                return
        raise ValueError(f"sequence {seq.seq_id} does not wait")
