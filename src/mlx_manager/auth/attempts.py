"""How often somebody may try to log in. In memory: a restart forgets it."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from mlx_manager.errors import RateLimited

_WINDOW_S = 15 * 60.0
_MAX_REMEMBERED = 10_000


class Attempts:
    """Counts failures of the last quarter of an hour, by whatever they are to be counted by."""

    def __init__(self, *, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, name: str) -> None:
        """Raises `RateLimited` after too many failures."""
        failures = self._failures.get(name)
        if failures is None:
            return
        now_s = self._clock()
        while failures and failures[0] <= now_s - _WINDOW_S:
            failures.popleft()
        if len(failures) >= self._most:
            raise RateLimited(
                "Too many attempts to log in have failed. Try again later.",
                retry_after_s=failures[0] + _WINDOW_S - now_s,
            )

    def fail(self, name: str) -> None:
        """Another failure."""
        failures = self._failures.setdefault(name, deque(maxlen=self._most))
        failures.append(self._clock())
        self._failures.move_to_end(name)
        while len(self._failures) > _MAX_REMEMBERED:
            self._failures.popitem(last=False)

    def forget(self, name: str) -> None:
        """It worked: begin anew."""
        self._failures.pop(name, None)

    def forgive(self, name: str) -> None:
        """The last one was none."""
        failures = self._failures.get(name)
        if failures:
            failures.pop()

    def forget_all(self, beginning: str) -> None:
        """Forget whatever begins with this word."""
        for name in [name for name in self._failures if name.split(" ", 1)[0] == beginning]:
            del self._failures[name]
