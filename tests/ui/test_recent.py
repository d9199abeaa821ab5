"""The last hour's requests, counted by the minute and forgotten after it."""

from __future__ import annotations

from mlx_manager.ir import RequestRecord
from mlx_manager.ui import RecentRequests


def record(status: int = 200, *, ttft_s: float | None = None, arrived_unix_s: float = 0.0) -> RequestRecord:
    return RequestRecord(request_id="r", status=status, ttft_s=ttft_s, arrived_unix_s=arrived_unix_s, duration_s=1.0)


def test_requests_are_counted_in_the_minute_they_end_in() -> None:
    now_s = [10_000.0]
    recent = RecentRequests(clock=lambda: now_s[0])
    recent.add(record(500))
    now_s[0] += 90
    recent.add(record(ttft_s=0.5))
    recent.add(record(ttft_s=0.1))
    recent.add(record(ttft_s=0.3))
    recent.add(record(499))
    minutes = recent.minutes(3)
    assert [minute.num_requests for minute in minutes] == [0, 1, 4]
    assert [minute.num_failed for minute in minutes] == [0, 1, 0]
    assert [minute.ttft_s for minute in minutes] == [None, None, 0.3]


def test_what_is_older_than_an_hour_is_forgotten() -> None:
    now_s = [10_000.0]
    recent = RecentRequests(clock=lambda: now_s[0])
    recent.remember([record(arrived_unix_s=5_000.0), record(arrived_unix_s=9_000.0)])
    assert [seen.record.arrived_unix_s for seen in recent.last(10)] == [9_000.0]
    now_s[0] += 3_600
    assert recent.last(10) == []
