"""The first visit of a new server: its admin's account, made in the browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from mlx_manager.catalog.settings import load_settings
from tests.http.scripted_server import Recorder, Shelf, running
from tests.ui.browser import LOOKS, WINDOWS, Watched
from tests.ui.conftest import ADMIN, PASSWORD


def test_the_first_account_is_made_and_the_page_says_what_comes_next(browser: Browser, tmp_path: Path) -> None:
    settings = load_settings({}, {"home": str(tmp_path), "port": 0})
    with running(settings, Recorder({}), Shelf([])) as served:
        context = browser.new_context(viewport=WINDOWS["phone"], reduced_motion="reduce")
        context.set_default_timeout(15_000)
        watched = Watched(context.new_page(), f"http://127.0.0.1:{served.port}")
        watched.watch()
        page = watched.page
        page.goto(watched.url)
        expect(page.get_by_role("heading", name="Welcome")).to_be_visible()
        expect(page.get_by_text("The first one is the admin's.")).to_be_visible()
        assert watched.violations() == []
        assert watched.overflow_px() <= 0
        page.get_by_label("Name").fill(ADMIN)
        page.get_by_label("Password").fill("short")
        page.get_by_role("button", name="Create the account").click()
        expect(page.get_by_role("alert")).to_contain_text("8")
        watched.complaints.clear()
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Create the account").click()
        expect(page.get_by_role("heading", name="Home", level=1)).to_be_visible(timeout=20_000)
        expect(page.get_by_text("There is no model on this machine yet")).to_be_visible()
        expect(page.get_by_role("link", name="Find a model")).to_have_attribute("href", "/models")
        for window, theme in LOOKS:
            watched.look(window, theme)
            watched.shoot(f"first-run-{WINDOWS[window]['width']}-{theme}")
        assert watched.violations() == []
        context.close()
        assert watched.complaints == []
