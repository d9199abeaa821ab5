"""API keys: who needs one, what it opens, and what it allows."""

from __future__ import annotations

import sqlite3
import time
from datetime import datetime
from pathlib import Path

import httpx
import openai
import pytest
from typer.testing import CliRunner

from mlx_manager.app import create_app
from mlx_manager.app.access import is_loopback
from mlx_manager.catalog.settings import load_settings
from mlx_manager.cli.main import app
from tests.auth.conftest import Headers, Open, ask, mint, register

PUBLIC = {
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/auth/state"),
    ("POST", "/auth/register"),
    ("POST", "/auth/login"),
}


def test_every_route_asks_who_it_is_but_those_that_cannot(opened: Open) -> None:
    paths = create_app(load_settings({}, {"home": "/nowhere"})).openapi()["paths"]
    routes = {(method.upper(), path) for path, operations in paths.items() for method in operations}
    with opened(host="0.0.0.0").http() as client:
        answers = {route: client.request(route[0], route[1].replace("{", "").replace("}", "")) for route in routes}
    assert len(routes) > 40
    assert {route for route, answer in answers.items() if answer.status_code != 401} == PUBLIC


def test_on_loopback_v1_is_open_until_there_is_a_key(peopled: Open, ada: Headers) -> None:
    with peopled().http() as client:
        assert ask(client).status_code == 200
        assert ask(client, "whatever clients send").status_code == 200
        key = mint(client, ada)
        refused = ask(client)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "not_authenticated")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/v1/models").status_code == 401
        assert ask(client, "wrong").status_code == 401
        assert ask(client, key).status_code == 200
        assert ask(client, **{"x-api-key": key}).status_code == 200
        assert client.get("/health").status_code == 200


def test_deleting_the_last_key_opens_nothing(peopled: Open, ada: Headers, tmp_path: Path) -> None:
    def reopen() -> bool:
        return CliRunner().invoke(app, ["key", "reopen", "--home", str(tmp_path)]).exception is None

    with peopled().http() as client:
        mint(client, ada)
        assert not reopen()
        assert client.delete("/auth/keys/1", headers=ada).status_code == 204
        refused = ask(client)
        assert refused.status_code == 401
        assert "An API key is needed" in refused.json()["error"]["message"]
        assert client.get("/auth/state").json()["is_open"] is False
        assert reopen()
        deadline_s = time.monotonic() + 10
        while ask(client).status_code != 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        mint(client, ada)
        assert ask(client).status_code == 401


def test_a_session_asks_models_too(peopled: Open, ada: Headers) -> None:
    with peopled().http() as client:
        mint(client, ada)
        assert ask(client).status_code == 401
        assert ask(client, **ada).status_code == 200


def test_an_official_client_authenticates(peopled: Open, ada: Headers) -> None:
    served = peopled()
    with served.http() as client:
        key = mint(client, ada)
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
    with openai.OpenAI(base_url=served.base_url, api_key=key) as sdk:
        assert sdk.chat.completions.create(model="m", messages=messages).choices[0].message.content
    with openai.OpenAI(base_url=served.base_url, api_key="wrong") as sdk, pytest.raises(openai.AuthenticationError):
        sdk.chat.completions.create(model="m", messages=messages)


def test_admin_is_open_on_loopback_until_there_is_an_account(opened: Open) -> None:
    served = opened()
    with served.http() as client, served.http() as stranger:
        assert stranger.get("/admin/users").status_code == 200
        register(client)
        assert stranger.get("/admin/users").status_code == 401
        assert stranger.get("/admin/models").status_code == 401
        assert client.get("/admin/users").status_code == 200


def test_beyond_loopback_nothing_is_open(opened: Open, tmp_path: Path) -> None:
    served = opened(host="0.0.0.0")
    with served.http() as client:
        refused = ask(client)
        assert refused.status_code == 401
        assert "mlx-manager user create" in refused.json()["error"]["message"]
        assert client.get("/admin/models").status_code == 401
        # this connection comes from the machine itself, and so may make the first account
        assert register(client).status_code == 201
        assert ask(client, mint(client, {})).status_code == 200
    token = (tmp_path / "secrets" / "local-token").read_text()
    assert httpx.get(f"{served.base_url}/models", headers={"x-api-key": token}).status_code == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.0.0.9", True), ("::1", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "192.168.1.2", "127.0.0.1.example.com", "localhost.example")],
)
def test_which_addresses_are_this_machine_s_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(("isolation", "num_salts"), [("none", 1), ("user", 2), ("key", 3)])
def test_the_prefix_cache_is_shared_as_far_as_it_is_set(
    peopled: Open, ada: Headers, bob: Headers, isolation: str, num_salts: int
) -> None:
    served = peopled(prefix_isolation=isolation)
    with served.http() as client:
        keys = [mint(client, ada), mint(client, ada, "second"), mint(client, bob)]
        for key in keys * 2:
            assert ask(client, key).status_code == 200
    salts = [request.cache_salt for request in served.backend.requests]
    assert salts[:3] == salts[3:]
    assert len(set(salts)) == num_salts
    assert ("" in salts) == (isolation == "none")


def test_a_key_is_shown_once(peopled: Open, ada: Headers) -> None:
    with peopled().http() as client:
        secret = mint(client, ada)
        (listed,) = client.get("/auth/keys", headers=ada).json()["keys"]
        assert secret not in str(listed)
        assert secret.endswith(listed["hint"])
        assert listed["last_used_unix_s"] is None


def test_scopes(peopled: Open, ada: Headers, bob: Headers) -> None:
    with peopled().http() as client:
        asks, administers = mint(client, ada), mint(client, ada, "ops", scopes=["admin"])
        assert client.get("/admin/users", headers={"x-api-key": administers}).status_code == 200
        assert client.get("/admin/users", headers={"x-api-key": asks}).status_code == 403
        assert ask(client, administers).status_code == 403
        for body, status in (({"scopes": ["admin"]}, 403), ({"scopes": []}, 400), ({"scopes": ["all"]}, 400)):
            assert client.post("/auth/keys", json={"name": "k", **body}, headers=bob).status_code == status


def test_an_admin_s_key_is_one_no_longer_when_its_owner_is_none(peopled: Open, ada: Headers, bob: Headers) -> None:
    with peopled().http() as client:
        client.patch("/admin/users/bob", json={"role": "admin"}, headers=ada)
        key = mint(client, bob, scopes=["admin", "inference"])
        assert client.get("/admin/users", headers={"x-api-key": key}).status_code == 200
        client.patch("/admin/users/bob", json={"role": "user"}, headers=ada)
        assert client.get("/admin/users", headers={"x-api-key": key}).status_code == 403
        assert ask(client, key).status_code == 200


def test_the_models_that_a_key_may_ask_for(peopled: Open, ada: Headers) -> None:
    served = peopled()
    with served.http() as client:
        key = mint(client, ada, limits={"models": ["m"]})
        assert ask(client, key, "m").status_code == 200
        refused = ask(client, key, "other")
        assert (refused.status_code, refused.json()["error"]["param"]) == (403, "model")
        embeddings = client.post("/v1/embeddings", json={"model": "other", "input": "a"}, headers={"x-api-key": key})
        assert embeddings.status_code == 403
        assert len(served.backend.requests) == 1


def test_requests_per_minute(peopled: Open, ada: Headers) -> None:
    with peopled().http() as client:
        key = mint(client, ada, limits={"requests_per_minute": 2})
        remaining = [ask(client, key).headers["x-ratelimit-remaining-requests"] for _ in range(2)]
        assert remaining == ["1", "0"]
        limited = ask(client, key)
        assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limited")
        assert 55 <= int(limited.headers["retry-after"]) <= 60
        assert limited.headers["x-ratelimit-limit-requests"] == "2"
        assert limited.headers["x-ratelimit-remaining-requests"] == "0"


def test_an_account_s_limits_hold_for_all_of_its_keys_and_sessions(peopled: Open, ada: Headers, bob: Headers) -> None:
    served = peopled()
    with served.http() as client:

        def limit(**limits: object) -> None:
            assert client.patch("/admin/users/bob", json={"limits": limits}, headers=ada).status_code == 200

        keys = [mint(client, bob), mint(client, bob, "second")]
        limit(models=["m"])
        assert client.get("/auth/me", headers=bob).json()["limits"]["models"] == ["m"]
        refused = [ask(client, keys[0], "other"), ask(client, model="other", **bob)]
        assert [answer.status_code for answer in refused] == [403, 403]
        assert "This account may not" in refused[0].text
        limit(requests_per_minute=2)
        mixed = [ask(client, keys[0]), ask(client, keys[1]), ask(client, keys[1]), ask(client, **bob)]
        assert [answer.status_code for answer in mixed] == [200, 200, 429, 429]
        assert "account 'bob' allows 2" in mixed[2].text
        # two answers of 11 tokens each have been given
        limit(tokens_per_day=33)
        assert ask(client, **bob).headers["x-ratelimit-remaining-tokens"] == "11"
        key_id = client.get("/auth/keys", headers=bob).json()["keys"][0]["id"]
        assert client.delete(f"/auth/keys/{key_id}", headers=bob).status_code == 204
        spent = ask(client, mint(client, bob, "third"))
        assert (spent.status_code, spent.headers["x-ratelimit-remaining-tokens"]) == (429, "0")
        assert ask(client, mint(client, ada)).status_code == 200
        # only admins set them
        assert client.patch("/admin/users/bob", json={"limits": {}}, headers=bob).status_code == 403
        wrong = client.patch("/admin/users/bob", json={"limits": {"tokens_per_day": 0}}, headers=ada)
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "limits.tokens_per_day")


def test_limits_are_told_in_the_words_of_the_dialect(peopled: Open, ada: Headers) -> None:
    with peopled().http() as client:
        key = mint(client, ada, limits={"requests_per_minute": 1, "tokens_per_day": 20})
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        for status, num_left in ((200, "20"), (429, "9")):
            answer = client.post("/v1/messages", json=body, headers={"x-api-key": key})
            told = {name: value for name, value in answer.headers.items() if "ratelimit" in name}
            assert answer.status_code == status
            assert told.pop("anthropic-ratelimit-requests-limit") == "1"
            assert told.pop("anthropic-ratelimit-requests-remaining") == "0"
            assert told.pop("anthropic-ratelimit-tokens-limit") == "20"
            assert told.pop("anthropic-ratelimit-tokens-remaining") == num_left
            for name, most_s in (("requests", 62), ("tokens", 24 * 3600 + 2)):
                reset = datetime.fromisoformat(told.pop(f"anthropic-ratelimit-{name}-reset"))
                assert 0 < reset.timestamp() - time.time() < most_s
            assert not told
        assert answer.json()["error"]["type"] == "rate_limit_error"


def test_tokens_per_day_survive_a_restart(peopled: Open, ada: Headers) -> None:
    first = peopled()
    with first.http() as client:
        # an answer of the script takes 7 and 4
        key = mint(client, ada, limits={"tokens_per_day": 20})
        assert ask(client, key).headers["x-ratelimit-remaining-tokens"] == "20"
        assert ask(client, key).headers["x-ratelimit-remaining-tokens"] == "9"
        assert ask(client, key).status_code == 429
    first.stop()
    deadline_s = time.monotonic() + 10
    while True:
        with peopled().http() as client:
            limited = ask(client, key)
        if limited.status_code == 429 or time.monotonic() > deadline_s:
            break
        time.sleep(0.1)
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) <= 24 * 3600
    assert limited.headers["x-ratelimit-limit-tokens"] == "20"


def test_expired_and_revoked_keys(peopled: Open, ada: Headers) -> None:
    with peopled().http() as client:
        key = mint(client, ada, expires_unix_s=int(time.time()) + 3)
        revoked = mint(client, ada, "second")
        key_id = client.get("/auth/keys", headers=ada).json()["keys"][1]["id"]
        assert ask(client, key).status_code == 200
        assert client.delete(f"/auth/keys/{key_id}", headers=ada).status_code == 204
        assert ask(client, revoked).status_code == 401
        deadline_s = time.monotonic() + 10
        while (expired := ask(client, key)).status_code == 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert expired.status_code == 401
        assert "expired" in expired.json()["error"]["message"]


def test_a_wrong_key_names_the_field(peopled: Open, ada: Headers) -> None:
    with peopled().http() as client:
        for body, param in (
            ({"name": "", "limits": {}}, "name"),
            ({"expires_unix_s": 1}, "expires_unix_s"),
            ({"expires_unix_s": 1e30}, "expires_unix_s"),
            ({"limits": {"requests_per_minute": 1e30}}, "limits.requests_per_minute"),
            ({"limits": {"tokens_per_day": 0}}, "limits.tokens_per_day"),
        ):
            refused = client.post("/auth/keys", json={"name": "k"} | body, headers=ada)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_a_key_of_somebody_else_is_not_found(peopled: Open, ada: Headers, bob: Headers) -> None:
    with peopled().http() as client:
        mint(client, ada)
        assert client.get("/auth/keys/1", headers=ada).status_code == 200
        assert client.get("/auth/keys/1", headers=bob).status_code == 404
        assert client.delete("/auth/keys/1", headers=bob).status_code == 404


def test_pages_of_configured_origins_only_may_ask(opened: Open) -> None:
    preflight = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    with opened().http() as client:
        assert "access-control-allow-origin" not in client.options("/v1/models", headers=preflight).headers
    with opened(cors_origins="https://chat.example").http() as client:
        allowed = client.options("/v1/models", headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == "https://chat.example"
        other = client.options("/v1/models", headers=preflight | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_a_locked_database_keeps_nobody_out(peopled: Open, ada: Headers, tmp_path: Path) -> None:
    with peopled().http() as client:
        key = mint(client, ada)
        raw = sqlite3.connect(tmp_path / "mlx-manager.db", isolation_level=None)
        raw.execute("BEGIN EXCLUSIVE")
        assert ask(client, key).status_code == 200
        refused = client.post("/auth/keys", json={"name": "second"}, headers=ada)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
        assert "locked" in refused.json()["error"]["message"]
        raw.close()
        assert client.post("/auth/keys", json={"name": "second"}, headers=ada).status_code == 201
