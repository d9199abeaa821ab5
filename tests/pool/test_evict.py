"""Who goes when memory is needed, over random books."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_manager.pool import EvictionPolicy
from mlx_manager.pool.evict import Resident, RoomPlan, eviction_order, plan_room


@st.composite
def books(draw: st.DrawFn) -> list[Resident]:
    return [
        Resident(
            name=f"m{index}",
            num_bytes=draw(st.integers(1, 50)),
            last_used_s=draw(st.integers(0, 5)),
            num_uses=draw(st.integers(0, 3)),
            is_pinned=draw(st.booleans()),
            is_idle=draw(st.booleans()),
        )
        for index in range(draw(st.integers(0, 8)))
    ]


POLICIES = st.sampled_from(EvictionPolicy)


@given(books(), st.integers(0, 120), st.integers(0, 300), POLICIES)
def test_a_plan_makes_just_the_room_that_is_needed(
    residents: list[Resident], needed: int, budget: int, policy: EvictionPolicy
) -> None:
    plan = plan_room(needed, budget, residents, policy)
    by_name = {resident.name: resident for resident in residents}
    held = sum(resident.num_bytes for resident in residents)

    def left_without(names: tuple[str, ...]) -> int:
        return needed + held - sum(by_name[name].num_bytes for name in names)

    order = [resident.name for resident in eviction_order(residents, policy)]
    idle = [name for name in order if by_name[name].is_idle]
    busy = [name for name in order if not by_name[name].is_idle]
    assert not any(by_name[name].is_pinned for name in (*plan.evictions, *plan.drains))
    assert list(plan.evictions) == idle[: len(plan.evictions)]
    assert list(plan.drains) == busy[: len(plan.drains)]
    assert not (plan.evictions and plan.drains)
    if plan.evictions:
        assert left_without(plan.evictions) <= budget < left_without(plan.evictions[:-1])
    elif plan.drains:
        with_idle = (*idle, *plan.drains)
        assert left_without(with_idle) <= budget < left_without(with_idle[:-1])
        assert left_without(tuple(idle)) > budget
    elif plan.is_possible:
        assert left_without(()) <= budget
    else:
        assert left_without(tuple(order)) > budget


@given(books(), st.integers(0, 120), st.integers(0, 300))
def test_without_a_policy_nobody_goes(residents: list[Resident], needed: int, budget: int) -> None:
    plan = plan_room(needed, budget, residents, EvictionPolicy.NONE)
    assert (plan.evictions, plan.drains) == ((), ())
    assert plan.is_possible == (needed + sum(resident.num_bytes for resident in residents) <= budget)


def one(name: str, *, used_s: float, uses: int, is_idle: bool = True, is_pinned: bool = False) -> Resident:
    return Resident(name=name, num_bytes=10, last_used_s=used_s, num_uses=uses, is_pinned=is_pinned, is_idle=is_idle)


@pytest.mark.parametrize(("policy", "first"), [(EvictionPolicy.LRU, "old"), (EvictionPolicy.LFU, "rare")])
def test_the_policy_says_who_goes_first(policy: EvictionPolicy, first: str) -> None:
    residents = [
        one("rare", used_s=9, uses=1),
        one("old", used_s=1, uses=7),
        one("pinned", used_s=0, uses=0, is_pinned=True),
        one("busy", used_s=0, uses=0, is_idle=False),
    ]
    assert plan_room(10, 40, residents, policy) == RoomPlan(is_possible=True, evictions=(first,))
