"""What is set for one model reaches its worker: with each of its requests, and with its loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_manager.catalog import ModelOverrides
from tests.pool.counting_pool import KV_BYTES
from tests.pool.pool_server import pool_server

CONFIGURED = {"counter": ModelOverrides(temperature=0.3, system_prompt="Be brief.")}
SAID = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("overrides")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with pool_server(folder, models=CONFIGURED) as running:
        yield running


@pytest.fixture(autouse=True)
def as_configured(client: httpx.Client) -> Iterator[None]:
    yield
    settings = client.get("/admin/models/counter").json()["settings"]
    change(client, **dict.fromkeys(settings))


def change(client: httpx.Client, **settings: object) -> dict[str, Any]:
    changed: dict[str, Any] = client.patch("/admin/models/counter", json=settings).raise_for_status().json()
    return changed


def complete(client: httpx.Client, folder: Path, **asked: object) -> dict[str, Any]:
    """What the worker gets of a completion."""
    body = {"model": "counter", "prompt": "1 0", **asked}
    client.post("/v1/completions", json=body).raise_for_status()
    return last_request(folder)


def chat(client: httpx.Client, folder: Path, messages: list[dict[str, str]]) -> list[tuple[str, str]]:
    """The messages that the worker gets of a conversation."""
    client.post("/v1/chat/completions", json={"model": "counter", "messages": messages}).raise_for_status()
    sent = last_request(folder)["prompt"]["messages"]
    return [(message["role"], message["content"][0]["text"]) for message in sent]


def last_request(folder: Path) -> dict[str, Any]:
    request: dict[str, Any] = json.loads((folder / "counter" / "requests").read_text().splitlines()[-1])
    return request


@pytest.mark.parametrize(
    ("setting", "value", "asked"),
    [
        ("temperature", 0.7, 0.2),
        ("top_p", 0.8, 0.5),
        ("top_k", 40, 7),
        ("min_p", 0.1, 0.2),
        ("repetition_penalty", 1.1, 1.3),
        ("max_tokens", 77, 5),
    ],
)
def test_sampling_defaults_reach_requests_that_name_none(
    client: httpx.Client, folder: Path, setting: str, value: float, asked: float
) -> None:
    changed = change(client, **{setting: value})
    assert changed["after_next_load"] == []
    assert complete(client, folder)["sampling"][setting] == value
    assert complete(client, folder, **{setting: asked})["sampling"][setting] == asked


def test_what_config_toml_says_holds_until_it_is_changed_and_after(client: httpx.Client, folder: Path) -> None:
    assert complete(client, folder)["sampling"]["temperature"] == 0.3
    change(client, temperature=0.9)
    assert complete(client, folder)["sampling"]["temperature"] == 0.9
    change(client, temperature=None)
    assert complete(client, folder)["sampling"]["temperature"] == 0.3


def test_a_priority_reaches_requests_that_name_none(client: httpx.Client, folder: Path) -> None:
    assert complete(client, folder)["priority"] == "normal"
    change(client, priority="low")
    assert complete(client, folder)["priority"] == "low"
    assert complete(client, folder, priority="high")["priority"] == "high"


def test_a_system_prompt_begins_conversations_that_have_none(client: httpx.Client, folder: Path) -> None:
    assert chat(client, folder, SAID) == [("system", "Be brief."), ("user", "Hello")]
    change(client, system_prompt="Rhyme.")
    assert chat(client, folder, SAID) == [("system", "Rhyme."), ("user", "Hello")]
    own = [{"role": "system", "content": "Be long."}, *SAID]
    assert chat(client, folder, own) == [("system", "Be long."), ("user", "Hello")]


@pytest.mark.parametrize(
    ("wrong", "param", "reason"),
    [
        ({"draft_model": "no-such-model", "max_draft_tokens": 4}, "draft_model", "no such model on this machine"),
        ({"draft_model": "other"}, "max_draft_tokens", "would guess nothing"),
    ],
)
def test_a_draft_model_that_cannot_guess_is_refused_before_it_is_kept(
    client: httpx.Client, wrong: dict[str, object], param: str, reason: str
) -> None:
    refused = client.patch("/admin/models/counter", json=wrong)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert reason in refused.json()["error"]["message"]
    assert "draft_model" not in client.get("/admin/models/counter").json()["settings"]
    change(client, draft_model="other", max_draft_tokens=4)
    assert client.patch("/admin/models/counter", json={"max_draft_tokens": 0}).status_code == 400


def test_dtype_context_and_kv_budget_hold_with_the_next_load(client: httpx.Client, folder: Path) -> None:
    complete(client, folder)
    own = {"dtype": "float16", "max_context": 50, "kv_budget": "8MiB"}
    assert sorted(change(client, **own)["after_next_load"]) == sorted(own)
    client.post("/admin/models/counter/unload").raise_for_status()
    complete(client, folder)
    loads = sorted((folder / "counter").glob("load-*"), key=lambda load: load.stat().st_mtime_ns)
    before, after = (json.loads(load.read_text()) for load in loads[-2:])
    names = ("dtype", "max_context", "kv_budget_bytes")
    assert [before[name] for name in names] == ["auto", None, KV_BYTES]
    assert [after[name] for name in names] == ["float16", 50, 8 * 1024**2]
