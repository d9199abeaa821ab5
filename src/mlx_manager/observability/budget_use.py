"""What is used of the budgets for providers, as the alerts and the metrics read it."""

from __future__ import annotations

import msgspec

NEARLY_SPENT = 0.8
"""The share from which on somebody is warned."""


class BudgetUse(msgspec.Struct, frozen=True, kw_only=True):
    """This month's standing of one budget, or of everybody together where there is none."""

    spent_usd: float
    budget_usd: float | None = None
    """None: without a limit."""
    key: str | None = None
    """The name of the API key whose it is; None for all answers together."""
    key_id: int | None = None
    user: str | None = None
    """Whose key it is."""

    @property
    def share(self) -> float:
        """The used part, 1.0 once nothing is left; 0.0 without a budget."""
        if self.budget_usd is None:
            return 0.0
        return self.spent_usd / self.budget_usd if self.budget_usd > 0 else 1.0

    @property
    def whose(self) -> str:
        """For people, as the beginning of a sentence."""
        return "The month's budget" if self.key is None else f"The month's budget of the API key {self.key!r}"
