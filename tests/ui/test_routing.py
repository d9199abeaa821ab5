"""Providers and routes: added, tried, ordered and deleted, as a person does it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.clouds.upstream_server import KEY, Upstream, upstream_server
from tests.ui.conftest import EVIL, OpenPage


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """A provider on loopback."""
    with upstream_server() as running_upstream:
        yield running_upstream


@pytest.fixture(autouse=True)
def nothing_left(admin_client: httpx.Client) -> Iterator[None]:
    """Providers and routes go with their test."""
    yield
    for what in ("routes", "providers"):
        for row in admin_client.get(f"/admin/{what}").json()[what]:
            admin_client.delete(f"/admin/{what}/{row['name']}").raise_for_status()


def test_a_provider_is_tried_added_and_kept_while_a_route_leads_to_it(
    open_page: OpenPage, upstream: Upstream, admin_client: httpx.Client
) -> None:
    watched = open_page(width=390)
    page = watched.visit("/providers")
    expect(page.get_by_text("No provider yet")).to_be_visible()
    page.get_by_role("button", name="Add a provider").click()
    dialog = page.get_by_role("dialog", name="Add a provider")
    dialog.get_by_label("Name").fill("up")
    dialog.get_by_label("Address").fill(upstream.base_url)
    dialog.get_by_label("API key").fill("sk-wrong")
    dialog.get_by_label("Extra headers").fill("no colon")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_text("'no colon' has no colon")).to_be_visible()
    assert watched.judge_dialog("provider") == []
    dialog.get_by_label("Extra headers").fill("")
    dialog.get_by_role("button", name="Test the connection").click()
    expect(dialog.get_by_text("private network").last).to_be_visible()
    dialog.get_by_text("It may be on this machine or in a private network").click()
    dialog.get_by_role("button", name="Test the connection").click()
    # by its words: what was wrong with a field fades out beside it
    expect(dialog.get_by_text("up refuses the key that is kept of it (401)")).to_be_visible()
    dialog.get_by_label("API key").fill(KEY)
    dialog.get_by_role("button", name="Test the connection").click()
    expect(dialog.get_by_text("with 2 models")).to_be_visible()
    dialog.get_by_role("button", name="Add", exact=True).click()

    row = page.get_by_role("article", name="up")
    row.get_by_role("button", name="Test").click()
    expect(row.get_by_role("button", name="2 models")).to_be_visible()
    row.get_by_role("button", name="Edit").click()
    edit = page.get_by_role("dialog", name="Edit up")
    assert edit.get_by_label("API key").input_value() == ""
    edit.get_by_label("Prices").fill("ok = 1, 2.5")
    edit.get_by_role("button", name="Save").click()
    expect(edit).to_have_count(0)
    kept = admin_client.get("/admin/providers/up").json()
    assert kept["prices"]["ok"]["output_usd"] == 2.5
    assert kept["has_key"]
    assert KEY not in page.content()

    to_up = {"name": "r", "pattern": "gpt", "targets": [{"provider": "up"}]}
    admin_client.post("/admin/routes", json=to_up).raise_for_status()
    delete(page, "up")
    expect(page.get_by_text("Routes lead to up: r.")).to_be_visible()
    admin_client.delete("/admin/routes/r").raise_for_status()
    delete(page, "up")
    expect(row).to_have_count(0)


def test_routes_are_added_tried_and_moved(open_page: OpenPage, upstream: Upstream, admin_client: httpx.Client) -> None:
    body = {"name": "up", "kind": "openai", "base_url": upstream.base_url, "allows_private_address": True}
    admin_client.post("/admin/providers", json=body).raise_for_status()
    hostile = {"name": "evil", "pattern": EVIL, "targets": [{"model": EVIL}], "conditions": {"users": [EVIL]}}
    admin_client.post("/admin/routes", json=hostile).raise_for_status()
    watched = open_page()
    page = watched.visit("/routes")
    page.get_by_role("button", name="Add a route").click()
    dialog = page.get_by_role("dialog", name="Add a route")
    dialog.get_by_label("Name", exact=True).fill("big")
    dialog.get_by_label("Matches").click()
    page.get_by_role("option", name="a regular expression (RE2)").click()
    dialog.get_by_label("Model's name").fill("gpt-(")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_text("The regular expression cannot be used")).to_be_visible()
    assert watched.judge_dialog("route") == []
    dialog.get_by_label("Model's name").fill("gpt-.*")
    dialog.get_by_label("Who").click()
    page.get_by_role("option", name="up").click()
    dialog.get_by_label("Longer than, tokens").fill("100")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog).to_have_count(0)

    plan = page.get_by_role("status", name="What would become of it")
    page.get_by_label("Model that it names").fill("gpt-5")
    expect(plan.get_by_text("the prompt is estimated at 0 tokens, not more than 100")).to_be_visible()
    expect(plan.get_by_text("no such model here")).to_be_visible()
    page.get_by_label("Tokens of its prompt").fill("500")
    expect(plan.get_by_text("up/gpt-5", exact=True)).to_be_visible()
    page.get_by_role("switch", name="big is on").click()
    expect(plan.get_by_text("route big: passed over, it is off")).to_be_visible()
    page.get_by_label("Model that it names").fill(EVIL)
    expect(plan.get_by_text("it is not for a user without a name")).to_be_visible()

    page.get_by_role("button", name="Move big").focus()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_text("big is now route 1 of 2.")).to_be_attached()
    assert order(admin_client) == ["big", "evil"]
    expect(page.get_by_role("button", name="Move big")).to_be_focused()
    drag(page, "evil", "big")
    expect(page.get_by_text("evil is now route 1 of 2.")).to_be_attached()
    assert order(admin_client) == ["evil", "big"]
    assert [row.get_attribute("aria-label") for row in page.get_by_role("article").all()] == ["evil", "big"]
    assert watched.violations() == []
    assert page.evaluate("() => window.evil") is None
    watched.shoot("routes-tried-1440-light")


def delete(page: Page, name: str) -> None:
    page.get_by_role("button", name=f"Delete {name}").click()
    page.get_by_role("dialog", name=f"Delete {name}?").get_by_role("button", name="Delete it").click()


def order(client: httpx.Client) -> list[str]:
    return [route["name"] for route in client.get("/admin/routes").json()["routes"]]


def drag(page: Page, name: str, before: str) -> None:
    """Take a route by its handle and drop it above another."""
    page.get_by_role("button", name=f"Move {name}").hover()
    page.mouse.down()
    box = page.get_by_role("article", name=before).bounding_box()
    assert box is not None
    for height in (30, 5):
        page.mouse.move(box["x"] + 20, box["y"] + height, steps=6)
    page.wait_for_timeout(200)
    page.mouse.up()
