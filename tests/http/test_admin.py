"""The pool over HTTP: loading, unloading, settings, books, and what waiting clients are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.http.scripted_server import Serve
from tests.pool.counting_pool import MODEL_BYTES, budget_for, set_mode
from tests.pool.pool_server import pool_server

NAMES = ("counter", "org/name", "third")


def make_folders(folder: Path) -> Path:
    (folder / "org").mkdir()
    return folder


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server whose budget fits two of three models."""
    folder = make_folders(tmp_path_factory.mktemp("pool"))
    with pool_server(folder, names=NAMES, memory_budget=budget_for(2), keepalive=0.3) as running:
        running.headers["x-folder"] = str(folder)
        yield running


def model(client: httpx.Client, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = client.get(f"/admin/models/{name}").raise_for_status().json()
    return shown


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def changes(client: httpx.Client) -> list[tuple[str, str, dict[str, Any]]]:
    """What was done, the last first."""
    listed = client.get("/admin/changes").json()["changes"]
    return [(row["action"], row["subject"], row["detail"]) for row in listed]


def complete(client: httpx.Client, name: str, prompt: str = "2 0", **more: Any) -> httpx.Response:
    return client.post("/v1/completions", json={"model": name, "prompt": prompt, **more})


def test_errors_are_problem_details(client: httpx.Client) -> None:
    answer = client.get("/admin/models/nobody", headers={"x-request-id": "mine"})
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    # what clients of OpenAI's form read
    assert problem.pop("error")["message"] == problem["detail"]
    assert problem == {
        "type": "urn:mlx-manager:error:model_not_found",
        "title": "Not Found",
        "status": answer.status_code,
        "detail": "There is no model 'nobody'.",
        "instance": "urn:mlx-manager:request:mine",
        "code": "model_not_found",
        "request_id": "mine",
        "param": "name",
    }
    wrong = client.get("/admin/requests", params={"limit": "many"})
    assert (wrong.status_code, wrong.json()["param"]) == (400, "limit")
    assert client.get("/v1/models/nobody").headers["content-type"] == "application/json"


def test_models_are_loaded_and_unloaded(client: httpx.Client) -> None:
    begun = client.post("/admin/models/org/name/load")
    assert (begun.status_code, begun.json()["state"]) == (202, "loading")
    wait_for(lambda: model(client, "org/name")["state"] == "ready")
    assert client.post("/admin/models/org/name/load").status_code == 200
    shown = model(client, "org/name")
    assert (shown["planned_bytes"], shown["path"], shown["kind"]) == (MODEL_BYTES, "sequential", "text")
    assert shown["worker_pid"]
    stats = client.get("/admin/stats").json()
    assert stats["pool"]["planned_bytes"] == MODEL_BYTES
    assert stats["pool"]["budget_bytes"] == 2 * MODEL_BYTES
    ended = client.post("/admin/models/org/name/unload")
    assert (ended.status_code, ended.json()["state"]) == (200, "cold")
    last = client.get("/admin/evictions").json()["evictions"][0]
    assert (last["model"], last["reason"], last["freed_bytes"]) == ("org/name", "admin", MODEL_BYTES)
    assert changes(client)[:3] == [
        ("model.unload", "org/name", {}),
        ("model.load", "org/name", {}),
        ("model.load", "org/name", {}),
    ]


def test_an_alias_answers_under_the_name_that_was_asked_for(client: httpx.Client) -> None:
    changed = client.patch("/admin/models/counter", json={"aliases": ["gpt-4o"], "kv_budget": "8MiB"})
    assert changed.json()["model"]["settings"] == {"aliases": ["gpt-4o"], "kv_budget": 8 * 1024**2}
    answered = complete(client, "gpt-4o").json()
    assert (answered["model"], answered["usage"]["completion_tokens"]) == ("gpt-4o", 2)
    listed = {one["id"]: one for one in client.get("/v1/models").json()["data"]}
    assert listed["gpt-4o"]["root"] == "counter"
    assert listed["counter"]["aliases"] == ["gpt-4o"]
    assert listed["counter"]["capabilities"] == ["chat", "completions"]
    assert client.get("/v1/models/gpt-4o").json()["id"] == "gpt-4o"
    assert changes(client)[0] == ("model.change", "counter", {"aliases": ["gpt-4o"], "kv_budget": "8MiB"})
    late = client.patch("/admin/models/gpt-4o", json={"kv_budget": None, "ttl": 60})
    assert late.json()["after_next_load"] == ["kv_budget"]
    client.patch("/admin/models/counter", json={"aliases": None, "ttl": None})
    assert model(client, "counter")["settings"] == {}
    assert complete(client, "gpt-4o").status_code == 404


def test_no_room_is_told_with_what_holds_the_memory(client: httpx.Client) -> None:
    for name in ("counter", "org/name"):
        assert client.post(f"/admin/models/{name}/pin").json()["pinned"] is True
        assert complete(client, name).status_code == 200
    refused = complete(client, "third")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
    error = refused.json()["error"]
    assert error["code"] == "insufficient_memory"
    assert "counter 100.0 MiB (pinned), org/name 100.0 MiB (pinned)" in error["message"]
    for name in ("counter", "org/name"):
        assert client.post(f"/admin/models/{name}/unpin").json()["pinned"] is False
    assert complete(client, "third").status_code == 200
    last = client.get("/admin/evictions").json()["evictions"][0]
    assert (last["model"], last["reason"], last["for_model"]) == ("counter", "room", "third")


def test_a_stream_says_what_it_waits_for(client: httpx.Client) -> None:
    client.post("/admin/models/counter/unload")
    set_mode(Path(client.headers["x-folder"]), "slow")
    with client.stream("POST", "/v1/completions", json={"model": "counter", "prompt": "2 0", "stream": True}) as sent:
        lines = [line for line in sent.iter_lines() if line]
    set_mode(Path(client.headers["x-folder"]), "good")
    assert lines[0].startswith(": loading counter: ")
    assert ": loading counter: counting to three (50%)" in lines
    assert lines[-1] == "data: [DONE]"
    assert not any(line.startswith(":") for line in lines[lines.index(next(x for x in lines if x[0] == "d")) :])


@pytest.mark.parametrize(
    ("body", "param", "complaint"),
    [
        ({"pined": True}, "pined", "Did you mean pinned?"),
        ({"temperature": 9}, "temperature", "it takes a number from 0.0 to 2.0"),
        ([1], None, "has to be an object"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    client: httpx.Client, body: object, param: str | None, complaint: str
) -> None:
    before = changes(client)
    refused = client.patch("/admin/models/counter", json=body)
    assert changes(client) == before
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert complaint in refused.json()["error"]["message"]


def test_unknown_models_are_not_found(client: httpx.Client) -> None:
    for ask in (client.get("/admin/models/nobody/knows"), client.post("/admin/models/nobody/knows/load")):
        assert (ask.status_code, ask.json()["error"]["code"]) == (404, "model_not_found")


def test_other_sites_cannot_unload(client: httpx.Client) -> None:
    refused = client.post("/admin/models/counter/unload", headers={"Origin": "https://example.com"})
    assert refused.status_code == 403


def test_a_server_without_models_of_its_own_says_so(serve: Serve) -> None:
    with serve({}).http() as scripted:
        assert scripted.get("/admin/models").json() == {"models": []}
        assert scripted.get("/admin/stats").status_code == 503
