"""How the pool stands and how fast it goes, looked at once for everybody who watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mlx_manager.ipc import EngineStats
from mlx_manager.pool import ModelDirectory, ModelPool, ModelState, ModelStatus, PoolStats

_FRESH_S = 0.9
"""Younger than this, a look is shared: twenty open pages cost what one does."""
_STALE_S = 10.0


@dataclass(frozen=True)
class Rate:
    """Over the time between two looks, in tokens per second. Nothing where the last look is long ago."""

    generated: float = 0.0
    prompt: float = 0.0
    cores: float = 0.0
    """Processors kept busy."""


@dataclass(frozen=True)
class Beat:
    """One look."""

    monotonic_s: float
    models: Sequence[ModelStatus]
    stats: PoolStats | None
    """None on a server without models of its own."""
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """By model, for those in memory."""

    @property
    def in_memory(self) -> list[ModelStatus]:
        """Models that are loaded, or on their way in or out."""
        return [status for status in self.models if status.state not in (ModelState.COLD, ModelState.FAILED)]

    @property
    def generated_per_s(self) -> float:
        """Of all models together."""
        return sum(rate.generated for rate in self.rates.values())


class Pulse:
    """Looks when somebody asks, at most about once a second."""

    def __init__(
        self, models: ModelDirectory, pool: ModelPool | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._models = models
        self._pool = pool
        self._clock = clock
        self._beat: Beat | None = None

    def look(self, *, is_fresh: bool = False) -> Beat:
        """How things stand; with `is_fresh` right now, after something was changed."""
        now_s = self._clock()
        last = self._beat
        if last is not None and not is_fresh and now_s - last.monotonic_s < _FRESH_S:
            return last
        models = tuple(self._models.statuses())
        rates = {} if last is None else _rates(last, models, now_s - last.monotonic_s)
        if last is not None and now_s - last.monotonic_s < _FRESH_S:
            rates = dict(last.rates)
        self._beat = Beat(now_s, models, self._pool.stats() if self._pool is not None else None, rates)
        return self._beat


def _rates(last: Beat, models: Sequence[ModelStatus], elapsed_s: float) -> dict[str, Rate]:
    before = {status.entry.name: status.stats for status in last.models if status.stats is not None}
    return {
        status.entry.name: _rate(before.get(status.entry.name), status.stats, elapsed_s)
        for status in models
        if status.stats is not None
    }


def _rate(before: EngineStats | None, now: EngineStats, elapsed_s: float) -> Rate:
    if before is None or not 0 < elapsed_s < _STALE_S or now.num_steps < before.num_steps:
        return Rate()
    return Rate(
        generated=(now.num_generated_tokens - before.num_generated_tokens) / elapsed_s,
        prompt=(now.num_prompt_tokens - before.num_prompt_tokens) / elapsed_s,
        cores=max(now.cpu_s - before.cpu_s, 0.0) / elapsed_s,
    )
