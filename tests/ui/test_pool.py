"""Pool: a model is loaded, configured, pinned and unloaded, as a person does it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
from playwright.sync_api import expect

from tests.e2e.server_process import ServerProcess
from tests.ui.conftest import OpenPage

TINY = Path(__file__).parents[1] / "data" / "tiny_tool_caller"
EMBEDDING = "all-MiniLM-L6-v2"


def test_a_model_is_loaded_and_unloaded(open_page: OpenPage, admin_client: httpx.Client) -> None:
    watched = open_page()
    page = watched.visit("/pool")
    chooser = page.get_by_role("combobox", name="Model to load")
    chooser.fill("minilm")
    page.get_by_role("option", name=EMBEDDING).click()
    page.get_by_role("button", name="Load", exact=True).click()
    tile = page.get_by_role("article", name=EMBEDDING)
    expect(tile.get_by_text("ready", exact=True)).to_be_visible(timeout=60_000)
    tile.get_by_role("combobox", name=f"Priority of requests to {EMBEDDING}").click()
    page.get_by_role("option", name="Low priority").click()
    expect(page.get_by_text("that name no priority are low now")).to_be_visible()
    tile.get_by_role("button", name="Restart").click()
    page.get_by_role("dialog", name=f"Restart {EMBEDDING}?").get_by_role("button", name="Restart").click()
    expect(tile.get_by_text("loading", exact=True)).to_be_visible()
    expect(tile.get_by_text("ready", exact=True)).to_be_visible(timeout=60_000)
    tile.get_by_role("button", name="Unload").click()
    dialog = page.get_by_role("dialog", name=f"Unload {EMBEDDING}?")
    dialog.get_by_role("button", name="Unload").click()
    expect(tile).to_have_count(0)
    expect(page.get_by_role("cell", name="unloaded by hand")).to_have_count(2)
    # where the table is wider than the window, it is scrolled by keyboard too
    watched.look("phone", "light")
    assert watched.violations() == []
    states = {model["id"]: model["state"] for model in admin_client.get("/admin/models").json()["models"]}
    assert states[EMBEDDING] == "cold"
    done = [change for change in admin_client.get("/admin/changes").json()["changes"] if change["subject"] == EMBEDDING]
    assert [change["action"] for change in done[:4]] == ["model.unload", "model.restart", "model.change", "model.load"]


def test_a_profile_is_kept_and_refused_with_the_reason(
    open_page: OpenPage, console_server: ServerProcess, admin_client: httpx.Client
) -> None:
    watched = open_page(theme="dark")
    page = watched.visit("/pool")
    tile = page.get_by_role("article", name=console_server.model)
    tile.get_by_role("button", name="Profile").click()
    dialog = page.get_by_role("dialog", name=f"Profile of {console_server.model}")
    dialog.get_by_label("Temperature").fill("9")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("it takes a number from 0.0 to 2.0")).to_be_visible()
    assert watched.judge_dialog("model-profile") == []
    dialog.get_by_label("Temperature").fill("0.25")
    dialog.get_by_label("Other names (aliases)").fill("small, tiny")
    dialog.get_by_label("Most tokens guessed ahead").fill("6")
    for choice, word in (("Prefixes on disk", "off"), ("Shared beginnings", "on")):
        dialog.get_by_role("combobox", name=choice).click()
        page.get_by_role("option", name=word, exact=True).click()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    shown = admin_client.get(f"/admin/models/{console_server.model}").json()
    said = {"temperature": 0.25, "max_draft_tokens": 6, "disk_cache": "off", "shared_prefix_decode": "on"}
    assert shown["settings"] == said | {"aliases": ["small", "tiny"]}
    admin_client.patch(f"/admin/models/{console_server.model}", json=dict.fromkeys(shown["settings"]))


def test_a_model_that_cannot_be_loaded_says_why_and_is_dismissed(
    open_page: OpenPage, console_server: ServerProcess, admin_client: httpx.Client
) -> None:
    folder = shutil.copytree(TINY, console_server.output.parent / "models" / "broken")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": config["hidden_size"] + 8}))
    try:
        page = open_page(width=390).visit("/pool")
        admin_client.post("/admin/models/broken/load")
        tile = page.get_by_role("article", name="broken")
        expect(tile.get_by_role("alert")).to_contain_text("Download it again", timeout=30_000)
        expect(tile.get_by_text("0 B of 0 B")).to_be_hidden()
        tile.get_by_role("button", name="Dismiss").click()
        expect(tile).to_have_count(0)
    finally:
        shutil.rmtree(folder)


def test_a_model_is_pinned(open_page: OpenPage, console_server: ServerProcess) -> None:
    page = open_page().visit("/pool")
    tile = page.get_by_role("article", name=console_server.model)
    tile.get_by_role("button", name="Pin", exact=True).click()
    expect(tile.get_by_text("pinned")).to_be_visible()
    tile.get_by_role("button", name="Unpin").click()
    expect(tile.get_by_text("pinned")).to_be_hidden()


def test_the_batch_is_seen_while_it_runs(open_page: OpenPage, console_server: ServerProcess) -> None:
    page = open_page(width=390).visit("/pool")
    tile = page.get_by_role("article", name=console_server.model)
    batch = tile.get_by_role("list").filter(has_text="generated").first
    long = [{"role": "user", "content": "Count from one to a thousand. " * 20}]
    asked = {
        "model": console_server.model,
        "messages": long,
        "max_tokens": 400,
        "temperature": 0,
        "stream": True,
        "n": 2,
    }
    with console_server.http() as http, http.stream("POST", "/v1/chat/completions", json=asked) as answer:
        assert answer.status_code == 200
        rows = batch.get_by_role("listitem")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("of 400 generated")
        answer.close()
    expect(batch).to_be_hidden()
