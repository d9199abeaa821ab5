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
    last_used_s: float
    num_uses: int
    is_pinned: bool
    is_idle: bool
    """In memory and nobody waits for it: it can go at once. Others go only after their requests."""


@dataclass(frozen=True)
class RoomPlan:
    """What makes the room. With `drains` it is not there yet: these are busy, and go once they are idle."""

    is_possible: bool
    evictions: tuple[str, ...] = ()
    drains: tuple[str, ...] = ()


def plan_room(needed_bytes: int, budget_bytes: int, residents: Sequence[Resident], policy: EvictionPolicy) -> RoomPlan:
    """How `needed_bytes` more fit into the budget: idle models go first, in the policy's order, and no more than have
    to; where they are not enough, nobody goes yet and busy ones are to be drained. A pinned model never goes."""
    short_bytes = needed_bytes + sum(resident.num_bytes for resident in residents) - budget_bytes
    if short_bytes <= 0:
        return RoomPlan(is_possible=True)
    victims = eviction_order(residents, policy)
    idle = [resident for resident in victims if resident.is_idle]
    evictions, short_bytes = _take(idle, short_bytes)
    if short_bytes <= 0:
        return RoomPlan(is_possible=True, evictions=evictions)
    drains, short_bytes = _take([resident for resident in victims if not resident.is_idle], short_bytes)
    return RoomPlan(is_possible=True, drains=drains) if short_bytes <= 0 else RoomPlan(is_possible=False)


def eviction_order(residents: Sequence[Resident], policy: EvictionPolicy) -> list[Resident]:
    """Those that may go, first to go first; a name decides between equals, so that the order is always the same."""
    if policy is EvictionPolicy.NONE:
        return []
    loose = [resident for resident in residents if not resident.is_pinned]
    if policy is EvictionPolicy.LFU:
        return sorted(loose, key=lambda resident: (resident.num_uses, resident.last_used_s, resident.name))
    return sorted(loose, key=lambda resident: (resident.last_used_s, resident.name))


def _take(victims: Sequence[Resident], short_bytes: int) -> tuple[tuple[str, ...], int]:
    """The first of `victims` that give `short_bytes` together, and what is short still."""
    names = []
    for victim in victims:
        if short_bytes <= 0:
            break
        names.append(victim.name)
        short_bytes -= victim.num_bytes
    return tuple(names), short_bytes
