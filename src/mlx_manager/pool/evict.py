"""Who goes when memory is needed: books in, a plan out. Pure, so that it can be proved on random books."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class EvictionPolicy(StrEnum):
    """In which order idle models go."""

    LRU = "lru"
    LFU = "lfu"
    """The least often asked for; of equals the least recently used."""
    NONE = "none"
    """Nobody goes: a load that does not fit is refused."""


@dataclass(frozen=True, kw_only=True)
class Resident:
    """One model that holds memory."""

    name: str
    num_bytes: int
    trimmed_bytes: int
    """What it would hold without its caches; no less than `num_bytes` where they are given back already."""
    last_used_s: float
    num_uses: int
    is_pinned: bool
    is_idle: bool
    """In memory and nobody waits for it: it can go at once. Others go only after their requests."""

    @property
    def cache_bytes(self) -> int:
        """What trimming it brings."""
        return max(0, self.num_bytes - self.trimmed_bytes)


@dataclass(frozen=True)
class RoomPlan:
    """What makes the room. With `drains` it is not there yet: these are busy, and give way once they are idle."""

    is_possible: bool
    trims: tuple[str, ...] = ()
    """These stay in memory and give their caches back."""
    evictions: tuple[str, ...] = ()
    drains: tuple[str, ...] = ()


def plan_room(needed_bytes: int, budget_bytes: int, residents: Sequence[Resident], policy: EvictionPolicy) -> RoomPlan:
    """How `needed_bytes` more fit into the budget. A pinned model neither goes nor is trimmed.

    Idle models give way, in the policy's order: as few as possible are evicted, and of those that stay no more are
    trimmed than have to. Where all of that is not enough, nobody gives way yet and busy ones are to be drained.
    """
    short_bytes = needed_bytes + sum(resident.num_bytes for resident in residents) - budget_bytes
    if short_bytes <= 0:
        return RoomPlan(is_possible=True)
    victims = eviction_order(residents, policy)
    idle = [resident for resident in victims if resident.is_idle]
    for num_evicted in range(len(idle) + 1):
        trims, left_bytes = _take([(one.name, one.cache_bytes) for one in idle[num_evicted:]], short_bytes)
        if left_bytes <= 0:
            evictions = tuple(resident.name for resident in idle[:num_evicted])
            return RoomPlan(is_possible=True, trims=trims, evictions=evictions)
        if num_evicted < len(idle):
            short_bytes -= idle[num_evicted].num_bytes
    drains, left_bytes = _take([(one.name, one.num_bytes) for one in victims if not one.is_idle], short_bytes)
    return RoomPlan(is_possible=True, drains=drains) if left_bytes <= 0 else RoomPlan(is_possible=False)


def eviction_order(residents: Sequence[Resident], policy: EvictionPolicy) -> list[Resident]:
    """Those that may go, first to go first; a name decides between equals, so that the order is always the same."""
    if policy is EvictionPolicy.NONE:
        return []
    loose = [resident for resident in residents if not resident.is_pinned]
    if policy is EvictionPolicy.LFU:
        return sorted(loose, key=lambda resident: (resident.num_uses, resident.last_used_s, resident.name))
    return sorted(loose, key=lambda resident: (resident.last_used_s, resident.name))


def _take(offers: Sequence[tuple[str, int]], short_bytes: int) -> tuple[tuple[str, ...], int]:
    """The first (name, bytes) of `offers` that bring `short_bytes` together, and what is short still."""
    names = []
    for name, num_bytes in offers:
        if short_bytes <= 0:
            break
        if num_bytes > 0:
            names.append(name)
            short_bytes -= num_bytes
    return tuple(names), short_bytes
