"""What is told of each question to a provider: its span, the header that goes along, and metrics of all attempts."""

from __future__ import annotations

import time
from typing import Any

from tests.clouds.conftest import Cloud

TRACE_ID = "9c3af7651916cd43dd8448eb211c8031"


def attempts_of(cloud: Cloud, trace_id: str) -> list[dict[str, Any]]:
    """The spans of the backends that were asked, once the trace is complete."""
    deadline_s = time.monotonic() + 10
    while True:
        spans: list[dict[str, Any]] = cloud.client.get(f"/admin/traces/{trace_id}").json().get("spans", [])
        if any(span["name"].startswith("POST") for span in spans):
            return [span for span in spans if span["name"].startswith("attempt")]
        assert time.monotonic() < deadline_s, spans
        time.sleep(0.05)


def test_a_provider_s_part_of_a_request(cloud: Cloud) -> None:
    cloud.client.patch("/admin/providers/up", json={"max_retries": 1})
    cloud.route("two", [{"provider": "up", "model": "broken"}, {"provider": "up", "model": "flaky"}])
    cloud.upstream.num_failures_first = 1
    assert cloud.ask(headers={"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}).status_code == 200
    broken, flaky = attempts_of(cloud, TRACE_ID)
    assert broken["error"] == broken["attributes"]["error.type"] == "provider_failed"
    assert broken["attributes"]["http.response.status_code"] == 500
    said = flaky["attributes"]
    assert (said["server.address"], said["server.port"]) == ("127.0.0.1", cloud.upstream.port)
    assert (said["http.response.status_code"], said["http.request.resend_count"]) == (200, 1)
    assert (said["gen_ai.provider.name"], said["gen_ai.request.model"]) == ("up", "flaky")
    assert (said["gen_ai.response.id"], said["gen_ai.response.model"]) == ("c", "flaky")
    took_s = (flaky["end_unix_ns"] - flaky["start_unix_ns"]) / 1e9
    assert 0 < said["mlx_manager.time_to_headers"] < took_s
    sent = [headers["traceparent"] for headers in cloud.upstream.headers[-4:]]
    assert sent == [f"00-{TRACE_ID}-{span['span_id']}-01" for span in (broken, broken, flaky, flaky)]
    assert 'mlx_manager_provider_retries_total{backend="up"} ' in cloud.client.get("/metrics").text


def test_every_attempt_is_counted(cloud: Cloud) -> None:
    cloud.client.delete("/admin/providers/up")
    cloud.provider(name="counted")
    cloud.route("two", [{"provider": "counted", "model": "broken"}, {"model": "m"}])
    for _ in range(6):
        assert cloud.ask().status_code == 200
    text = cloud.client.get("/metrics").text
    # after five failures it is left alone
    assert 'mlx_manager_attempts_total{backend="counted",outcome="provider_failed"} 5.0' in text
    assert 'mlx_manager_attempt_seconds_count{backend="counted"} 5.0' in text
    assert 'mlx_manager_targets_left_alone{backend="counted"} 1.0' in text
