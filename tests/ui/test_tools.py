"""Tools: servers added with the form, tried, switched off and deleted; a real model calls one that ships."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.server_process import ServerProcess
from tests.ui.conftest import OpenPage

SHOP = Path(__file__).parents[1] / "tools" / "shop_server.py"
CALLER = Path(__file__).parents[1] / "data" / "tiny_tool_caller"


def test_a_tool_server_is_added_tried_and_deleted(open_page: OpenPage) -> None:
    watched = open_page(width=390, theme="dark")
    page = watched.visit("/tools")
    page.get_by_role("button", name="Add a tool server").click()
    form = page.get_by_role("dialog", name="Add a tool server")
    form.get_by_label("Name", exact=True).fill("shop")
    form.get_by_label("Command").fill("/no/such/program --at-all")
    form.get_by_role("button", name="Try it").click()
    # the SDK is loaded first
    expect(form.get_by_text("shop cannot be used: [Errno 2] No such file")).to_be_visible(timeout=40_000)
    form.get_by_label("Command").fill(shlex.join([sys.executable, str(SHOP)]))
    form.get_by_label("Environment").fill("SHOP_SECRET=open sesame")
    form.get_by_role("button", name="Try it").click()
    expect(form.get_by_text("Its tools: find_price, wait, leave, environment.")).to_be_visible(timeout=20_000)
    assert watched.judge_dialog("tool-server") == []
    assert watched.overflow_px() <= 0
    form.get_by_role("button", name="Save").click()
    row = page.get_by_role("listitem").filter(has_text="shop_server.py")
    expect(row).to_be_visible()
    page.get_by_role("button", name="Change shop").click()
    changed = page.get_by_role("dialog", name="Change shop")
    expect(changed.get_by_text("Kept: SHOP_SECRET.")).to_be_visible()
    assert "open sesame" not in page.content()
    changed.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Switch off shop").click()
    expect(row.get_by_text("off", exact=True)).to_be_visible()
    page.get_by_role("button", name="Try weather").click()
    expect(page.get_by_role("dialog").get_by_text("get_weather")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Delete shop").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    expect(row).to_have_count(0)


def test_a_real_model_calls_a_tool_that_ships(open_page: OpenPage, console_server: ServerProcess) -> None:
    folder = console_server.output.parent / "models" / "tiny-tool-caller"
    shutil.copytree(CALLER, folder)
    try:
        page = open_page().visit("/chat")
        page.get_by_role("button", name="New conversation").first.click()
        page.get_by_role("button", name="Parameters").click()
        page.get_by_label("Temperature").fill("0")
        page.get_by_role("checkbox", name="weather").click()
        chooser = page.get_by_role("combobox", name="Model")
        chooser.fill("tiny-tool")
        page.get_by_role("option", name="tiny-tool-caller").click()
        page.get_by_role("textbox", name="Message").fill("What is the weather in Paris?")
        page.get_by_role("button", name="Send").click()
        page.get_by_role("button", name="Allow once").click(timeout=60_000)
        expect(page.locator(".tool-text", has_text="Paris in ")).to_be_visible()
        expect(page.get_by_text("by local/tiny-tool-caller")).to_be_visible(timeout=30_000)
    finally:
        shutil.rmtree(folder)
