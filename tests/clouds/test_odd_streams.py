"""Servers that say OpenAI's dialect in their own way are understood: nothing of what they say is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clouds.conftest import Cloud


@pytest.fixture(autouse=True)
def odd(cloud: Cloud) -> None:
    """Every model that is asked for leads to its stream."""
    cloud.route("odd", [{"provider": "up"}], pattern=".+", pattern_kind="regex")


def message_of(cloud: Cloud, model: str) -> dict[str, Any]:
    answer = cloud.ask(model)
    assert answer.status_code == 200, answer.text
    message: dict[str, Any] = answer.json()["choices"][0]["message"]
    return message


@pytest.mark.parametrize("model", ["empty-reasons", "parts", "returns", "pairs"])
def test_texts_are_whole(cloud: Cloud, model: str) -> None:
    message = message_of(cloud, model)
    assert message["content"] == "Hi you"
    assert message.get("reasoning_content") == ("hm" if model == "parts" else None)


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        ("interleaved", [("call_1", "f", {"a": 1}), ("call_2", "g", {"b": 2})]),
        ("objects", [("call_1", "f", {"a": 1})]),
        ("without-arguments", [("call_1", "f", {}), ("call_2", "g", {})]),
    ],
)
def test_calls_are_whole(cloud: Cloud, model: str, calls: list[tuple[str, str, Any]]) -> None:
    found = message_of(cloud, model)["tool_calls"]
    parsed = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in found]
    assert [(call_id, name, json.loads(arguments or "{}")) for call_id, name, arguments in parsed] == calls


def test_an_answer_that_a_policy_ended_says_so_in_each_dialect(cloud: Cloud) -> None:
    assert cloud.ask("filtered").json()["choices"][0]["finish_reason"] == "content_filter"
    body = {"model": "filtered", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    assert cloud.client.post("/v1/messages", json=body).json()["stop_reason"] == "refusal"
    response = cloud.client.post("/v1/responses", json={"model": "filtered", "input": "hi"}).json()
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})


def test_one_that_is_busy_inside_its_stream_is_busy(cloud: Cloud) -> None:
    refused = cloud.ask("busy-inside")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "provider_busy")
