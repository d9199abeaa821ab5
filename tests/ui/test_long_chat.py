"""A conversation of 200 turns stays fluid: what is typed and clicked shows within 200 ms, measured by the browser."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from mlx_manager.api.who import SESSION_COOKIE
from mlx_manager.backends.scripted import Pause
from mlx_manager.catalog.settings import load_settings
from mlx_manager.ir import ChoiceEnd, FinishReason, PartDelta, PartEnd, PartStart, PromptReady
from mlx_manager.storage.conversations import ConversationStore
from mlx_manager.storage.database import Database
from mlx_manager.ui.chat_records import store_conversation
from mlx_manager.ui.conversation import Conversation, TurnState
from tests.http.scripted_server import Recorder, Served, Shelf, running, shelved
from tests.ui.browser import Watched
from tests.ui.conftest import ADMIN, PASSWORD
from tests.ui.tool_models import FINISHED

NUM_TURNS = 200
ANSWER = "## A heading\n\nSome **bold** words, `code`, and a list:\n\n- one\n- two\n\n```python\nprint(2 + 2)\n```\n\n"
TABLE = "|a|b|c|\n|-|-|-|\n" + "|1|2|3|\n" * 5
SCRIPT = (
    PromptReady(7),
    PartStart(0),
    *(step for _ in range(80) for step in (PartDelta(0, "word **bold** "), Pause(0.01))),
    PartEnd(0),
    ChoiceEnd(0, FinishReason.STOP),
    FINISHED,
)
WATCH = """() => {
    window.durations = {};
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) {
            if (!entry.interactionId) continue;
            const known = window.durations[entry.interactionId] || 0;
            window.durations[entry.interactionId] = Math.max(known, entry.duration);
        }
    }).observe({ type: "event", durationThreshold: 16 });
}"""
"""What is seen within a frame is not reported."""


@pytest.fixture(scope="module")
def long_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    """A server whose only account has had a long conversation, and the cookie of its session."""
    home = tmp_path_factory.mktemp("long")
    settings = load_settings({}, {"home": str(home), "port": 0})
    with running(settings, Recorder({"kind": SCRIPT}), Shelf([shelved("kind")], default_model="kind")) as served:
        with served.http() as http:
            http.post("/auth/register", json={"name": ADMIN, "password": PASSWORD}).raise_for_status()
            session = str(http.cookies[SESSION_COOKIE])
        # beside a browser there is an event loop in this thread
        writing = threading.Thread(target=lambda: asyncio.run(fill(home)))
        writing.start()
        writing.join()
        yield served, session


async def fill(home: Path) -> None:
    conversation = Conversation(1)
    for number in range(NUM_TURNS // 2):
        reply = conversation.begin_reply(conversation.say(f"Question {number}: what is it?"), "kind")
        reply.rounds[0].text = f"Answer {number}. {ANSWER}{TABLE if number % 4 == 0 else ''}"
        reply.state = TurnState.DONE
    database = await Database.open(None, home)
    await ConversationStore(database).write(1, store_conversation(conversation, conversation.turns()))
    await database.close()


def test_a_conversation_of_200_turns_stays_fluid(browser: Browser, long_server: tuple[Served, str]) -> None:
    served, session = long_server
    url = f"http://127.0.0.1:{served.port}"
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    context.add_cookies([{"name": SESSION_COOKIE, "value": session, "url": url}])
    watched = Watched(context.new_page(), url)
    watched.watch()
    page = watched.visit("/chat")
    turns = page.get_by_role("log").get_by_role("article")
    expect(turns.last).to_contain_text(f"Answer {NUM_TURNS // 2 - 1}.")
    while page.get_by_role("button", name="Show earlier turns").is_visible():
        page.get_by_role("button", name="Show earlier turns").click()
        page.wait_for_timeout(300)
    expect(turns).to_have_count(NUM_TURNS)
    expect(turns.first).to_contain_text("Question 0")
    page.evaluate(WATCH)
    message = page.get_by_role("textbox", name="Message")
    message.click()
    page.keyboard.type("What is left to be said?", delay=20)
    page.get_by_role("button", name="Parameters").click()
    page.get_by_role("button", name="Parameters").click()
    message.click()
    page.keyboard.press("Enter")
    # while the reply is written
    page.keyboard.type("And what comes after that?", delay=30)
    expect(page.get_by_role("article", name="Reply of kind").last.get_by_text("12 written")).to_be_visible()
    expect(turns).to_have_count(NUM_TURNS + 2)
    durations_ms = sorted(page.evaluate("() => Object.values(window.durations)"))
    context.close()
    assert watched.complaints == []
    assert len(durations_ms) > 10, "hardly anything was measured"
    # one in ten may have met another process of a busy machine
    assert durations_ms[len(durations_ms) * 9 // 10] < 200, durations_ms
