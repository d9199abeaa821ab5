"""Accounts: asked for, approved, used, and ended, as people do it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

from playwright.sync_api import Route, expect

from mlx_manager.api.who import SESSION_COOKIE
from tests.e2e.server_process import COMMAND, ServerProcess
from tests.ui.browser import Watched
from tests.ui.conftest import ADMIN, PASSWORD, OpenPage


def test_a_login_leads_back_to_where_somebody_wanted_to_go(open_page: OpenPage) -> None:
    watched = open_page(is_logged_in=False, width=390)
    page = watched.page
    page.goto(watched.url + "/pool")
    page.get_by_label("Name").fill(ADMIN)
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    watched.complaints.clear()
    assert watched.violations() == []
    watched.shoot("login-390-light")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/pool")
    expect(page.get_by_role("heading", name="Pool", level=1)).to_be_visible()
    end_session_elsewhere(open_page)
    page.wait_for_url("**/login?next=%2Fpool", timeout=20_000)


def end_session_elsewhere(open_page: OpenPage) -> None:
    """Under Profile, of the last browser that logged in."""
    watched = open_page(width=390)
    page = watched.visit("/profile")
    rows = page.get_by_role("article").filter(has_text="from 127.0.0.1")
    expect(rows.filter(has_text="this one")).to_have_count(1)
    rows.filter(has_text="Chrome").first.get_by_role("button", name="End it").click()
    assert watched.judge_dialog("end-session") == []
    page.get_by_role("dialog").get_by_role("button", name="End it").click()


def test_the_answer_to_a_log_out_is_not_cut_off_by_the_page_being_sent_away(
    open_page: OpenPage, console_server: ServerProcess
) -> None:
    with console_server.http() as http:
        http.post("/auth/login", json={"name": ADMIN, "password": PASSWORD}).raise_for_status()
        cookie = http.cookies[SESSION_COOKIE]
    watched = open_page(is_logged_in=False)
    page = watched.page
    page.context.add_cookies([{"name": SESSION_COOKIE, "value": cookie, "url": watched.url}])
    watched.visit("/profile")

    def answer_late(route: Route) -> None:
        answer = route.fetch()
        # longer than a page needs to see that its session is over: it looks each four seconds
        page.wait_for_timeout(4_500)
        route.fulfill(response=answer)

    page.route("**/auth/logout", answer_late)
    page.get_by_role("button", name=f"Log out {ADMIN}").click()
    page.wait_for_url("**/login")
    assert SESSION_COOKIE not in {cookie["name"] for cookie in page.context.cookies()}


def test_who_asks_for_an_account_waits_until_an_admin_approves(open_page: OpenPage) -> None:
    theirs = open_page(is_logged_in=False, theme="dark")
    page = theirs.page
    page.goto(theirs.url + "/register")
    page.get_by_label("Name").fill("eve")
    page.get_by_label("Password").fill("eve has a long one")
    page.get_by_role("button", name="Register").click()
    expect(page.get_by_role("alert")).to_contain_text("once an admin has approved it")
    assert theirs.violations() == []

    watched = open_page(width=390)
    admin = watched.visit("/users")
    expect(admin.get_by_text("1 waiting")).to_be_attached()
    for name in ("Add a user", "Set a password"):
        admin.get_by_role("button", name=name).first.click()
        assert watched.judge_dialog(name.lower().replace(" ", "-")) == []
        admin.keyboard.press("Escape")
        expect(admin.get_by_role("dialog")).to_have_count(0)
    row = admin.get_by_role("article", name="eve")
    row.get_by_role("button", name="Approve").click()
    expect(row.get_by_text("active", exact=True)).to_be_visible()
    row.get_by_role("button", name="Limits of eve").click()
    limits = admin.get_by_role("dialog", name="Limits of eve")
    limits.get_by_label("Tokens a day").fill("many")
    limits.get_by_role("button", name="Keep").click()
    expect(limits.get_by_text("'many' is no number from 0 on.")).to_be_visible()
    limits.get_by_label("Tokens a day").fill("5000")
    limits.get_by_label("Models").fill("m, org/n")
    assert watched.judge_dialog("limits") == []
    limits.get_by_role("button", name="Keep").click()
    expect(row.get_by_text("limits: models m, org/n, 5000 tokens a day")).to_be_visible()

    page.goto(theirs.url + "/login")
    page.get_by_label("Name").fill("eve")
    page.get_by_label("Password").fill("eve has a long one")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Home", level=1)).to_be_visible()
    expect(page.get_by_role("link", name="Users")).to_have_count(0)

    row.get_by_role("button", name="Delete eve").click()
    admin.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    expect(row).to_have_count(0)
    page.wait_for_url("**/login?next=%2F", timeout=20_000)


def test_an_api_key_is_shown_once_and_works(open_page: OpenPage, console_server: ServerProcess) -> None:
    watched = open_page(width=390)
    page = watched.page
    # as over http from another machine
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined });")
    watched.visit("/profile")
    page.get_by_role("button", name="New key").click()
    dialog = page.get_by_role("dialog", name="A new API key")
    dialog.get_by_label("Name").fill("notebook")
    dialog.get_by_role("button", name="Make it").click()
    secret = dialog.locator("pre").inner_text()
    with console_server.http() as http:
        assert http.get("/v1/models", headers={"authorization": f"Bearer {secret}"}).status_code == 200
    dialog.get_by_role("button", name="Copy the key").click()
    expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    assert watched.judge_dialog("new-key") == []
    dialog.get_by_role("button", name="Close").click()
    # while it closes it holds the focus
    expect(dialog).to_have_count(0)
    page.get_by_label("Password now").focus()
    page.keyboard.press("ControlOrMeta+V")
    assert page.get_by_label("Password now").input_value() == secret
    check_snippets(watched, secret)
    watched.visit("/profile")
    row = page.get_by_role("article", name="notebook")
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    reopen(console_server)


def reopen(server: ServerProcess) -> None:
    """Let the other tests ask without a key, as before the first."""
    subprocess.run([COMMAND, "key", "reopen", "--home", server.output.parent], check=True, timeout=60)
    deadline_s = time.monotonic() + 20
    with server.http() as http:
        while not http.get("/auth/state").json()["is_open"]:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)


def test_a_wrong_password_is_not_changed(open_page: OpenPage) -> None:
    watched = open_page()
    page = watched.visit("/profile")
    page.get_by_label("Password now").fill("wrong")
    page.get_by_label("New password").fill("another long one")
    page.get_by_role("button", name="Change it").click()
    expect(page.get_by_text("The name or the password is wrong.")).to_be_visible()
    watched.complaints.clear()


def check_snippets(watched: Watched, secret: str) -> None:
    """Now that requests need a key, the snippets on Home send one."""
    page = watched.visit("/")
    expect(page.get_by_role("link", name="profile", exact=True)).to_have_attribute("href", "/profile")
    shown = page.locator(".q-tab-panel pre")
    curl = shown.inner_text()
    for client, line in (
        ("Python", 'api_key=os.environ["MLX_MANAGER_API_KEY"]'),
        ("Claude Code", "ANTHROPIC_AUTH_TOKEN=$MLX_MANAGER_API_KEY"),
        ("Codex", 'env_key = "MLX_MANAGER_API_KEY"'),
    ):
        page.get_by_role("tab", name=client).click()
        expect(shown).to_contain_text(line)
    program = shutil.which("curl")
    if program is not None:
        variables = {**os.environ, "MLX_MANAGER_API_KEY": secret}
        done = subprocess.run(
            ["bash", "-c", curl], env=variables, capture_output=True, text=True, timeout=60, check=True
        )
        assert "Paris" in done.stdout
