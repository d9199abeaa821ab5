"""What there is of money and of disk, as metrics: read whenever somebody asks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
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


_KEY = ("key", "key_id")
