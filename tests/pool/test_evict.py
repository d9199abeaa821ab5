"""Who goes when memory is needed, over random books."""

from __future__ import annotations

from collections.abc import Sequence

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
            num_bytes=(num_bytes := draw(st.integers(1, 50))),
            trimmed_bytes=draw(st.integers(0, num_bytes)),
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

    def left(gone: Sequence[str], trimmed: Sequence[str] = ()) -> int:
        given = sum(by_name[name].num_bytes for name in gone) + sum(by_name[name].cache_bytes for name in trimmed)
        return needed + held - given

    order = [resident.name for resident in eviction_order(residents, policy)]
    idle = [name for name in order if by_name[name].is_idle]
    busy = [name for name in order if not by_name[name].is_idle]
    assert not any(by_name[name].is_pinned for name in (*plan.trims, *plan.evictions, *plan.drains))
    assert list(plan.evictions) == idle[: len(plan.evictions)]
    assert list(plan.drains) == busy[: len(plan.drains)]
    staying = [name for name in idle[len(plan.evictions) :] if by_name[name].cache_bytes]
    assert list(plan.trims) == staying[: len(plan.trims)]
    assert not (plan.drains and (plan.trims or plan.evictions))
    if plan.trims:
        # one trim less would not do
        assert left(plan.evictions, plan.trims) <= budget < left(plan.evictions, plan.trims[:-1])
    if plan.evictions:
        # nor would one eviction less, with all the others trimmed
        fewer = plan.evictions[:-1]
        assert left(plan.evictions, plan.trims) <= budget < left(fewer, idle[len(fewer) :])
    elif plan.drains:
        with_idle = (*idle, *plan.drains)
        assert left(with_idle) <= budget < left(with_idle[:-1])
        assert left(idle) > budget
    elif plan.is_possible:
        assert left((), plan.trims) <= budget
    else:
        assert left(order) > budget


@given(books(), st.integers(0, 120), st.integers(0, 300))
def test_without_a_policy_nobody_goes(residents: list[Resident], needed: int, budget: int) -> None:
    plan = plan_room(needed, budget, residents, EvictionPolicy.NONE)
    assert (plan.trims, plan.evictions, plan.drains) == ((), (), ())
    assert plan.is_possible == (needed + sum(resident.num_bytes for resident in residents) <= budget)


def one(
    name: str, *, used_s: float, uses: int, trimmed: int = 10, is_idle: bool = True, is_pinned: bool = False
) -> Resident:
    return Resident(
        name=name,
        num_bytes=10,
        trimmed_bytes=trimmed,
        last_used_s=used_s,
        num_uses=uses,
        is_pinned=is_pinned,
        is_idle=is_idle,
    )


@pytest.mark.parametrize(("policy", "first"), [(EvictionPolicy.LRU, "old"), (EvictionPolicy.LFU, "rare")])
def test_the_policy_says_who_goes_first(policy: EvictionPolicy, first: str) -> None:
    residents = [
        one("rare", used_s=9, uses=1),
        one("old", used_s=1, uses=7),
        one("pinned", used_s=0, uses=0, is_pinned=True),
        one("busy", used_s=0, uses=0, is_idle=False),
    ]
    assert plan_room(10, 40, residents, policy) == RoomPlan(is_possible=True, evictions=(first,))


@pytest.mark.parametrize(
    ("needed", "plan"),
    [
        (3, RoomPlan(is_possible=True, trims=("old",))),
        (9, RoomPlan(is_possible=True, trims=("old", "new"))),
        (11, RoomPlan(is_possible=True, trims=("new",), evictions=("old",))),
        (16, RoomPlan(is_possible=True, evictions=("old", "new"))),
        (21, RoomPlan(is_possible=True, drains=("busy",))),
        (31, RoomPlan(is_possible=False)),
    ],
)
def test_caches_go_before_models_and_idle_models_before_busy_ones(needed: int, plan: RoomPlan) -> None:
    residents = [
        one("new", used_s=9, uses=1, trimmed=5),
        one("old", used_s=1, uses=1, trimmed=5),
        one("pinned", used_s=0, uses=1, trimmed=0, is_pinned=True),
        one("busy", used_s=0, uses=1, trimmed=0, is_idle=False),
    ]
    assert plan_room(needed, 40, residents, EvictionPolicy.LRU) == plan
