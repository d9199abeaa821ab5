"""Alerts: conditions that are looked at every few seconds. Each fires once, and says when it clears."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mlx_manager.ir import RequestRecord
from mlx_manager.observability.budget_use import NEARLY_SPENT, BudgetUse
from mlx_manager.observability.webhook import Webhook
from mlx_manager.pool import ModelStatus, PoolStats

_logger = logging.getLogger("mlx_manager.alerts")
_WINDOW_S = 300.0
_RESTART_WINDOW_S = 900.0
_MAX_SAMPLES = 20_000
_MIN_REQUESTS = 10
"""Of fewer requests, one failure says little."""
_NUM_KEPT = 200


@dataclass(frozen=True, kw_only=True)
class AlertLimits:
    """When alerts fire; 0 is never."""

    error_share: float
    """Of the requests of five minutes, those that failed by a fault of the server's."""
    ttft_s: float
    """The 95th percentile of the times to the first token, over five minutes."""
    num_worker_restarts: int
    """Within fifteen minutes."""
    disk_free_bytes: int
    """On the disk of the home folder."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert that fires, or has cleared."""

    name: str
    message: str
    fired_unix_s: float
    cleared_unix_s: float | None = None


class AlertWatch:
    """Looks at everything each `period_s` from `open` to `close`; lives in one event loop.

    `statuses`, `pool_stats` and `budget_uses` are read at each look; `webhook` is told of each alert that fires or
    clears.
    """

    def __init__(
        self,
        limits: AlertLimits,
        home: Path,
        statuses: Callable[[], Sequence[ModelStatus]],
        pool_stats: Callable[[], PoolStats | None],
        *,
        budget_uses: Callable[[], Sequence[BudgetUse]] = tuple,
        webhook: Webhook | None = None,
        period_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.firing: dict[str, Alert] = {}
        """By name. Written here only."""
        self.past: deque[Alert] = deque(maxlen=_NUM_KEPT)
        """Those that have cleared, the last one last."""
        self._limits = limits
        self._home = home
        self._statuses = statuses
        self._pool_stats = pool_stats
        self._budget_uses = budget_uses
        self._webhook = webhook
        self._period_s = period_s
        self._clock = clock
        self._ended: deque[tuple[float, bool, float | None]] = deque(maxlen=_MAX_SAMPLES)
        """(when, whether the server failed, time to the first token) of requests."""
        self._deaths: deque[tuple[float, int]] = deque(maxlen=_MAX_SAMPLES)
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._retired: deque[asyncio.Task[None]] = deque(maxlen=_NUM_KEPT)

    def open(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop looking, and give the webhook a moment for what it has not sent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        if self._webhook is not None:
            await self._webhook.close()
        await asyncio.gather(*self._retired)

    def follow(self, limits: AlertLimits, *, webhook_url: str | None, period_s: float) -> None:
        """From now on these hold, and are looked at at once; another webhook sends what it has."""
        self._limits = limits
        self._period_s = period_s
        self._news.set()
        old = self._webhook
        if webhook_url != (old.url if old is not None else None):
            self._webhook = Webhook(webhook_url) if webhook_url is not None else None
            if old is not None:
                self._retired.append(asyncio.create_task(old.close()))

    def count(self, record: RequestRecord) -> None:
        """A request has ended."""
        self._ended.append((self._clock(), record.status >= 500, record.ttft_s))

    def look(self) -> None:
        """Look at every condition once."""
        reasons = dict(self._reasons())
        for name, message in reasons.items():
            if name not in self.firing:
                self.firing[name] = Alert(name=name, message=message, fired_unix_s=time.time())
                _logger.warning("Alert %s: %s", name, message)
                self._notify(self.firing[name])
        for name in [name for name in self.firing if name not in reasons]:
            cleared = msgspec.structs.replace(self.firing.pop(name), cleared_unix_s=time.time())
            self.past.append(cleared)
            _logger.warning("Alert %s has cleared", name)
            self._notify(cleared)

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._period_s)
            self._news.clear()
            try:
                self.look()
            except Exception:  # an edge: nobody is above this task, and the next look may go well
                _logger.exception("A look at the alerts failed")

    def _notify(self, alert: Alert) -> None:
        if self._webhook is not None:
            self._webhook.put(msgspec.json.encode(alert))

    def _reasons(self) -> Iterator[tuple[str, str]]:
        """Name and message of every alert that should fire now."""
        now_s = self._clock()
        while self._ended and self._ended[0][0] < now_s - _WINDOW_S:
            self._ended.popleft()
        yield from self._of_requests()
        yield from self._of_workers(now_s)
        yield from self._of_memory()
        yield from self._of_budgets()
        yield from self._of_disk()

    def _of_requests(self) -> Iterator[tuple[str, str]]:
        num_failed = sum(failed for _, failed, _ in self._ended)
        share = num_failed / max(len(self._ended), 1)
        if len(self._ended) >= _MIN_REQUESTS and 0 < self._limits.error_share < share:
            yield "error_rate", f"{num_failed} of {len(self._ended)} requests of the last five minutes failed."
        ttfts_s = sorted(ttft_s for _, _, ttft_s in self._ended if ttft_s is not None)
        if len(ttfts_s) >= _MIN_REQUESTS and self._limits.ttft_s:
            p95_s = ttfts_s[int(0.95 * (len(ttfts_s) - 1))]
            if p95_s > self._limits.ttft_s:
                yield "time_to_first_token", f"First tokens take {p95_s:.1f} s (p95 of the last five minutes)."

    def _of_workers(self, now_s: float) -> Iterator[tuple[str, str]]:
        self._deaths.append((now_s, sum(status.num_worker_deaths for status in self._statuses())))
        while self._deaths[0][0] < now_s - _RESTART_WINDOW_S:
            self._deaths.popleft()
        num_deaths = self._deaths[-1][1] - self._deaths[0][1]
        if 0 < self._limits.num_worker_restarts <= num_deaths:
            yield "worker_restarts", f"Workers died {num_deaths} times within fifteen minutes; see the log."
        for status in self._statuses():
            if status.is_given_up and status.error is not None:
                name = status.entry.name
                reason = f"{status.num_failures_in_row} failures in a row, the last: {status.error.message}"
                yield f"model_failed:{name}", f"The model '{name}' is not tried again for now after {reason}"

    def _of_memory(self) -> Iterator[tuple[str, str]]:
        stats = self._pool_stats()
        if stats is not None and stats.system_available_bytes < stats.memory_floor_bytes:
            available_gb = stats.system_available_bytes / 1e9
            yield "memory_pressure", f"The system has {available_gb:.1f} GB of memory available, less than the floor."

    def _of_budgets(self) -> Iterator[tuple[str, str]]:
        for use in self._budget_uses():
            place = "" if use.key is None else f":{use.key}#{use.key_id}"
            if use.share >= NEARLY_SPENT:
                of_user = "" if use.user is None else f" (of {use.user})"
                spent = f"{use.spent_usd:.2f} of {use.budget_usd:.2f} USD"
                yield f"budget{place}", f"{use.whose}{of_user} for answers of providers is used to {spent}."
            if use.share >= 1:
                yield (
                    f"budget_spent{place}",
                    f"{use.whose} is used up: no provider is asked until the next month of UTC.",
                )

    def _of_disk(self) -> Iterator[tuple[str, str]]:
        if not self._limits.disk_free_bytes:
            return
        try:
            free_bytes = shutil.disk_usage(self._home).free
        except OSError as error:
            yield "disk", f"The disk of {self._home} cannot be looked at: {error.strerror}."
            return
        if free_bytes < self._limits.disk_free_bytes:
            yield "disk", f"The disk of {self._home} has {free_bytes / 1e9:.1f} GB left."
