"""What the answers of providers may cost in a month: per key and in all. Local answers cost nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import MappingProxyType

import msgspec

from mlx_manager.errors import MlxManagerError, RateLimited
from mlx_manager.gateway.asker import BUDGET_NOTE, Asker
from mlx_manager.ir import Caller, place_of_key
from mlx_manager.observability.budget_use import NEARLY_SPENT, BudgetUse
from mlx_manager.storage.configuration import Configuration
from mlx_manager.storage.ledger import Ledger

_MICRO = 1_000_000
_DAY_S = 24 * 3600
_RETRY_HELD_S = 5.0
_NOTHING_HELD: Mapping[str | None, float] = MappingProxyType({})
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
        self._held: dict[str | None, float] = {}
        """By place, in US dollars: what the requests that run may cost; None is all of them."""
        self._held_tokens: dict[str | None, int] = {}
        self._warned: set[tuple[str, int | None]] = set()

    def refusal(self, caller: Caller) -> MlxManagerError | None:
        """Why no provider may be asked for this caller; None where one may."""
        for share, whose in self._shares(caller):
            if share >= 1:
                return BudgetSpent(f"{whose} for answers of providers is used up.", retry_after_s=_until_next_month_s())
        for share, whose in self._shares(caller, self._held):
            if share >= 1:
                return BudgetSpent(
                    f"{whose} for answers of providers may be used up by those that run. Try again once they are done.",
                    retry_after_s=_RETRY_HELD_S,
                )
        return None

    def are_set(self, caller: Caller) -> bool:
        """Whether anything bounds what this caller may use of tokens and money."""
        limits = [limit for purse in caller.purses for limit in (purse.tokens_per_day, purse.budget_usd_per_month)]
        return any(limit is not None for limit in (self._total_usd(), *limits))

    @contextmanager
    def holding(self, caller: Caller, num_tokens: int, cost_usd: float) -> Iterator[None]:
        """Set aside what a request may use, until it is counted: many at once are not to use more than one by one.

        Raises `RateLimited` where the tokens of the day are used up, or may be by those that run.
        """
        for purse in caller.purses:
            used = self._ledger.today(purse.place).num_tokens
            held = self._held_tokens.get(purse.place, 0)
            if purse.tokens_per_day is not None and used + held >= purse.tokens_per_day:
                raise RateLimited(
                    f"The {purse.whose} has used its {purse.tokens_per_day} tokens of this day, or may have once "
                    "the requests that run are done.",
                    retry_after_s=_RETRY_HELD_S if used < purse.tokens_per_day else _until_tomorrow_s(),
                )
        places = (None, *(purse.place for purse in caller.purses))
        for place in places:
            self._held[place] = self._held.get(place, 0.0) + cost_usd
            self._held_tokens[place] = self._held_tokens.get(place, 0) + num_tokens
        try:
            yield
        finally:
            for place in places:
                self._held[place] -= cost_usd
                self._held_tokens[place] -= num_tokens

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

    def _shares(self, caller: Caller, held: Mapping[str | None, float] = _NOTHING_HELD) -> list[tuple[float, str]]:
        """The used part of each budget that holds for the caller, what is `held` included, and whose it is."""
        budgets: list[tuple[str | None, float | None, str]] = [(None, self._total_usd(), "The month's budget")]
        for purse in caller.purses:
            budgets.append((purse.place, purse.budget_usd_per_month, f"The month's budget of the {purse.whose}"))
        shares = []
        for place, budget_usd, whose in budgets:
            if budget_usd is not None:
                spent_usd = self._spent_usd(place) + held.get(place, 0.0)
                shares.append((BudgetUse(spent_usd=spent_usd, budget_usd=budget_usd).share, whose))
        return shares

    def _use_of_all(self) -> BudgetUse:
        return BudgetUse(spent_usd=self._spent_usd(None), budget_usd=self._total_usd())

    def _use_of(self, key_id: int, name: str, budget_usd: float) -> BudgetUse:
        spent_usd = self._spent_usd(place_of_key(key_id))
        return BudgetUse(spent_usd=spent_usd, budget_usd=budget_usd, key=name, key_id=key_id)

    def _spent_usd(self, place: str | None) -> float:
        return self._ledger.this_month(place).cost_micro_usd / _MICRO


def _until_next_month_s() -> float:
    now = datetime.now(UTC)
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return (datetime(year, month, 1, tzinfo=UTC) - now).total_seconds()


def _until_tomorrow_s() -> float:
    return _DAY_S - time.time() % _DAY_S
