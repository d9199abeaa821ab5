"""Errors, models and probes as clients of Anthropic's dialect expect them."""

from __future__ import annotations

from typing import Any

import anthropic
import msgspec
import pytest

from mlx_manager.backends.scripted import script_of
from mlx_manager.catalog import ModelOverrides
from mlx_manager.errors import (
    GenerationFailed,
    InsufficientMemory,
    InvalidRequest,
    MlxManagerError,
    ModelLoadFailed,
    QueueFull,
    ShuttingDown,
    WorkerDied,
)
from tests.http.scripted_server import HELLO, TEXT, Serve, Served, Shelf, shelved

BODY: dict[str, Any] = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
VERSION = {"anthropic-version": "2023-06-01"}
TYPES: list[tuple[MlxManagerError, int, str]] = [
    (InvalidRequest("no"), 400, "invalid_request_error"),
    (QueueFull("full", retry_after_s=7), 529, "overloaded_error"),
    (InsufficientMemory("full"), 529, "overloaded_error"),
    (ShuttingDown("bye"), 529, "overloaded_error"),
    (ModelLoadFailed("broken"), 503, "api_error"),
    (WorkerDied("dead"), 503, "api_error"),
    (GenerationFailed("broken"), 500, "api_error"),
]


def sdk(served: Served, **options: Any) -> anthropic.Anthropic:
    root = f"http://127.0.0.1:{served.port}"
    return anthropic.Anthropic(base_url=root, max_retries=0, **({"api_key": "none"} | options))


@pytest.mark.parametrize(("error", "status", "kind"), TYPES)
def test_error_in_the_dialects_form(serve: Serve, error: MlxManagerError, status: int, kind: str) -> None:
    served = serve({"m": (error,)})
    with served.http() as client:
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            answer = client.post(path, json=BODY, headers={"x-request-id": "mine"})
            assert answer.status_code == status
            assert answer.json() == {
                "type": "error",
                "error": {"type": kind, "message": error.message},
                "request_id": "mine",
            }
            assert answer.headers["request-id"] == answer.headers["x-request-id"] == "mine"
    if isinstance(error, QueueFull):
        assert answer.headers["retry-after"] == "7"


def test_the_sdk_raises_its_own_errors(serve: Serve) -> None:
    served = serve({"m": script_of(HELLO), "full": (QueueFull("full"),)})
    with sdk(served) as client:
        with pytest.raises(anthropic.NotFoundError) as missing:
            client.messages.create(**BODY | {"model": "none"})
        assert missing.value.request_id is not None
        assert missing.value.type == "not_found_error"
        with pytest.raises(anthropic.APIStatusError) as overloaded:
            client.messages.create(**BODY | {"model": "full"})
        assert overloaded.value.status_code == 529
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].role"):
            client.messages.create(**BODY | {"messages": [{"role": "x", "content": "a"}]})
        raw = client.messages.with_raw_response.create(**BODY)
        assert raw.headers["request-id"]


@pytest.mark.parametrize("key", [{"api_key": "sk-any"}, {"api_key": None, "auth_token": "any"}])
def test_a_key_and_a_bearer_token_are_both_taken(serve: Serve, key: dict[str, Any]) -> None:
    with sdk(serve({"m": script_of(HELLO)}), **key) as client:
        (block,) = client.messages.create(**BODY).content
    assert isinstance(block, anthropic.types.TextBlock)
    assert block.text == TEXT


def test_a_body_that_is_too_large(serve: Serve) -> None:
    with serve({"m": script_of(HELLO)}, max_body="2KiB").http() as client:
        answer = client.post("/v1/messages", json=BODY | {"system": "a" * 3000})
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")


def test_whatever_else_fails_has_that_form_too(serve: Serve) -> None:
    with serve({"m": script_of(HELLO)}).http() as client:
        wrong_host = client.post("/v1/messages", json=BODY, headers={"host": "evil.example"})
        wrong_method = client.get("/v1/messages")
        nowhere = client.get("/v1/files", headers=VERSION)
        not_json = client.post("/v1/messages", content=b"{", headers={"content-type": "application/json"})
    kinds = [answer.json()["error"]["type"] for answer in (wrong_host, wrong_method, nowhere, not_json)]
    assert kinds == ["permission_error", "invalid_request_error", "not_found_error", "invalid_request_error"]
    assert [answer.status_code for answer in (wrong_host, wrong_method, nowhere, not_json)] == [403, 405, 404, 400]


def shelf() -> Shelf:
    second = msgspec.structs.replace(shelved("b"), overrides=ModelOverrides(aliases=("claude-local",)))
    return Shelf([shelved("a"), second, shelved("c")], default_model="b")


def test_models_are_listed_in_the_dialect_of_who_asks(serve: Serve) -> None:
    served = serve({}, shelf())
    with served.http() as client:
        listed = client.get("/v1/models", headers=VERSION).json()
        assert client.get("/v1/models").json()["object"] == "list"
        assert client.get("/v1/models/b").json()["object"] == "model"
        missing = client.get("/v1/models/none", headers=VERSION)
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")
    assert [model["id"] for model in listed["data"]] == ["b", "claude-local", "a", "c"]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("b", "c", False)
    assert listed["data"][0] == {
        "type": "model",
        "id": "b",
        "display_name": "b",
        "created_at": "2023-11-14T22:13:20Z",
        "max_input_tokens": 8192,
        "max_tokens": 8192,
        "lifecycle": "active",
    }


def test_the_sdk_pages_through_the_models(serve: Serve) -> None:
    with sdk(serve({}, shelf())) as client:
        assert [model.id for model in client.models.list(limit=1)] == ["b", "claude-local", "a", "c"]
        before = client.models.list(limit=2, before_id="c")
        assert [model.id for model in before.data] == ["claude-local", "a"]
        assert before.has_more
        assert client.models.retrieve("claude-local").max_input_tokens == 8192
        with pytest.raises(anthropic.BadRequestError, match="limit"):
            client.models.list(limit=0)
        with pytest.raises(anthropic.BadRequestError, match="after_id"):
            client.models.list(after_id="none")


def test_probes_find_a_server(serve: Serve) -> None:
    with serve({}).http() as client:
        assert client.head("/").status_code == 200
        assert client.head("/api/hello").status_code == 200
        assert client.get("/api/hello").json() == {"message": "hello"}
