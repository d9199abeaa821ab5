"""Who is no admin sees neither the pages of admins nor what is on them."""

from __future__ import annotations

import httpx
from playwright.sync_api import expect

from mlx_manager.api.who import SESSION_COOKIE
from mlx_manager.ui.paths import PLACES
from tests.e2e.server_process import ServerProcess
from tests.ui.conftest import OpenPage


def test_pages_of_admins_are_for_admins(
    open_page: OpenPage, console_server: ServerProcess, admin_client: httpx.Client
) -> None:
    body = {"name": "guest", "password": "guest has a long one"}
    admin_client.post("/admin/users", json=body).raise_for_status()
    try:
        with console_server.http() as http:
            http.post("/auth/login", json=body).raise_for_status()
            for place in PLACES:
                answer = http.get(place.path)
                assert answer.status_code == (403 if place.is_for_admins else 200), place.path
                assert answer.text == "This is for admins." or not place.is_for_admins
            watched = open_page(is_logged_in=False)
            cookie = {"name": SESSION_COOKIE, "value": http.cookies[SESSION_COOKIE], "url": console_server.url}
            watched.page.context.add_cookies([cookie])  # type: ignore[list-item]
        page = watched.visit("/")
        for place in PLACES:
            link = page.get_by_role("navigation", name="Pages").get_by_role("link", name=place.title)
            expect(link).to_have_count(0 if place.is_for_admins else 1)
    finally:
        admin_client.delete("/admin/users/guest").raise_for_status()
