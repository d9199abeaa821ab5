"""The trace of a request to a real model: what the worker did, across the border between the processes."""

from __future__ import annotations

import time
from typing import Any

import httpx

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
        spans = spans_of(client, TRACE_ID)
    usage = answer.json()["usage"]
    names = [span["name"] for span in spans]
    chunks = [span for span in spans if span["name"] == "prefill"]
    num_chunks = len(chunks)
    assert num_chunks >= 1
    assert names[:4] == ["POST /v1/chat/completions", f"chat {idle_server.model}", "route", "attempt local"]
    assert sorted(names[4:]) == sorted(
        ["lease", "prepare prompt", "queue", "prefix lookup", *["prefill"] * num_chunks, "decode", "parse"]
    )
    request, _, attempt = spans[1:4]
    for span in spans[4:]:
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


def test_an_answer_that_was_left_has_the_spans_of_what_was_done(idle_server: ServerProcess) -> None:
    body = {
        "model": idle_server.model,
        "messages": [{"role": "user", "content": "Count the gulls."}],
        "max_tokens": 500,
        "ignore_eos": True,
        "stream": True,
    }
    trace_id = TRACE_ID[::-1]
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    with idle_server.http() as client:
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            lines = answer.iter_lines()
            while '"content":"' not in next(lines):
                pass
        spans = spans_of(client, trace_id)
    by_name = {span["name"]: span for span in spans}
    assert by_name[f"chat {idle_server.model}"]["attributes"]["mlx_manager.status"] == 499
    order = ["lease", "prepare prompt", "queue", "prefix lookup", "prefill", "decode"]
    starts = [by_name[name]["start_unix_ns"] for name in order]
    assert starts == sorted(starts)


def spans_of(client: httpx.Client, trace_id: str) -> list[dict[str, Any]]:
    """Those of one trace, once the whole HTTP request is among them."""
    deadline_s = time.monotonic() + 10
    spans: list[dict[str, Any]] = []
    while not spans or spans[0]["name"] != "POST /v1/chat/completions":
        assert time.monotonic() < deadline_s, spans
        time.sleep(0.1)
        spans = client.get(f"/admin/traces/{trace_id}").json().get("spans", [])
    return spans
