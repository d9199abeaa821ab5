"""A circuit breaker per target: one that failed several times in a row is left alone for a while, then tried once."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from weakref import WeakKeyDictionary

from mlx_manager.backends import Backend

MOST_FAILURES = 5
REST_S, LONGEST_REST_S = 15.0, 300.0
MOST_BREAKERS = 1_000
"""Of one backend."""


class BreakerState(StrEnum):
    """Whether a target is asked."""

    CLOSED = "closed"
    OPEN = "open"
    """It is not."""
    HALF_OPEN = "half_open"
    """One request tries it."""


class Breaker:
    """Of one target, while it does not answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_failures = 0
        self._rest_s = REST_S
        self._opens_until_s: float | None = None
        self._is_tried = False

    @property
    def state(self) -> BreakerState:
        """Where it stands."""
        if self._opens_until_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < self._opens_until_s else BreakerState.HALF_OPEN

    @property
    def retry_after_s(self) -> float:
        """Until it is tried again; 0 where it is asked."""
        return 0.0 if self._opens_until_s is None else max(self._opens_until_s - self._clock(), 0.0)

    def may_ask(self) -> bool:
        """Whether the target is to be asked now; if it is, a success, `fail` or `abandon` has to follow."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                if self._is_tried:
                    return False
                self._is_tried = True
                return True

    def fail(self, retry_after_s: float | None = None) -> None:
        """It failed, and said where it did when it wants to be asked again."""
        was_trial = self._is_tried
        self._is_tried = False
        self._num_failures += 1
        if was_trial:
            self._rest_s = min(self._rest_s * 2, LONGEST_REST_S)
        if was_trial or self._num_failures >= MOST_FAILURES:
            rest_s = max(self._rest_s, min(retry_after_s or 0.0, LONGEST_REST_S))
            self._opens_until_s = self._clock() + rest_s

    def abandon(self) -> None:
        """Nobody waited to see whether it would answer."""
        self._is_tried = False


class Breakers:
    """Those of all targets. A provider that was changed has a new backend, and so begins anew.

    A target has one from its first failure to its next success: names under a pattern are without number.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_backend: WeakKeyDictionary[Backend, dict[str, Breaker]] = WeakKeyDictionary()

    def __len__(self) -> int:
        return sum(len(breakers) for breakers in self._by_backend.values())

    def find(self, backend: Backend, model: str) -> Breaker | None:
        """The breaker of a model at a backend; None where it did not fail since it last answered."""
        return self._by_backend.get(backend, {}).get(model)

    def state(self, backend: Backend, model: str) -> BreakerState:
        """How it stands."""
        breaker = self.find(backend, model)
        return BreakerState.CLOSED if breaker is None else breaker.state

    def num_open(self) -> dict[str, int]:
        """How many are open, by the name of the backend."""
        return {
            backend.name: sum(breaker.state is BreakerState.OPEN for breaker in breakers.values())
            for backend, breakers in self._by_backend.items()
        }

    def succeed(self, backend: Backend, model: str) -> None:
        """It began to answer."""
        self._by_backend.get(backend, {}).pop(model, None)

    def fail(self, backend: Backend, model: str, retry_after_s: float | None = None) -> None:
        """It failed, and said where it did when it wants to be asked again."""
        breakers = self._by_backend.setdefault(backend, {})
        breakers.setdefault(model, Breaker(self._clock)).fail(retry_after_s)
        if len(breakers) > MOST_BREAKERS:
            # the one whose first failure is longest ago
            del breakers[next(iter(breakers))]

    def abandon(self, backend: Backend, model: str) -> None:
        """Nobody waited to see whether it would answer."""
        breaker = self.find(backend, model)
        if breaker is not None:
            breaker.abandon()
