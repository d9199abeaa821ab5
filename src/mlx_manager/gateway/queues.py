"""How long requests wait for this machine's models, as it looks from outside: for routes that spill by it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Waiting:
    """One request that waits, until it is `admitted`."""

    def __init__(self, queue: dict[int, float], number: int) -> None:
        self._queue = queue
        self._number = number

    def admitted(self) -> None:
        """Work on it began."""
        self._queue.pop(self._number, None)


class Queues:
    """Who waits for which model since when."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: defaultdict[str, dict[int, float]] = defaultdict(dict)
        self._next = 0

    def expected_wait_s(self, model: str) -> float:
        """At least this long: whoever comes now waits behind the one that waits longest already."""
        waiting = self._waiting.get(model)
        return self._clock() - min(waiting.values()) if waiting else 0.0

    @contextmanager
    def joined(self, model: str) -> Iterator[Waiting]:
        """A request to `model` waits, from here on."""
        queue = self._waiting[model]
        self._next += 1
        number = self._next
        queue[number] = self._clock()
        waiting = Waiting(queue, number)
        try:
            yield waiting
        finally:
            waiting.admitted()
            if not queue and self._waiting.get(model) is queue:
                del self._waiting[model]
