"""Tool servers under /admin: added, tried, changed and deleted by admins alone; secrets go in and never come out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_manager.catalog.settings import load_settings
from tests.http.scripted_server import Recorder, Served, Shelf, running

SHOP = {"name": "shop", "kind": "stdio", "command": [sys.executable, str(Path(__file__).parent / "shop_server.py")]}
SECRET = "open sesame"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server."""
    settings = load_settings({}, {"home": str(tmp_path_factory.mktemp("tools")), "port": 0})
    with running(settings, Recorder({}), Shelf()) as started:
        yield started


@pytest.fixture(scope="module")
def ada(served: Served) -> Iterator[httpx.Client]:
    """Its admin."""
    with served.http() as http:
        http.post("/auth/register", json={"name": "ada", "password": "ada has a long one"}).raise_for_status()
        yield http


def test_a_server_is_added_tried_changed_and_deleted(ada: httpx.Client) -> None:
    body = SHOP | {"variables": {"SHOP_SECRET": SECRET}}
    added = ada.post("/admin/tool-servers", json=body)
    assert added.status_code == 201
    assert (added.json()["variable_names"], SECRET in added.text) == (["SHOP_SECRET"], False)
    assert ada.post("/admin/tool-servers", json=body).status_code == 409
    tools = ada.post("/admin/tool-servers/shop/tools").json()
    assert [tool["name"] for tool in tools] == ["find_price", "wait", "leave", "environment"]
    changed = ada.patch("/admin/tool-servers/shop", json={"is_on": False, "timeout_s": 5})
    assert (changed.json()["is_on"], changed.json()["variable_names"]) == (False, ["SHOP_SECRET"])
    forgotten = ada.patch("/admin/tool-servers/shop", json={"variables": {}})
    assert forgotten.json()["variable_names"] == []
    listed = ada.get("/admin/tool-servers").json()["tool_servers"]
    assert [each["name"] for each in listed] == ["calculator", "weather", "shop"]
    assert SECRET not in ada.get("/admin/changes").text
    assert ada.delete("/admin/tool-servers/shop").status_code == 204
    assert ada.delete("/admin/tool-servers/shop").status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (SHOP | {"name": "a shop"}, "name"),
        (SHOP | {"command": []}, "command"),
        (SHOP | {"command": ["a\0b"]}, "command"),
        (SHOP | {"kind": "built-in"}, "kind"),
        (SHOP | {"timeout_s": 0}, "timeout_s"),
        (SHOP | {"url": "https://host"}, "url"),
        (SHOP | {"variables": {"A B": "c"}}, "variables"),
        ({"name": "net", "kind": "http", "url": "ftp://host"}, "url"),
        ({"name": "net", "kind": "http", "url": "http://[::1/mcp"}, "url"),
        ({"name": "net", "kind": "http", "url": "https://me:secret@host/mcp"}, "url"),
        ({"name": "net", "kind": "http", "url": "https://host/mcp", "headers": {"a": "b\r\nc: d"}}, "headers"),
        ({"name": "net", "kind": "http", "url": "http://127.0.0.1:1/mcp"}, "url"),
    ],
)
def test_what_is_wrong_is_named(ada: httpx.Client, body: dict[str, Any], param: str) -> None:
    refused = ada.post("/admin/tool-servers", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_only_admins_may(served: Served, ada: httpx.Client) -> None:
    eve = {"name": "eve", "password": "eve has a long one"}
    ada.post("/admin/users", json=eve).raise_for_status()
    with served.http() as http:
        http.post("/auth/login", json=eve).raise_for_status()
        for answer in (
            http.get("/admin/tool-servers"),
            http.post("/admin/tool-servers", json=SHOP),
            http.patch("/admin/tool-servers/calculator", json={"is_on": False}),
            http.post("/admin/tool-servers/calculator/tools"),
            http.delete("/admin/tool-servers/calculator"),
            http.get("/tools"),
        ):
            assert answer.status_code == 403
