"""Chat: asked, stopped, asked again, edited and branched, with a script for a model and with the real one."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from mlx_manager.api.who import SESSION_COOKIE
from mlx_manager.backends.scripted import Pause, Step
from mlx_manager.catalog.settings import load_settings
from mlx_manager.ir import (
    ChoiceEnd,
    Finished,
    FinishReason,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
    PromptReady,
    Usage,
)
from tests.e2e.server_process import ServerProcess
from tests.http.scripted_server import Served, Shelf, running, shelved
from tests.ui.browser import Watched
from tests.ui.conftest import ADMIN, EVIL, PASSWORD, OpenPage
from tests.ui.tool_models import CallingModels, calls

FILM = b"\0\0\0\x18ftypmp42 and so on: the worker looks inside"
SHOP = Path(__file__).parents[1] / "tools" / "shop_server.py"

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f645"
    "400000000049454e44ae426082"
)


def answer(text: str, *, thinking: str = "", pause_s: float = 0.0) -> tuple[Step, ...]:
    """A script that thinks, says half of `text`, waits, and says the rest."""
    half = len(text) // 2
    thoughts = (PartStart(0, PartKind.REASONING), PartDelta(0, thinking), Pause(0.05), PartEnd(0)) if thinking else ()
    return (
        PromptReady(7),
        *thoughts,
        PartStart(0),
        PartDelta(0, text[:half]),
        Pause(pause_s),
        PartDelta(0, text[half:]),
        PartEnd(0),
        ChoiceEnd(0, FinishReason.STOP),
        Finished(Usage(num_prompt_tokens=7, num_cached_tokens=3, num_completion_tokens=12)),
    )


KIND = "**Four**, of course.\n\n```python\nprint(2 + 2)\n```\n\n|a|b|\n|-|-|\n|1|2|"
SCRIPTS = {
    "kind": answer(KIND, thinking="Two and two …"),
    "evil": answer(f"{EVIL}\n\n|{EVIL}|\n|-|\n|x|\n\n```{EVIL}\n{EVIL}\n```", thinking=EVIL),
    "adder": calls(("calculate", '{"expression": "2 + 2"}'), ("find_price", '{"item": "tea"}')),
    "slow": answer("It goes on and on.", pause_s=30),
}


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose models play back scripts."""
    settings = load_settings({}, {"home": str(tmp_path_factory.mktemp("scripted")), "port": 0})
    shelf = Shelf([shelved(name) for name in SCRIPTS], default_model="kind")
    with running(settings, CallingModels(SCRIPTS), shelf) as served:
        yield served


@pytest.fixture(scope="module")
def admin(scripted: Served) -> Iterator[httpx.Client]:
    """Its first account, logged in once: that takes a second."""
    with scripted.http() as http:
        http.post("/auth/register", json={"name": ADMIN, "password": PASSWORD}).raise_for_status()
        yield http


@pytest.fixture
def chat(browser: Browser, scripted: Served, admin: httpx.Client) -> Iterator[Watched]:
    """A new conversation on that server."""
    url = f"http://127.0.0.1:{scripted.port}"
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(15_000)
    context.add_cookies([{"name": SESSION_COOKIE, "value": str(admin.cookies[SESSION_COOKIE]), "url": url}])
    watched = Watched(context.new_page(), url)
    watched.watch()
    watched.visit("/chat").get_by_role("button", name="New conversation").first.click()
    yield watched
    context.close()
    assert watched.complaints == []


LOOKS: tuple[tuple[int, Literal["dark", "light"]], ...] = ((390, "dark"), (1440, "light"))


def check_looks(chat: Watched, name: str) -> None:
    """The page as it is, on a phone and on a desk, dark and light: it fits, axe finds nothing, a picture is kept."""
    for width, theme in LOOKS:
        chat.page.set_viewport_size({"width": width, "height": 844})
        chat.page.emulate_media(color_scheme=theme)
        # the navigation comes or goes
        chat.page.wait_for_timeout(250)
        assert chat.violations() == []
        assert chat.overflow_px() <= 0
        chat.shoot(f"chat-{name}-{width}-{theme}")


def ask(page: Page, words: str, *, model: str = "kind") -> None:
    """Choose the model and send a message."""
    chooser = page.get_by_role("combobox", name="Model")
    chooser.fill(model)
    page.get_by_role("option", name=model).first.click()
    page.get_by_role("textbox", name="Message").fill(words)
    page.get_by_role("textbox", name="Message").press("Enter")


def test_a_reply_is_drawn_with_its_thinking_and_figures(chat: Watched) -> None:
    page = chat.page
    ask(page, "What is 2 + 2?")
    reply = page.get_by_role("article", name="Reply of kind")
    expect(reply.get_by_text("7 prompt, 3 cached · 12 written")).to_be_visible()
    expect(reply.locator("strong", has_text="Four")).to_be_visible()
    expect(reply.locator("td", has_text="2")).to_be_visible()
    expect(reply.get_by_role("button", name="Copy the code")).to_be_visible()
    reply.get_by_text("Thought for").click()
    expect(reply.get_by_text("Two and two …")).to_be_visible()
    chat.shoot("chat-reply-1440-light")
    assert chat.violations() == []


def test_a_hostile_reply_does_nothing(chat: Watched) -> None:
    page = chat.page
    ask(page, EVIL, model="evil")
    reply = page.get_by_role("article", name="Reply of evil")
    expect(reply.get_by_text("written")).to_be_visible()
    reply.get_by_text("Thought for").click()
    turns = page.get_by_role("log")
    assert turns.locator("img, script, iframe, a[href^='javascript']").count() == 0
    for link in turns.locator(".prose a").all():
        assert (link.get_attribute("href") or "").startswith("http")
    assert page.evaluate("() => window.evil") is None


def test_a_reply_is_stopped_and_asked_for_again(chat: Watched, scripted: Served) -> None:
    page = chat.page
    ask(page, "Go on", model="slow")
    expect(page.get_by_text("It goes o")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("stopped")).to_be_visible()
    scripted.backend.ended.get(timeout=5)
    ask_again = page.get_by_role("combobox", name="Model")
    ask_again.fill("kind")
    page.get_by_role("option", name="kind").click()
    page.get_by_role("button", name="Ask again").click()
    expect(page.get_by_role("article", name="Reply of kind").get_by_text("written")).to_be_visible()
    expect(page.get_by_text("2/2")).to_be_visible()
    page.get_by_role("button", name="Branch before").click()
    expect(page.get_by_text("It goes o")).to_be_visible()


def test_an_edited_message_begins_a_branch_and_all_of_it_is_kept(chat: Watched, scripted: Served) -> None:
    page = chat.page
    ask(page, "First")
    expect(page.get_by_text("written")).to_be_visible()
    page.get_by_role("button", name="Edit, as a new branch").click()
    page.get_by_role("dialog").get_by_label("Message").fill("Second")
    assert chat.judge_dialog("edit") == []
    page.get_by_role("dialog").get_by_role("button", name="Send").click()
    expect(page.get_by_text("2/2")).to_be_visible()
    expect(page.get_by_role("article", name="You")).to_contain_text("Second")
    expect(page.get_by_text("written")).to_be_visible()
    prompt = scripted.last_request().prompt
    assert [message.text for message in prompt.messages] == ["Second"]  # type: ignore[union-attr]
    page.reload()
    expect(page.get_by_role("article", name="You")).to_contain_text("Second")
    told = json.loads(export(page, "As JSON, with all branches"))
    assert [message["role"] for message in told["messages"]] == ["user", "assistant"]
    assert [turn["text"] for turn in told["turns"] if turn["role"] == "user"] == ["First", "Second"]
    assert export(page, "As Markdown") == f"# First\n\n## You\n\nSecond\n\n## kind\n\n{KIND}\n"


def export(page: Page, form: str) -> str:
    """The text of the file."""
    page.get_by_role("button", name="Export the conversation").click()
    with page.expect_download() as saved:
        page.get_by_role("menuitem", name=form).click()
    return saved.value.path().read_text(encoding="utf-8")


def test_parameters_and_files_reach_the_model(chat: Watched, scripted: Served) -> None:
    page = chat.page
    page.get_by_role("button", name="Parameters").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Longest answer, tokens").fill("77")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Attach pictures, videos or text files").click()
    evil_name = "<img src=x onerror=evil=1>.txt"
    chooser.value.set_files({"name": evil_name, "mimeType": "text/plain", "buffer": b"the file's words"})
    expect(page.get_by_role("button", name=f"Remove {evil_name}")).to_be_visible()
    ask(page, "What does it say?")
    expect(page.get_by_text("written")).to_be_visible()
    asked = scripted.last_request()
    messages = asked.prompt.messages  # type: ignore[union-attr]
    assert messages[0].text == "Be brief."
    assert "the file's words" in messages[1].text
    assert asked.sampling.temperature == 0.5
    assert asked.sampling.max_tokens == 77
    assert page.evaluate("() => window.evil") is None


def test_a_picture_is_not_sent_to_a_model_that_does_not_see(chat: Watched, scripted: Served) -> None:
    page = chat.page
    num_before = len(scripted.backend.requests)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Attach pictures, videos or text files").click()
    chooser.value.set_files({"name": "dot.png", "mimeType": "image/png", "buffer": PICTURE})
    expect(page.get_by_role("button", name="Remove dot.png")).to_be_visible()
    ask(page, "What is it?")
    expect(page.get_by_text("This model does not see")).to_be_visible()
    assert len(scripted.backend.requests) == num_before


def test_files_come_by_paste_and_by_drop(chat: Watched, scripted: Served, admin: httpx.Client) -> None:
    page = chat.page
    # nobody knows what a provider's model takes: pictures go along
    cloud = {"name": "far", "kind": "openai-compatible", "base_url": scripted.base_url, "allows_private_address": True}
    admin.post("/admin/providers", json=cloud).raise_for_status()
    target = {"provider": "far", "model": "kind"}
    admin.post("/admin/routes", json={"name": "eyes", "pattern": "eyes", "targets": [target]}).raise_for_status()
    page.reload()
    page.wait_for_selector("[data-takes-files]")
    make = """([name, kind, bytes]) => {
        const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(bytes)], name, { type: kind }));
        return files;
    }"""
    pasted = page.evaluate_handle(make, ["dot.png", "image/png", list(PICTURE)])
    page.evaluate(
        """(files) => document.querySelector(".composer textarea").dispatchEvent(
            new ClipboardEvent("paste", { clipboardData: files, bubbles: true, cancelable: true }))""",
        pasted,
    )
    expect(page.get_by_role("button", name="Remove dot.png")).to_be_visible()
    dropped = page.evaluate_handle(make, ["notes.md", "text/markdown", list(b"# Notes")])
    page.dispatch_event(".turns", "drop", {"dataTransfer": dropped})
    expect(page.get_by_role("button", name="Remove notes.md")).to_be_visible()
    dropped = page.evaluate_handle(make, ["clip.mp4", "video/mp4", list(FILM)])
    page.dispatch_event(".composer", "drop", {"dataTransfer": dropped})
    expect(page.get_by_role("button", name="Remove clip.mp4")).to_be_visible()
    for name, kind, said in (("a.mp3", "audio/mpeg", "sound cannot go along"), ("b.bin", "", "neither a picture")):
        refused = page.evaluate_handle(make, [name, kind, [0, 255]])
        page.dispatch_event(".composer", "drop", {"dataTransfer": refused})
        expect(page.get_by_text(said)).to_be_visible()
    ask(page, "What are they?", model="eyes")
    expect(page.get_by_text("by far/kind")).to_be_visible()
    message = scripted.last_request().prompt.messages[-1]  # type: ignore[union-attr]
    assert [each.data for each in message.visuals] == [PICTURE, FILM]
    assert "# Notes" in message.text
    source = page.get_by_role("img", name="Attached: dot.png").get_attribute("src") or ""
    admin.delete("/admin/routes/eyes").raise_for_status()
    assert admin.get(source).content == PICTURE
    assert admin.get(source[:-1] + "-").status_code == 404
    with scripted.http() as nobody:
        assert nobody.get(source).status_code == 403


def test_nobody_sees_the_conversations_of_others(
    chat: Watched, scripted: Served, admin: httpx.Client, browser: Browser
) -> None:
    ask(chat.page, "A secret of mine")
    expect(chat.page.get_by_text("written")).to_be_visible()
    with scripted.http() as http:
        admin.post("/admin/users", json={"name": "eve", "password": "eve has a long one"}).raise_for_status()
        http.post("/auth/login", json={"name": "eve", "password": "eve has a long one"}).raise_for_status()
        cookie = str(http.cookies[SESSION_COOKIE])
    context = browser.new_context()
    context.add_cookies([{"name": SESSION_COOKIE, "value": cookie, "url": chat.url}])
    theirs = Watched(context.new_page(), chat.url)
    page = theirs.visit("/chat")
    expect(page.get_by_text("Ask something")).to_be_visible()
    assert "A secret of mine" not in page.content()
    context.close()


def test_tools_are_called_when_they_are_allowed(chat: Watched, admin: httpx.Client) -> None:
    page = chat.page
    shop = {"name": "shop", "kind": "stdio", "command": [sys.executable, str(SHOP)]}
    admin.post("/admin/tool-servers", json=shop).raise_for_status()
    page.get_by_role("button", name="Parameters").click()
    page.get_by_role("checkbox", name="calculator").click()
    page.get_by_role("checkbox", name="shop").click()
    page.get_by_role("button", name="Parameters").click()
    ask(page, "What is it together?", model="adder")
    questions = page.get_by_role("group", name="Allow this call?")
    # the SDK is loaded and the shop started
    expect(questions).to_have_count(2, timeout=40_000)
    check_looks(chat, "tool-question")
    questions.first.get_by_role("button", name="Always in this conversation").click()
    expect(questions).to_have_count(1)
    questions.get_by_role("button", name="Allow once").click()
    expect(page.get_by_text("They said: 4; tea costs 4 euros")).to_be_in_viewport()
    # both were asked about, and so are unfolded
    expect(page.locator(".tool-text", has_text="tea costs 4 euros")).to_be_visible()
    check_looks(chat, "tool-results")
    page.get_by_role("button", name="Ask again").click()
    questions.get_by_role("button", name="Refuse").click()
    expect(page.get_by_text("They said: 4; The user refused this call.")).to_be_visible()
    page.reload()
    expect(page.get_by_text("They said: 4; The user refused this call.")).to_be_visible()
    page.get_by_role("button", name="Parameters").click()
    expect(page.get_by_text("Without asking: calculator/calculate")).to_be_visible()


def test_routes_and_what_providers_list_can_be_asked(chat: Watched, scripted: Served, admin: httpx.Client) -> None:
    page = chat.page
    # it stands in for a provider of its own
    provider = {"name": "cloud", "kind": "openai-compatible", "base_url": scripted.base_url}
    admin.post("/admin/providers", json=provider | {"allows_private_address": True}).raise_for_status()
    admin.post("/admin/providers/cloud/models").raise_for_status()
    cloud = {"provider": "cloud", "model": "*"}
    routes = (
        {"name": "all", "pattern": "cloud/", "pattern_kind": "prefix", "targets": [cloud]},
        {"name": "best", "pattern": "best", "targets": [{"model": "gone"}, cloud | {"model": "kind"}]},
        {"name": "theirs", "pattern": "theirs", "conditions": {"users": ["eve"]}, "targets": [{"model": "kind"}]},
    )
    for route in routes:
        admin.post("/admin/routes", json=route).raise_for_status()
    page.reload()
    ask(page, "Hello", model="cloud/kind")
    expect(page.get_by_text("by cloud/kind")).to_be_visible()
    ask(page, "Hello", model="best")
    expect(page.get_by_text("by cloud/kind instead of another (model_not_found)")).to_be_visible()
    page.reload()
    # who was asked last is asked again
    expect(page.get_by_role("combobox", name="Model")).to_have_value(re.compile("^best"))
    page.get_by_role("combobox", name="Model").fill("theirs")
    expect(page.get_by_role("option")).to_have_count(0)
    for route in routes:
        admin.delete(f"/admin/routes/{route['name']}").raise_for_status()


def test_conversations_are_searched_named_and_deleted(chat: Watched) -> None:
    page = chat.page
    ask(page, "Where do otters sleep?")
    expect(page.get_by_text("written")).to_be_visible()
    page.get_by_role("button", name="Name the conversation").click()
    page.get_by_role("dialog").get_by_label("Name").fill(f"Rivers {EVIL}")
    assert chat.judge_dialog("name") == []
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    page.get_by_role("button", name="New conversation").last.click()
    expect(page.get_by_text("Ask something")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="Conversations").click()
    entries = page.get_by_role("navigation", name="Conversations").get_by_role("listitem")
    page.get_by_label("Search conversations").fill("OTTERS sleep")
    expect(entries).to_have_count(1)
    expect(entries.first).to_contain_text("Where do otters sleep?")
    assert chat.violations() == []
    assert chat.overflow_px() <= 0
    chat.shoot("chat-search-390-light")
    entries.first.get_by_role("button").click()
    expect(page.get_by_role("article", name="You")).to_contain_text("otters")
    check_looks(chat, "found")
    expect(entries).to_have_count(1)
    page.get_by_role("button", name="Delete the conversation").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    expect(page.get_by_text("Ask something")).to_be_visible()
    expect(page.get_by_text("Nothing has these words.")).to_be_visible()
    assert page.evaluate("() => window.evil") is None


def test_the_starter_model_answers(open_page: OpenPage, console_server: ServerProcess) -> None:
    page = open_page(width=390, theme="dark").visit("/chat")
    message = page.get_by_role("textbox", name="Message")
    message.fill("What is the capital of France?")
    # what is not sent yet outlives a reload, and a restart of the server is one
    page.reload()
    expect(message).to_have_value("What is the capital of France?")
    page.get_by_role("button", name="Parameters").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Longest answer, tokens").fill("8")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Send").click()
    reply = page.get_by_role("article", name=f"Reply of {console_server.model}")
    expect(reply).to_contain_text("The capital of France is Paris", timeout=40_000)
    expect(reply.get_by_text("8 written")).to_be_visible(timeout=20_000)
