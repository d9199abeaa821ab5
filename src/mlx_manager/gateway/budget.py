"""What the answers of providers may cost in a month: per key and in all. Local answers cost nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from mlx_manager.errors import MlxManagerError, RateLimited
from mlx_manager.gateway.asker import BUDGET_NOTE, Asker
from mlx_manager.ir import Caller
from mlx_manager.observability.budget_use import NEARLY_SPENT, BudgetUse
from mlx_manager.storage.configuration import Configuration
from mlx_manager.storage.ledger import Ledger

_MICRO = 1_000_000
_logger = logging.getLogger("mlx_manager.gateway")


class BudgetSpent(RateLimited):
    """The month's budget for providers is used up."""

    code = "budget_spent"


class Budgets:
    """Holds what was spent against what may be. `total_usd` and `configuration` are asked each time."""

    def __init__(
        self, ledger: Ledger, total_usd: Callable[[], float | None], configuration: Callable[[], Configuration]
    ) -> None:
        self._ledger = ledger
        self._total_usd = total_usd
        self._configuration = configuration
        self._warned: set[tuple[str, int | None]] = set()

    def refusal(self, caller: Caller) -> MlxManagerError | None:
        """Why no provider may be asked for this caller; None where one may."""
        for share, whose in self._shares(caller):
            if share >= 1:
                return BudgetSpent(f"{whose} for answers of providers is used up.", retry_after_s=_until_next_month_s())
        return None

    def warn(self, asker: Asker) -> None:
        """Tell who asks how much of the budget is used once most of it is, and the log once a month."""
        shares = [(share, whose) for share, whose in self._shares(asker.caller) if share >= NEARLY_SPENT]
        if not shares:
            return
        share, whose = max(shares)
        asker.notes[BUDGET_NOTE] = f"{share:.0%}"
        mark = (datetime.now(UTC).strftime("%Y-%m"), asker.caller.key_id)
        if mark not in self._warned:
            self._warned.add(mark)
            _logger.warning("%s for answers of providers is used to %.0f %%", whose, share * 100)

    def uses(self) -> list[BudgetUse]:
        """How all answers together stand, and every key that has a budget and has not expired."""
        configuration = self._configuration()
        now_unix_s = time.time()
        found = [self._use_of_all()]
        for key in configuration.keys:
            budget_usd = key.limits.budget_usd_per_month
            if budget_usd is not None and not key.is_expired(now_unix_s):
                owner = configuration.users_by_id.get(key.user_id)
                use = self._use_of(key.id, key.name, budget_usd)
                found.append(msgspec.structs.replace(use, user=owner.name if owner is not None else None))
        return found

    def _shares(self, caller: Caller) -> list[tuple[float, str]]:
        """The used part of each budget that holds for the caller, and whose it is."""
        uses = [self._use_of_all()]
        if caller.key_id is not None and caller.budget_usd_per_month is not None:
            uses.append(self._use_of(caller.key_id, caller.key_name or "", caller.budget_usd_per_month))
        return [(use.share, use.whose) for use in uses if use.budget_usd is not None]

    def _use_of_all(self) -> BudgetUse:
        return BudgetUse(spent_usd=self._spent_usd(None), budget_usd=self._total_usd())

    def _use_of(self, key_id: int, name: str, budget_usd: float) -> BudgetUse:
        return BudgetUse(spent_usd=self._spent_usd(key_id), budget_usd=budget_usd, key=name, key_id=key_id)

    def _spent_usd(self, key_id: int | None) -> float:
        return self._ledger.this_month(key_id).cost_micro_usd / _MICRO


def _until_next_month_s() -> float:
    now = datetime.now(UTC)
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return (datetime(year, month, 1, tzinfo=UTC) - now).total_seconds()
