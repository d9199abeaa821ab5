"""The hub over HTTP: a model is searched, looked at, downloaded, and at once among the models; then deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_manager.app import Parts, create_app
from mlx_manager.backends.scripted import ScriptedBackend
from mlx_manager.catalog import LoadOptions
from mlx_manager.catalog.settings import Settings, load_settings
from mlx_manager.hub import Inventory
from mlx_manager.hub.desk import HubDesk
from mlx_manager.hub.downloads import Downloads
from mlx_manager.pool import ModelState, ModelStatus
from tests.hub.hub_server import HubServer


class OnDisk:
    """A pool that has loaded nothing but what it is told to have."""

    default_model = None

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self.loaded: set[str] = set()

    def statuses(self) -> list[ModelStatus]:
        states = {True: ModelState.READY, False: ModelState.COLD}
        return [ModelStatus(entry=e, state=states[e.name in self.loaded]) for e in self._inventory.entries()]

    def progress(self, name: str) -> str | None:
        return None


@asynccontextmanager
async def asking(hub: HubServer, home: Path) -> AsyncIterator[tuple[httpx.AsyncClient, OnDisk]]:
    """A client of the real app, over ASGI; only the pool behind it loads nothing."""
    access = hub.access(home / "hub")
    inventory = Inventory(home, cache=access.cache_folder)
    models = OnDisk(inventory)

    @asynccontextmanager
    async def parts(settings: Settings) -> AsyncIterator[Parts]:
        downloads = Downloads(access, state_file=home / "downloads.json")
        await downloads.start()
        desk = HubDesk(access, inventory, downloads, options=LoadOptions(), is_cpu_backend=True)
        yield Parts(backends=(ScriptedBackend({}),), models=models, hub=desk)
        await downloads.close()

    app = create_app(load_settings({}, {"home": str(home)}), parts=parts)
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(app=with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client, models


async def until(client: httpx.AsyncClient, id_: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    for _ in range(400):
        status: dict[str, Any] = (await client.get(f"/admin/downloads/{id_}")).json()
        if holds(status):
            return status
        await asyncio.sleep(0.05)
    raise AssertionError(status)


async def test_a_model_is_found_downloaded_listed_and_deleted(hub: HubServer, tmp_path: Path) -> None:
    async with asking(hub, tmp_path) as (client, models):
        found = (await client.get("/admin/hub/search", params={"query": "tiny"})).json()
        assert [(hit["id"], hit["is_on_disk"]) for hit in found["hits"]] == [("org/tiny", False)]
        shown = (await client.get("/admin/hub/models/org/tiny")).json()
        assert (shown["is_on_disk"], shown["entry"]["max_context"], shown["fit"]["verdict"]) == (False, 2048, "fits")
        assert shown["card"]["description"].startswith("# Tiny")

        hub.faults.slow_after["model.safetensors"] = 60_000
        begun = await client.post("/admin/downloads", json={"model": "org/tiny"})
        assert begun.status_code == 202
        id_ = begun.json()["id"]
        await until(client, id_, lambda status: status["done_bytes"] > 50_000)
        paused = (await client.post(f"/admin/downloads/{id_}/pause")).json()
        assert paused["state"] == "paused"
        assert (await client.post(f"/admin/downloads/{id_}/pause")).json()["error"]["code"] == "conflict"
        assert (await client.get("/v1/models")).json()["data"] == []
        hub.faults.slow_after.clear()
        assert (await client.post(f"/admin/downloads/{id_}/resume")).status_code == 202
        done = await until(client, id_, lambda status: status["state"] == "done")
        assert done["done_bytes"] == done["total_bytes"] > 100_000
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["org/tiny"]
        assert (await client.get("/admin/hub/search")).json()["hits"][0]["is_on_disk"] is True

        models.loaded.add("org/tiny")
        refused = await client.delete("/admin/hub/models/org/tiny")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
        models.loaded.clear()
        deleted = (await client.delete("/admin/hub/models/org/tiny")).json()
        assert deleted["deleted"] is True
        assert deleted["freed_bytes"] > 100_000
        assert (await client.get("/v1/models")).json()["data"] == []
        assert (await client.delete(f"/admin/downloads/{id_}")).status_code == 204
        assert (await client.get("/admin/downloads")).json() == {"downloads": []}
        done = (await client.get("/admin/changes")).json()["changes"]
        assert ("model.download", "org/tiny") in [(row["action"], row["subject"]) for row in done]


async def test_what_is_on_the_disk_is_shown_without_the_hub(hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "org" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").write_bytes(hub.repositories["org/tiny"].files["model.safetensors"])
    async with asking(hub, tmp_path) as (client, _):
        shown = (await client.get("/admin/hub/models/org/mine")).json()
    assert (shown["is_on_disk"], shown["card"]) == (True, None)
    assert "no model 'org/mine'" in shown["problem"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/admin/downloads", {"model": "a/b/c"}, 400, "form org/name"),
        ("POST", "/admin/downloads", {"model": 5}, 400, r"Expected `str`, got `int`"),
        ("POST", "/admin/downloads", {"model": "a/b", "branch": "x"}, 400, "unknown field `branch`"),
        ("GET", "/admin/hub/search?limit=0", None, 400, "limit: "),
        ("GET", "/admin/hub/search?sort=size", None, 400, "sort: "),
        ("GET", "/admin/hub/models/org/none", None, 404, "There is no model 'org/none'"),
        ("DELETE", "/admin/hub/models/../../etc", None, 404, ""),
        ("POST", "/admin/downloads/none/pause", None, 404, "no download 'none'"),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(
    hub: HubServer, tmp_path: Path, *, method: str, path: str, body: Any, status: int, message: str
) -> None:
    async with asking(hub, tmp_path) as (client, _):
        answer = await client.request(method, path, json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


async def test_a_page_of_another_site_is_refused(hub: HubServer, tmp_path: Path) -> None:
    async with asking(hub, tmp_path) as (client, _):
        refused = await client.post("/admin/downloads/x/resume", headers={"origin": "https://evil.example"})
        own = await client.post("/admin/downloads/x/resume", headers={"origin": "http://127.0.0.1"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "cross_site")
    assert own.status_code == 404
