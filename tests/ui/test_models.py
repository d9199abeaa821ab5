"""Models: searched on the hub, judged, downloaded, filtered and deleted, as a person does it."""

from __future__ import annotations

from pathlib import Path

import httpx
from playwright.sync_api import expect

from tests.ui.conftest import OpenPage


def test_a_model_is_found_downloaded_and_deleted(open_page: OpenPage) -> None:
    watched = open_page()
    page = watched.visit("/models")
    page.get_by_role("tab", name="Hugging Face").click()
    page.get_by_label("Search Hugging Face").fill("tiny")
    page.get_by_label("Search Hugging Face").press("Enter")
    found = page.get_by_role("article", name="org/tiny")
    for fact in ("llama", "4-bit", "tools"):
        expect(found.get_by_text(fact, exact=True)).to_be_visible()
    assert watched.violations() == []
    found.get_by_role("button", name="Details").click()
    dialog = page.get_by_role("dialog", name="org/tiny")
    card = dialog.get_by_role("region", name="Model card")
    expect(card).to_contain_text("Answers little.")
    assert card.locator("img, script, a[href^='javascript']").count() == 0
    assert page.evaluate("() => window.evil") is None
    expect(dialog.get_by_text("Context each")).to_be_visible()
    watched.shoot("models-details-1440-light")
    assert watched.judge_dialog("model") == []
    dialog.get_by_role("button", name="Close").click()
    # judged first: it fits
    found.get_by_role("button", name="Download").click()
    expect(page.get_by_text("ready to be loaded")).to_be_visible(timeout=30_000)
    expect(found.get_by_text("on this machine")).to_be_visible()
    expect(found.get_by_role("button", name="Download")).to_be_hidden()
    page.get_by_role("button", name="Take off the list").click()
    page.get_by_role("tab", name="On this machine").click()
    row = page.get_by_role("article", name="org/tiny")
    row.get_by_role("button", name="Delete org/tiny").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("are free again")).to_be_visible()
    expect(row).to_have_count(0)


def test_models_are_searched_and_filtered(open_page: OpenPage) -> None:
    page = open_page().visit("/models")
    rows = page.locator("[data-page] article")
    expect(rows).to_have_count(2)
    page.get_by_label("Search the models on this machine").fill("smol")
    expect(rows).to_have_count(1)
    page.get_by_label("Context").click()
    page.get_by_role("option", name="from 8k").click()
    expect(rows).to_have_count(1)
    page.get_by_label("Size", exact=True).click()
    page.get_by_role("option", name="up to 1 GiB").click()
    expect(rows).to_have_count(1)
    page.get_by_role("checkbox", name="Thinking").click()
    expect(page.get_by_text("No model matches.")).to_be_visible()


def test_a_file_that_is_no_gguf_is_refused_with_the_reason(open_page: OpenPage) -> None:
    watched = open_page(width=390)
    page = watched.visit("/models")
    page.get_by_role("button", name="Import a GGUF").click()
    page.get_by_label("Path of the file on the server").fill("/no/such.gguf")
    page.get_by_label("Name of the new model").fill("mine")
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("There is no file /no/such.gguf.")).to_be_visible()
    assert watched.judge_dialog("import") == []


def test_an_imported_gguf_is_offered_and_recorded(
    open_page: OpenPage, admin_client: httpx.Client, starter_gguf: Path
) -> None:
    page = open_page().visit("/models")
    page.get_by_role("button", name="Import a GGUF").click()
    page.get_by_label("Path of the file on the server").fill(str(starter_gguf))
    page.get_by_label("Name of the new model").fill("mine")
    page.get_by_role("button", name="Import", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    tile = page.get_by_role("article", name="Import of mine")
    expect(tile.get_by_text("importing")).to_be_visible()
    expect(tile).to_have_count(0, timeout=120_000)
    expect(page.locator("article[aria-label=mine]")).to_be_visible()
    deleted = admin_client.delete("/admin/hub/models/mine")
    assert deleted.status_code == 200
    done = [change for change in admin_client.get("/admin/changes").json()["changes"] if change["subject"] == "mine"]
    assert [change["action"] for change in done] == ["model.delete", "model.import"]
    assert done[0]["actor"] == done[1]["actor"]
