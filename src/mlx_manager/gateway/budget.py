"""What the answers of providers may cost in a month: per key and in all. Local answers cost nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from mlx_manager.errors import MlxManagerError, RateLimited
from mlx_manager.gateway.asker import BUDGET_NOTE, Asker
from mlx_manager.ir import Caller
from mlx_manager.storage.ledger import Ledger

WARN_AT = 0.8
_MICRO = 1_000_000
_logger = logging.getLogger("mlx_manager.gateway")


class BudgetSpent(RateLimited):
    """The month's budget for providers is used up."""

    code = "budget_spent"


class Budgets:
    """Holds what was spent against what may be. `total_usd` is asked each time: it can change."""

    def __init__(self, ledger: Ledger, total_usd: Callable[[], float | None]) -> None:
        self._ledger = ledger
        self._total_usd = total_usd
        self._warned: set[tuple[str, int | None]] = set()

    def refusal(self, caller: Caller) -> MlxManagerError | None:
        """Why no provider may be asked for this caller; None where one may."""
        for share, whose in self._shares(caller):
            if share >= 1:
                return BudgetSpent(f"{whose} for answers of providers is used up.", retry_after_s=_until_next_month_s())
        return None

    def warn(self, asker: Asker) -> None:
        """Tell who asks how much of the budget is used once most of it is, and the log once a month."""
        shares = [(share, whose) for share, whose in self._shares(asker.caller) if share >= WARN_AT]
        if not shares:
            return
        share, whose = max(shares)
        asker.notes[BUDGET_NOTE] = f"{share:.0%}"
        mark = (datetime.now(UTC).strftime("%Y-%m"), asker.caller.key_id)
        if mark not in self._warned:
            self._warned.add(mark)
            _logger.warning("%s for answers of providers is used to %.0f %%", whose, share * 100)

    def _shares(self, caller: Caller) -> list[tuple[float, str]]:
        """The used part of each budget that holds for the caller, and whose it is."""
        shares = []
        total_usd = self._total_usd()
        if total_usd is not None:
            shares.append((self._share(None, total_usd), "The month's budget"))
        if caller.key_id is not None and caller.budget_usd_per_month is not None:
            mine = self._share(caller.key_id, caller.budget_usd_per_month)
            shares.append((mine, f"The month's budget of the API key {caller.key_name!r}"))
        return shares

    def _share(self, key_id: int | None, most_usd: float) -> float:
        spent_usd = self._ledger.this_month(key_id).cost_micro_usd / _MICRO
        return spent_usd / most_usd if most_usd > 0 else 1.0


def _until_next_month_s() -> float:
    now = datetime.now(UTC)
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return (datetime(year, month, 1, tzinfo=UTC) - now).total_seconds()
