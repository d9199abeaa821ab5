"""What is remembered of targets that fail."""

from __future__ import annotations

from mlx_manager.backends.scripted import ScriptedBackend
from mlx_manager.gateway.breaker import LONGEST_REST_S, MOST_BREAKERS, MOST_FAILURES, REST_S, Breakers, BreakerState


def test_only_targets_that_fail_are_remembered() -> None:
    breakers, backend = Breakers(), ScriptedBackend({})
    for number in range(100):
        assert breakers.state(backend, f"model {number}") is BreakerState.CLOSED
        breakers.succeed(backend, f"model {number}")
    assert len(breakers) == 0
    breakers.fail(backend, "a")
    assert len(breakers) == 1
    breakers.succeed(backend, "a")
    assert len(breakers) == 0
    for number in range(2 * MOST_BREAKERS):
        breakers.fail(backend, f"model {number}")
    assert len(breakers) == MOST_BREAKERS


def test_each_failed_trial_doubles_the_rest() -> None:
    now_s = [0.0]
    breakers, backend = Breakers(lambda: now_s[0]), ScriptedBackend({})
    for _ in range(MOST_FAILURES):
        breakers.fail(backend, "a")
    rest_s = REST_S
    for _ in range(8):
        breaker = breakers.find(backend, "a")
        assert breaker is not None
        assert breaker.retry_after_s == rest_s
        assert not breaker.may_ask()
        # one that had begun before counts for no trial
        breakers.fail(backend, "a")
        assert breaker.retry_after_s == rest_s
        now_s[0] += rest_s
        assert breaker.may_ask()
        assert not breaker.may_ask(), "one trial at a time"
        breakers.fail(backend, "a")
        rest_s = min(2 * rest_s, LONGEST_REST_S)
