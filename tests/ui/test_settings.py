"""Settings: each with its source, changed and left again, as a person does it."""

from __future__ import annotations

import httpx
from playwright.sync_api import expect

from tests.ui.conftest import OpenPage


def test_a_setting_is_found_changed_and_left_again(open_page: OpenPage, admin_client: httpx.Client) -> None:
    watched = open_page(width=390, theme="dark")
    page = watched.visit("/settings")
    expect(page.get_by_role("group", name="port").get_by_text("from --port")).to_be_visible()
    page.get_by_label("Search the settings").fill("budget month")
    expect(page.get_by_role("group", name="port")).to_be_hidden()
    row = page.get_by_role("group", name="cloud_budget")
    expect(row.get_by_text("default", exact=True)).to_be_visible()
    row.get_by_role("textbox").fill("much")
    row.get_by_role("button", name="Save").click()
    expect(row.get_by_text("it takes a number of 0.0 or more")).to_be_visible()
    row.get_by_role("textbox").fill("12.5")
    page.keyboard.press("Enter")
    expect(row.get_by_text("changed here")).to_be_visible()
    expect(page.get_by_text("cloud_budget: saved, holds at once.")).to_be_visible()
    assert admin_client.get("/admin/settings").json()["cloud_budget"] == 12.5
    assert watched.violations() == []
    watched.shoot("settings-changed-390-dark")

    # what somebody else changes is shown, and what is half typed stays
    row.get_by_role("textbox").fill("99")
    admin_client.patch("/admin/settings", json={"cloud_budget": 20}).raise_for_status()
    row.get_by_role("button", name="Go back").click()
    expect(row.get_by_text("default", exact=True)).to_be_visible()
    expect(row.get_by_role("textbox")).to_have_value("")
    assert admin_client.get("/admin/settings").json()["cloud_budget"] is None

    page.get_by_label("Search the settings").fill("use_cloud")
    switch = page.get_by_role("switch", name="use_cloud")
    switch.click()
    expect(page.get_by_role("group", name="use_cloud").get_by_text("changed here")).to_be_visible()
    assert admin_client.get("/admin/settings").json()["use_cloud"] is False
    admin_client.patch("/admin/settings", json={"use_cloud": None}).raise_for_status()
    expect(switch).to_be_checked()

    page.get_by_label("Search the settings").fill("spare")
    page.get_by_role("switch", name="use_spare").click()
    spare = page.get_by_role("group", name="use_spare")
    expect(spare.get_by_text("changed, holds after a restart")).to_be_visible()
    admin_client.patch("/admin/settings", json={"use_spare": None}).raise_for_status()
