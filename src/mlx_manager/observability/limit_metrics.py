"""What there is of money, of disk and of targets, as metrics: read whenever somebody asks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mlx_manager.observability.budget_use import BudgetUse


class LimitCollector(Collector):
    """`budget_uses` is called at each scrape; `home` is the folder whose disk is looked at."""

    def __init__(self, budget_uses: Callable[[], Sequence[BudgetUse]], home: Path | None) -> None:
        self._budget_uses = budget_uses
        self._home = home

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        spent = GaugeMetricFamily(
            "mlx_manager_cloud_spent_usd",
            "What answers of providers cost in this month of UTC: in all, and of the API keys that have a budget.",
            labels=_KEY,
        )
        budget = GaugeMetricFamily("mlx_manager_cloud_budget_usd", "Where there is one, the budget.", labels=_KEY)
        for use in self._budget_uses():
            labels = (use.key or "", "" if use.key_id is None else str(use.key_id))
            spent.add_metric(labels, use.spent_usd)
            if use.budget_usd is not None:
                budget.add_metric(labels, use.budget_usd)
        yield from (spent, budget)
        if self._home is None:
            return
        disk = GaugeMetricFamily("mlx_manager_disk_free_bytes", "Free on the disk of the home folder.")
        with suppress(OSError):
            # where the folder is gone, a family without a value says so
            disk.add_metric((), shutil.disk_usage(self._home).free)
        yield disk


class LeftAloneCollector(Collector):
    """`find` gives how many targets of each backend are not asked for now, and is called at each scrape."""

    def __init__(self, find: Callable[[], Mapping[str, int]]) -> None:
        self._find = find

    def collect(self) -> Iterator[Metric]:
        """The one family."""
        family = GaugeMetricFamily(
            "mlx_manager_targets_left_alone",
            "Targets whose circuit breaker is open: they failed several times in a row.",
            labels=("backend",),
        )
        for backend, num_targets in self._find().items():
            family.add_metric((backend,), num_targets)
        yield family


_KEY = ("key", "key_id")
