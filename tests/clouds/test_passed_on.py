"""What means nothing here and is told to a provider of the client's own dialect: cache marks, betas, hints."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.clouds.conftest import Cloud
from tests.clouds.upstream_server import KEY

MARK = {"cache_control": {"type": "ephemeral"}}
LONG = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}


@pytest.fixture
def claude(cloud: Cloud) -> Cloud:
    """A server with a provider of Anthropic's dialect, which `claude` leads to."""
    price = {"input_usd": 100.0, "output_usd": 1000.0, "cached_input_usd": 10.0, "cache_write_usd": 125.0}
    added = cloud.provider(name="claude", kind="anthropic", prices={"*": price}, headers={"Anthropic-Beta": "own"})
    assert added.status_code == 201, added.text
    cloud.route("claude", [{"provider": "claude", "model": "ok"}], "claude")
    return cloud


def message(cloud: Cloud, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """What the provider was sent for a message."""
    body = {"model": "claude", "max_tokens": 50, "messages": HI} | more
    answer = cloud.client.post("/v1/messages", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert "x-mlx-manager-ignored" not in answer.headers
    return cloud.upstream.bodies[-1]


def cost_of(cloud: Cloud, answer: httpx.Response) -> float:
    """What the request log says that an answer cost; it is written a moment later."""
    assert answer.status_code == 200, answer.text
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        for row in cloud.client.get("/admin/requests?limit=3").json()["requests"]:
            if row["record"]["request_id"] == answer.headers["x-request-id"]:
                return float(row["record"]["cost_usd"])
        time.sleep(0.02)
    raise AssertionError("the request is not in the log")


def test_cache_marks_stay_where_they_were(claude: Cloud) -> None:
    text: dict[str, Any] = {"type": "text", "text": "Be brief."}
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": [text | MARK]}
    messages = [*HI, {"role": "assistant", "content": [call | MARK]}, {"role": "user", "content": [result | LONG]}]
    sent = message(
        claude, system=[text, text | LONG], tools=[TOOL, TOOL | {"name": "g"} | MARK], messages=messages, **MARK
    )
    assert sent["system"] == [text, text | LONG]
    assert [tool.get("cache_control") for tool in sent["tools"]] == [None, MARK["cache_control"]]
    assert [turn["content"] for turn in sent["messages"][1:]] == [[call | MARK], [result | LONG]]
    assert sent["cache_control"] == MARK["cache_control"]
    wrong = {"model": "claude", "max_tokens": 50, "messages": HI, "cache_control": {"type": "ephemeral", "ttl": "2d"}}
    refused = claude.client.post("/v1/messages", json=wrong)
    assert (refused.status_code, "cache_control.ttl" in refused.text) == (400, True)


def test_betas_go_along_behind_those_of_the_provider(claude: Cloud) -> None:
    message(claude, {"anthropic-beta": "one-2025-01-01, two"}, betas=["two", "three"])
    assert claude.upstream.headers[-1]["anthropic-beta"] == "own,one-2025-01-01,two,three"
    message(claude)
    assert claude.upstream.headers[-1]["anthropic-beta"] == "own"
    assert claude.upstream.headers[-1]["x-api-key"] == KEY


def test_what_was_put_into_the_cache_is_told_and_paid_for(claude: Cloud) -> None:
    claude.route("writes", [{"provider": "claude", "model": "writes"}], "writes")
    body = {"model": "writes", "max_tokens": 50, "messages": HI}
    answer = claude.client.post("/v1/messages", json=body)
    usage = answer.json()["usage"]
    parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    assert [usage[part] for part in parts] == [7, 100, 4, 5]
    assert cost_of(claude, answer) == pytest.approx((7 * 100 + 100 * 125 + 4 * 10 + 5 * 1000) / 1_000_000)


def test_what_a_provider_says_that_it_cost_counts_where_no_price_is_set(cloud: Cloud) -> None:
    cloud.provider(name="router", kind="openai-compatible")
    cloud.route("router", [{"provider": "router", "model": "priced"}], "router")
    assert cost_of(cloud, cloud.ask("router")) == 0.25
    prices = {"*": {"input_usd": 0, "output_usd": 1_000_000}}
    cloud.client.patch("/admin/providers/router", json={"prices": prices})
    assert cost_of(cloud, cloud.ask("router")) == 2.0


def test_a_hint_is_ignored_only_by_who_does_not_get_it(cloud: Cloud) -> None:
    cloud.lead("ok")
    for stream in (False, True):
        assert "x-mlx-manager-ignored" not in cloud.ask(verbosity="low", stream=stream).headers
        assert cloud.ask("m", verbosity="low", stream=stream).headers["x-mlx-manager-ignored"] == "verbosity"
        told = cloud.client.post("/v1/responses", json={"model": "gpt", "input": "hi", "text": {"verbosity": "low"}})
        assert (told.status_code, told.headers.get("x-mlx-manager-ignored")) == (200, None)
    # a number that msgspec does not write is written all the same
    assert cloud.ask(metadata={"n": 10**30}).status_code == 200
    assert cloud.upstream.bodies[-1]["metadata"] == {"n": 10**30}


def test_tokens_are_counted_by_who_counts_them(claude: Cloud) -> None:
    body = {"messages": HI, "tools": [TOOL], "thinking": {"type": "enabled", "budget_tokens": 2000}}
    counted = claude.client.post("/v1/messages/count_tokens", json=body | {"model": "claude"})
    assert (counted.status_code, counted.json()) == (200, {"input_tokens": 42})
    assert sorted(claude.upstream.bodies[-1]) == ["messages", "model", "thinking", "tool_choice", "tools"]
    claude.lead("ok")
    refused = claude.client.post("/v1/messages/count_tokens", json=body | {"model": "gpt"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "up counts no tokens.")
    # which ones they are, only a model here can say
    which = claude.client.post("/tokenize", json={"model": "claude", "messages": HI})
    assert (which.status_code, which.json()["error"]["message"]) == (400, "claude counts no tokens.")
    asked = {"model": "gpt", "input": "hi", "truncation": "auto"}
    assert claude.client.post("/v1/responses", json=asked).status_code == 200
    kept = claude.client.post(
        "/v1/messages/count_tokens", json=body | {"model": "claude"}, headers={"x-backend": "local"}
    )
    assert kept.status_code == 403
