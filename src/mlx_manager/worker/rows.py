"""The sequences of the batch for those who watch it: told now and then, not with every step."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from mlx_manager.engine.scheduler import Scheduler
from mlx_manager.engine.sequence import Sequence
from mlx_manager.ipc import BatchRow

PERIOD_S = 0.4
_MOST_WAITING = 32


class RowReports:
    """Of one engine's scheduler."""

    def __init__(self, scheduler: Scheduler, clock: Callable[[], float] = time.monotonic) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._told_s = float("-inf")

    def due(self) -> tuple[BatchRow, ...] | None:
        """Those that run, then the first of those that wait; None where they were told a moment ago."""
        now_s = self._clock()
        if now_s - self._told_s < PERIOD_S:
            return None
        self._told_s = now_s
        waiting = islice(self._scheduler.waiting, _MOST_WAITING)
        return (*(_row(seq, is_running=True) for seq in self._scheduler.running), *(_row(seq) for seq in waiting))


def _row(seq: Sequence, *, is_running: bool = False) -> BatchRow:
    return BatchRow(
        request_id=seq.request_id,
        choice=seq.choice,
        is_running=is_running,
        priority=seq.priority,
        num_prompt_tokens=seq.num_prompt_tokens,
        num_cached_tokens=seq.num_cached_tokens,
        num_computed_tokens=min(seq.num_computed_tokens, seq.num_prompt_tokens),
        num_generated_tokens=seq.num_output_tokens,
        num_most_tokens=seq.max_output_tokens,
    )
