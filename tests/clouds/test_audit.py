"""What the audit says of requests that providers answered, and how it is searched for that."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import pytest

from tests.clouds.conftest import Cloud

FILTERS: tuple[dict[str, Any], ...] = (
    {"dialect": "anthropic"},
    {"path": "/v1/messages"},
    {"route": "lead"},
    {"target_kind": "openai"},
    {"target_model": "ok"},
    {"fallback": True},
    {"fallback_reason": "provider_failed"},
    {"client_address": "127.0.0.1"},
)


def found(cloud: Cloud, **query: Any) -> list[dict[str, Any]]:
    """The records that match."""
    return [row["record"] for row in cloud.client.get("/admin/requests", params=query).json()["requests"]]


def test_who_answered_and_what_it_cost_are_columns(cloud: Cloud) -> None:
    price = {"input_usd": 1.0, "output_usd": 10.0}
    assert cloud.client.patch("/admin/providers/up", json={"prices": {"*": price}}).status_code == 200
    cloud.route("lead", [{"provider": "up", "model": "broken"}, {"provider": "up", "model": "ok"}])
    since = time.time()
    body = {"model": "gpt", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    assert cloud.client.post("/v1/messages", json=body, headers={"user-agent": "tests"}).status_code == 200
    assert cloud.client.post("/v1/embeddings", json={"model": "gpt", "input": "a"}).status_code == 200
    deadline_s = time.monotonic() + 10
    while len(rows := found(cloud, since=since)) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    embedded, answered = rows
    assert (embedded["dialect"], embedded["target_model"], embedded["cost_usd"]) == ("openai", "broken", 3e-6)
    assert answered["cost_usd"] == pytest.approx((11 * 1.0 + 5 * 10.0) / 1e6)
    told = ("model", "target", "target_kind", "target_model", "route", "fallback_reason", "num_attempts", "user_agent")
    assert [answered[name] for name in told] == [
        *("gpt", "up", "openai", "ok", "lead", "provider_failed", 2, "tests"),
    ]
    for query in FILTERS:
        assert answered in found(cloud, since=since, **query), query
    for query in ({"fallback": False}, {"dialect": "openai"}, {"error_code": "x"}, {"key_id": 1}, {"target": "m"}):
        assert answered not in found(cloud, since=since, **query), query
    exported = cloud.client.get("/admin/requests/export", params={"format": "csv", "since": since, "fallback": True})
    (line,) = csv.DictReader(io.StringIO(exported.text))
    assert (line["cost_usd"], line["route"], line["target_kind"]) == (str(answered["cost_usd"]), "lead", "openai")
    refused = cloud.client.get("/admin/requests", params={"dialect": "klingon"})
    assert refused.json()["error"]["param"] == "dialect"


def test_words_and_outcomes_find_requests(cloud: Cloud) -> None:
    since = time.time()
    cloud.lead("ok")
    assert cloud.ask().status_code == 200
    assert cloud.ask("100%_of\\it").status_code == 404
    deadline_s = time.monotonic() + 10
    while len(found(cloud, since=since)) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    for words, models in {
        "LEAD up": ["gpt"],
        "0%_of\\i": ["100%_of\\it"],
        "0%of": [],
        "model_not_found 127.0.0.1": ["100%_of\\it"],
        "gpt model_not_found": [],
    }.items():
        assert [record["model"] for record in found(cloud, since=since, words=words)] == models, words
    assert [record["model"] for record in found(cloud, since=since, outcome="answered")] == ["gpt"]
    assert [record["model"] for record in found(cloud, since=since, outcome="failed")] == ["100%_of\\it"]
    assert found(cloud, since=since, outcome="left") == []
