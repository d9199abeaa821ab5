"""Accounts over HTTP: the first is the admin's, others wait; sessions begin, end and are given up."""

from __future__ import annotations

import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.auth.conftest import PASSWORD, Headers, Open, ask, log_in, mint, register


def test_the_first_account_is_the_admin_s_and_is_logged_in(opened: Open) -> None:
    with opened().http() as client:
        assert client.get("/auth/state").json() == {"has_accounts": False, "is_open": True}
        made = register(client, "Ada")
        assert made.status_code == 201
        assert made.json()["user"]["role"] == "admin"
        cookie = made.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert f"max-age={7 * 24 * 3600}" in cookie
        assert client.get("/auth/me").json()["name"] == "ada"
        assert client.get("/auth/state").json() == {"has_accounts": True, "is_open": True}


def test_only_one_of_many_first_accounts_is_an_admin_s(opened: Open) -> None:
    served = opened()
    with ThreadPoolExecutor(8) as threads, served.http() as client, served.http() as crowd:
        made = list(threads.map(lambda index: register(crowd, f"user{index}"), range(8)))
        assert sorted(answer.status_code for answer in made) == [201, *[202] * 7]
        winner = next(index for index, answer in enumerate(made) if answer.status_code == 201)
        log_in(client, f"user{winner}")
        roles = [user["role"] for user in client.get("/admin/users").json()["users"]]
        assert roles.count("admin") == 1


def test_others_wait_for_an_admin(opened: Open) -> None:
    served = opened()
    with served.http() as admin, served.http() as bob:
        register(admin)
        waiting = register(bob, "bob")
        assert (waiting.status_code, waiting.json()["state"]) == (202, "pending")
        assert "set-cookie" not in waiting.headers
        refused = log_in(bob, "bob")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_permitted")
        assert admin.patch("/admin/users/bob", json={"state": "active"}).json()["state"] == "active"
        assert log_in(bob, "bob").status_code == 200
        assert bob.get("/admin/users").status_code == 403
        assert admin.patch("/admin/users/bob", json={"state": "disabled"}).status_code == 200
        assert bob.get("/auth/me").status_code == 401
        assert log_in(bob, "bob").status_code == 403


def test_nobody_learns_which_names_there_are(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    served = opened()
    with served.http() as admin, served.http() as stranger:
        register(admin)
        taken, free = register(stranger, "ada", "another password"), register(stranger, "zoe")
        assert (taken.status_code, taken.json()) == (free.status_code, free.json())
        # a row for either, so that neither takes longer
        made = [(row["action"], row["subject"]) for row in admin.get("/admin/changes").json()["changes"]]
        assert made[:2] == [("user.create", "zoe"), ("user.register", "ada")]
        caplog.set_level(logging.WARNING, "mlx_manager.auth")
        wrong_password, wrong_name = log_in(stranger, "ada", "wrong"), log_in(stranger, "nobody", "wrong")
        assert (wrong_password.status_code, wrong_password.json()) == (wrong_name.status_code, wrong_name.json())
        assert wrong_password.status_code == 401
        told = [record.args for record in caplog.records if record.name.startswith("mlx_manager.auth")]
        assert told == [("ada", "127.0.0.1"), ("nobody", "127.0.0.1")]
        assert log_in(admin).status_code == 200


def test_a_wrong_name_takes_as_long_as_a_wrong_password(opened: Open) -> None:
    served = opened()
    with served.http() as client:
        register(client)
        took: dict[str, float] = {}
        for name in ("ada", "nobody"):
            answers = [log_in(client, name, "wrong") for _ in range(4)]
            took[name] = min(answer.elapsed.total_seconds() for answer in answers)
        # a check that was left out would answer in a few milliseconds
        assert took["nobody"] > took["ada"] / 3


def test_guessing_is_slowed_down(opened: Open) -> None:
    served = opened()
    with served.http() as client, ThreadPoolExecutor(10) as threads:
        register(client)

        def guess(number: int) -> int:
            # who asks is where the connection comes from, whatever a header says
            headers = {"x-forwarded-for": f"10.0.0.{number}"}
            return client.post("/auth/login", json={"name": "ada", "password": "guess"}, headers=headers).status_code

        statuses = list(threads.map(guess, range(10)))
        assert sorted(statuses) == [401] * 5 + [429] * 5
        limited = log_in(client)
        assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limited")
        assert 0 < int(limited.headers["retry-after"]) <= 15 * 60


def test_the_session_s_cookie_stays_on_https_behind_a_proxy(opened: Open) -> None:
    with opened().http() as client:
        register(client)
        body = {"name": "ada", "password": PASSWORD}
        for proto, is_secure in (("http", False), ("https", True)):
            answer = client.post("/auth/login", json=body, headers={"x-forwarded-proto": proto})
            assert ("; Secure" in answer.headers["set-cookie"]) is is_secure


def test_logging_out_ends_the_session_for_good(opened: Open) -> None:
    with opened().http() as client:
        register(client)
        stolen = dict(client.cookies)
        assert client.post("/auth/logout").status_code == 204
        assert client.get("/auth/me").status_code == 401
        again = httpx.get(f"{client.base_url}/auth/me", cookies=stolen)
        assert again.status_code == 401


def test_sessions_are_listed_and_ended_one_by_one(peopled: Open, ada: Headers, bob: Headers) -> None:
    served = peopled()
    with served.http() as here, served.http() as fox:
        fox.headers["user-agent"] = "Firefox/156"
        log_in(fox)
        sessions = here.get("/auth/sessions", headers=ada).json()["sessions"]
        assert [one["is_this"] for one in sessions] == [False, True]
        assert (sessions[0]["client"], sessions[0]["address"]) == ("Firefox/156", "127.0.0.1")
        path = f"/auth/sessions/{sessions[0]['id']}"
        assert here.delete(path, headers=bob).status_code == 404
        assert fox.get("/auth/me").status_code == 200
        assert here.delete(path, headers=ada).status_code == 204
        assert fox.get("/auth/me").status_code == 401
        assert here.delete(path, headers=ada).json()["error"]["code"] == "not_found"
        assert len(here.get("/auth/sessions", headers=ada).json()["sessions"]) == 1
        ended = here.get("/admin/changes", headers=ada).json()["changes"][0]
        assert (ended["action"], ended["actor"]) == ("user.end_session", "user:ada")


def test_a_new_password_ends_every_other_session(opened: Open) -> None:
    served = opened()
    with served.http() as here, served.http() as elsewhere:
        register(here)
        log_in(elsewhere)
        old = dict(here.cookies)
        body = {"old_password": PASSWORD, "new_password": "a new password"}
        assert here.post("/auth/password", json=body | {"old_password": "wrong"}).status_code == 401
        assert here.post("/auth/password", json=body).status_code == 200
        assert dict(here.cookies) != old
        assert here.get("/auth/me").status_code == 200
        assert elsewhere.get("/auth/me").status_code == 401
        assert log_in(elsewhere).status_code == 401
        assert log_in(elsewhere, password="a new password").status_code == 200


@pytest.mark.parametrize("change", [{"role": "user"}, {"state": "disabled"}])
def test_the_last_admin_stays(peopled: Open, ada: Headers, change: dict[str, str]) -> None:
    with peopled().http() as client:
        refused = client.patch("/admin/users/ada", json=change, headers=ada)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
        assert client.delete("/admin/users/ada", headers=ada).status_code == 409
        client.patch("/admin/users/bob", json={"role": "admin"}, headers=ada)
        assert client.patch("/admin/users/ada", json=change, headers=ada).status_code == 200


def test_a_deleted_account_is_gone_with_its_sessions_and_keys(peopled: Open, ada: Headers, bob: Headers) -> None:
    with peopled().http() as client:
        key = mint(client, bob)
        mint(client, ada)
        assert ask(client, key).status_code == 200
        assert client.delete("/admin/users/bob", headers=ada).status_code == 204
        assert client.get("/auth/me", headers=bob).status_code == 401
        assert ask(client, key).status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "ada"}, "password"),
        ({"name": "ada", "password": "short"}, "password"),
        ({"name": "", "password": PASSWORD}, "name"),
        ({"name": "ada lovelace", "password": PASSWORD}, "name"),
        ({"name": 5, "password": PASSWORD}, "name"),
        ({"name": "ada", "password": PASSWORD, "role": "admin"}, "role"),
    ],
)
def test_a_wrong_registration_names_the_field(opened: Open, body: dict[str, object], field: str) -> None:
    with opened().http() as client:
        refused = client.post("/auth/register", json=body)
        assert refused.status_code == 400
        assert field in refused.json()["error"]["message"]


def test_forms_and_pages_of_other_sites_are_not_taken(peopled: Open, ada: Headers) -> None:
    with peopled().http() as client:
        body = f'{{"name": "ada", "password": "{PASSWORD}"}}'
        assert client.post("/auth/login", content=body, headers={"content-type": "text/plain"}).status_code == 400
        foreign = ada | {"origin": "https://evil.example"}
        for path in ("/auth/login", "/auth/logout", "/admin/users", "/auth/keys"):
            refused = client.post(path, json={}, headers=foreign)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "cross_site")
        assert client.post("/auth/login", json={}, headers={"origin": "http://[::1"}).status_code == 403
        # the cookie goes along with what another page of this machine sends, and is not enough
        assert ask(client, **foreign).status_code == 403


def test_a_forged_session_is_none(peopled: Open, ada: Headers) -> None:
    with peopled().http() as client:
        token = ada["cookie"].partition("=")[2]
        header, claims, _ = token.split(".")
        none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
        assert client.get("/auth/me", headers=ada).status_code == 200
        for forged in (f"{header}.{claims}.AAAA", f"{none}.{claims}.", "nonsense", token[:-4] + "AAAA"):
            assert client.get("/auth/me", headers={"cookie": f"mlx_manager_session={forged}"}).status_code == 401


def test_changes_are_recorded_without_secrets(peopled: Open, ada: Headers, tmp_path: Path) -> None:
    with peopled().http() as client:
        secret = mint(client, ada)
        client.patch("/admin/keys/1", json={"limits": {"requests_per_minute": 3}}, headers=ada)
        client.delete("/admin/keys/1", headers=ada)
        listed = client.get("/admin/changes", headers=ada).json()["changes"]
        assert [(row["actor"], row["action"]) for row in listed] == [
            ("user:ada", "key.delete"),
            ("user:ada", "key.change"),
            ("user:ada", "key.create"),
            ("user:bob", "user.login"),
            ("user:ada", "user.create"),
            ("user:ada", "user.login"),
            ("registration", "user.create"),
        ]
        assert listed[3]["detail"] == {"address": "127.0.0.1"}
        page = client.get("/admin/changes?limit=1&before=3", headers=ada).json()["changes"]
        assert [row["id"] for row in page] == [2]
    raw = sqlite3.connect(tmp_path / "mlx-manager.db")
    dump = "\n".join(raw.iterdump())
    raw.close()
    assert secret not in dump
    assert PASSWORD not in dump
