"""What the workloads ask for, and that no two runs ask the same."""

import pytest

from mlx_manager.bench import WORKLOADS, Prose, Scale, Workload

SCALE = Scale(max_tokens=16)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_a_plan_follows_from_its_seed_alone(workload: Workload) -> None:
    assert workload.plan(Prose(5), SCALE) == workload.plan(Prose(5), SCALE)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_another_seed_shares_no_beginning(workload: Workload) -> None:
    def beginnings(seed: int) -> set[str]:
        return {(plan.system or plan.questions[0])[:40] for plan in workload.plan(Prose(seed), SCALE)}

    assert beginnings(1).isdisjoint(beginnings(2))


def test_prompts_at_once_share_no_beginning() -> None:
    sixteen = next(workload for workload in WORKLOADS if workload.name == "sixteen")
    questions = [plan.questions[0][:40] for plan in sixteen.plan(Prose(3), SCALE)]
    assert len(set(questions)) == 16


def test_the_shared_workload_shares_one_long_system_prompt() -> None:
    shared = next(workload for workload in WORKLOADS if workload.name == "shared")
    plans = shared.plan(Prose(3), SCALE)
    assert len(plans) == 8
    assert len({plan.system for plan in plans}) == 1
    assert plans[0].system is not None
    assert len(plans[0].system.split()) == pytest.approx(700 / 1.15, rel=0.05)


@pytest.mark.parametrize("num_tokens", [60, 300, 1000])
def test_requests_have_about_the_wanted_length(num_tokens: int) -> None:
    words = Prose(1, tokens_per_word=1.3).story_request(num_tokens).split()
    assert len(words) * 1.3 == pytest.approx(num_tokens, rel=0.15, abs=12)


def test_arrivals_come_at_the_asked_rate() -> None:
    arrivals = Prose(2).arrivals_s(2000, rate_per_s=4.0)
    assert arrivals == sorted(arrivals)
    assert arrivals[0] == 0.0
    assert len(arrivals) / arrivals[-1] == pytest.approx(4.0, rel=0.1)
