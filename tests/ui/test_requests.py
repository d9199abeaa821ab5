"""Requests: seen as they come, found, opened and exported."""

from __future__ import annotations

import csv

from playwright.sync_api import expect

from tests.e2e.server_process import ServerProcess
from tests.ui.conftest import OpenPage


def test_a_request_is_seen_found_and_exported(open_page: OpenPage, console_server: ServerProcess) -> None:
    watched = open_page()
    page = watched.visit("/requests")
    with console_server.http() as http:
        body = {"model": "=no-such-model", "messages": [{"role": "user", "content": "Hi"}]}
        assert http.post("/v1/chat/completions", json=body).status_code == 404
    page.get_by_label("Search the requests").fill("no-such-model")
    row = page.get_by_role("row").filter(has_text="=no-such-model")
    expect(row).to_have_count(1)
    expect(row.get_by_text("404")).to_be_visible()
    assert watched.violations() == []
    with page.expect_download() as saved:
        page.get_by_role("button", name="CSV").click()
    with saved.value.path().open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [one["model"] for one in rows] == ["'=no-such-model"]
    row.get_by_role("button").click()
    expect(page.get_by_role("dialog", name="One request").get_by_text("404 model_not_found")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.get_by_label("Search the requests").fill("nothing like it")
    expect(page.get_by_text("No request of the last hour matches.")).to_be_visible()
