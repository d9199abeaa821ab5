"""The trace of a request to a real model: what the worker did, across the border between the processes."""

from __future__ import annotations

import time
from typing import Any

from tests.e2e.server_process import ServerProcess

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_spans_of_the_worker_lie_within_the_request(idle_server: ServerProcess) -> None:
    body = {
        "model": idle_server.model,
        "messages": [{"role": "user", "content": "Count the gulls. " * 150}],
        "max_tokens": 8,
        "ignore_eos": True,
    }
    with idle_server.http() as client:
        answer = client.post(
            "/v1/chat/completions", json=body, headers={"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}
        )
        deadline_s = time.monotonic() + 10
        spans: list[dict[str, Any]] = []
        while not spans or spans[0]["name"] != "POST /v1/chat/completions":
            assert time.monotonic() < deadline_s, spans
            time.sleep(0.1)
            spans = client.get(f"/admin/traces/{TRACE_ID}").json().get("spans", [])
    usage = answer.json()["usage"]
    names = [span["name"] for span in spans]
    chunks = [span for span in spans if span["name"] == "prefill"]
    num_chunks = len(chunks)
    assert num_chunks >= 1
    assert names[:3] == ["POST /v1/chat/completions", f"chat {idle_server.model}", "attempt local"]
    assert sorted(names[3:]) == sorted(
        ["lease", "prepare prompt", "queue", "prefix lookup", *["prefill"] * num_chunks, "decode", "parse"]
    )
    request, attempt = spans[1:3]
    for span in spans[3:]:
        assert span["parent_id"] == attempt["span_id"]
        assert request["start_unix_ns"] <= span["start_unix_ns"] <= span["end_unix_ns"] <= request["end_unix_ns"]
    by_name = {span["name"]: span for span in spans}
    order = ["lease", "prepare prompt", "queue", "prefix lookup", "prefill", "decode"]
    starts = [by_name[name]["start_unix_ns"] for name in order]
    assert starts == sorted(starts)
    cached = by_name["prefix lookup"]["attributes"]["mlx_manager.num_cached_tokens"]
    prefilled = sum(chunk["attributes"]["mlx_manager.num_tokens"] for chunk in chunks)
    assert cached + prefilled == usage["prompt_tokens"]
    assert by_name["decode"]["attributes"]["mlx_manager.num_tokens"] == 8
    decode_ns = by_name["decode"]["end_unix_ns"] - by_name["decode"]["start_unix_ns"]
    assert 0 < by_name["parse"]["attributes"]["mlx_manager.busy_s"] < decode_ns / 1e9
    assert request["attributes"]["gen_ai.provider.name"] == "mlx_manager"
