"""Home: what runs now, the last hour, and how to call the server."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.e2e.server_process import ServerProcess
from tests.ui.conftest import OpenPage


def test_requests_are_counted_while_the_page_is_open(open_page: OpenPage, console_server: ServerProcess) -> None:
    page = open_page().visit("/")
    expect(page.get_by_text("ready")).to_be_visible()
    counted = page.get_by_text(re.compile(r"\d+ requests, \d+ failed"))
    before = int(counted.inner_text().split()[0])
    console_server.sdk.chat.completions.create(
        model=console_server.model, messages=[{"role": "user", "content": "Hi"}], max_tokens=4, temperature=0
    )
    expect(page.get_by_text(f"{before + 1} requests,")).to_be_visible(timeout=12_000)
    assert page.get_by_role("img", name=re.compile("Requests per minute")).is_visible()
    assert page.get_by_role("img", name=re.compile("Memory: .* planned")).is_visible()


def test_snippets_name_this_server_and_run(open_page: OpenPage, console_server: ServerProcess) -> None:
    page = open_page().visit("/")
    page.get_by_role("tab", name="Python").click()
    shown = page.locator(".q-tab-panel pre")
    expect(shown).to_contain_text(f'base_url="{console_server.url}/v1"')
    snippet = shown.inner_text()
    compile(snippet, "snippet", "exec")
    assert console_server.model in snippet
    page.get_by_role("tab", name="Claude Code").click()
    expect(shown).to_contain_text(f"ANTHROPIC_BASE_URL={console_server.url}")
    page.get_by_role("tab", name="Codex").click()
    expect(shown).to_contain_text(f'base_url = "{console_server.url}/v1"')
