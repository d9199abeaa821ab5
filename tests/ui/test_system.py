"""System: the server, its alerts, its log, what doctor finds, and who changed what."""

from __future__ import annotations

import httpx
from playwright.sync_api import expect

from tests.ui.conftest import ADMIN, OpenPage


def test_changes_are_listed_with_who_made_them(open_page: OpenPage, admin_client: httpx.Client) -> None:
    page = open_page().visit("/system")
    expect(page.get_by_role("heading", name="Alerts")).to_be_visible()
    body = {"name": "mallory", "password": "long enough as well"}
    admin_client.post("/admin/users", json=body).raise_for_status()
    try:
        row = page.get_by_role("row").filter(has_text="user.create").filter(has_text="mallory")
        expect(row).to_be_visible(timeout=10_000)
        expect(row.get_by_text(f"user:{ADMIN}")).to_be_visible()
        assert "long enough as well" not in page.content()
    finally:
        admin_client.delete("/admin/users/mallory").raise_for_status()


def test_doctor_and_the_log_are_looked_at(open_page: OpenPage) -> None:
    watched = open_page(width=390)
    page = watched.visit("/system")
    page.get_by_role("button", name="Look").click()
    expect(page.get_by_role("log", name="Log").get_by_text("info", exact=True).first).to_be_visible()
    page.get_by_label("Search the log").fill("no line says this")
    expect(page.get_by_text("No line matches.")).to_be_visible()
    found = page.get_by_role("status", name="What doctor found")
    expect(found.get_by_text("can be written to")).to_be_visible(timeout=60_000)
    expect(found.get_by_text("mlx-manager ")).to_be_visible()
    assert watched.violations() == []
    assert watched.overflow_px() <= 0
