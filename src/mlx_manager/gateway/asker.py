"""On whose behalf the gateway works: what they may, and where it notes for them who answered."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field

from mlx_manager.ir import ANYONE, Caller

BACKEND_NOTE = "x-mlx-backend"
FALLBACK_NOTE = "x-mlx-fallback-reason"
BUDGET_NOTE = "x-mlx-budget-used"


@dataclass(frozen=True)
class Asker:
    """Who asks, and what they said about it with this request."""

    caller: Caller = ANYONE
    is_local_only: bool = False
    """Nothing of this request may leave this machine."""
    notes: MutableMapping[str, str] = field(default_factory=dict)
    """What they are told beside the answer, by header: who answered, and why not the first that was asked."""

    answered_by: list[str] = field(default_factory=list)
    """The target that was asked last: its backend and its model, as one label. Empty before that."""
    told: set[str] = field(default_factory=set)
    """Parameters without effect here that the target that was asked last has been told, by name."""

    @property
    def stays_here(self) -> bool:
        """Whether this request, or whoever asks, is kept from every provider."""
        return self.is_local_only or self.caller.is_local_only
