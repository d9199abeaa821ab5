"""Two servers with one PostgreSQL database: what is configured at one holds at the other, and both write the audit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.server_process import PATIENCE_S, ServerProcess, serving, wait_until
from tests.storage.conftest import postgres_url  # noqa: F401 - a fixture

pytestmark = pytest.mark.faults


def ask(server: ServerProcess, key: str) -> int:
    body = {"model": server.model, "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 3}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE_S).status_code


def test_two_servers_share_one(tiny_folder: Path, tmp_path: Path, postgres_url: str) -> None:  # noqa: F811
    flags = ("--database", postgres_url, "--no-use-spare", "--kv-budget", "64MiB")
    with serving(tiny_folder, tmp_path / "one", *flags) as one:
        # the keys that encrypt and sign are files: who shares the database has to have the same
        (tmp_path / "two").mkdir()
        shutil.copytree(tmp_path / "one" / "secrets", tmp_path / "two" / "secrets")
        with serving(tiny_folder, tmp_path / "two", *flags) as two, httpx.Client(timeout=PATIENCE_S) as admin:

            def get(server: ServerProcess, path: str) -> Any:
                return admin.get(f"{server.url}{path}").raise_for_status().json()

            admin.post(f"{one.url}/auth/register", json={"name": "ada", "password": "correct horse"}).raise_for_status()
            minted = admin.post(f"{one.url}/auth/keys", json={"name": "ci"}).raise_for_status().json()["secret"]
            provider = {"name": "up", "kind": "openai", "key": "sk-secret"}
            admin.post(f"{one.url}/admin/providers", json=provider).raise_for_status()
            route = {"name": "big", "pattern": "gpt", "targets": [{"provider": "up"}]}
            admin.post(f"{one.url}/admin/routes", json=route).raise_for_status()
            # until it knows of the key, it asks for none
            wait_until(lambda: ask(two, "wrong") == 401, 20, lambda: ask(two, "wrong"))
            assert ask(two, minted) == 200
            # the session too: it is one of the database, signed with the shared key
            wait_until(lambda: get(two, "/admin/routes")["routes"], 20, lambda: get(two, "/admin/routes"))
            assert get(two, "/admin/providers")["providers"][0]["has_key"] is True
            for _ in range(5):
                assert ask(one, minted) == ask(two, minted) == 200
            assert ask(one, "wrong") == ask(two, "wrong") == 401

            def num_answered(server: ServerProcess) -> int:
                return len([row for row in get(server, "/admin/requests?status=200&limit=1000&key=ci")["requests"]])

            wait_until(lambda: num_answered(one) >= 11, 20, lambda: num_answered(one))
            assert num_answered(one) == num_answered(two)
            admin.delete(f"{two.url}/admin/routes/big").raise_for_status()
            wait_until(lambda: not get(one, "/admin/routes")["routes"], 20, lambda: get(one, "/admin/routes"))
