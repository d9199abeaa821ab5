"""Conversations outlive the server: their branches, figures and files, and what a reply had come to."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlx_manager.backends.scripted import Pause, ScriptedBackend, script_of
from mlx_manager.errors import NotFound
from mlx_manager.ir import PartDelta, PartStart, PromptReady
from mlx_manager.storage.database import SQLITE_FILE, Database
from mlx_manager.ui.attachments import attach
from mlx_manager.ui.chat_parameters import ChatParameters
from mlx_manager.ui.chats import Chats
from mlx_manager.ui.conversation import TurnState
from tests.ui import kept_chats
from tests.ui.kept_chats import ADA, EVE, ask, two_accounts, until

SCRIPTS = {
    "kind": script_of(["Fo", "ur"]),
    "slow": (PromptReady(3), PartStart(0), PartDelta(0, "It goes"), Pause(60)),
}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """SQLite with two accounts."""
    async with two_accounts(tmp_path) as opened:
        yield opened


def start(database: Database) -> Chats:
    return kept_chats.start(database, ScriptedBackend(SCRIPTS))


async def test_a_conversation_is_there_again_with_its_branches(database: Database) -> None:
    chats = start(database)
    conversation = chats.begin(ADA)
    conversation.parameters = ChatParameters(system_prompt="Be brief.", temperature=0.5)
    file = attach("notes.txt", "text/markdown", b"two and two")
    asked = conversation.say("What is 2 + 2?\nSay it.", (file,))
    first = ask(chats, conversation, asked)
    await until(lambda: first.state is TurnState.DONE)
    second = ask(chats, conversation, asked)
    await until(lambda: second.state is TurnState.DONE)
    conversation.choose(second, -1)
    chats.keep(conversation, asked)
    edited = ask(chats, conversation, conversation.edit(asked, "And 3 + 3?"))
    await until(lambda: edited.state is TurnState.DONE)
    await chats.close()

    chats = start(database)
    (head,) = await chats.heads(ADA)
    assert head.title == "What is 2 + 2?"
    again = await chats.open(ADA, head.id)
    assert [turn.text for turn in again.path()] == ["And 3 + 3?", "Four"]
    again.choose(again.path()[0], -1)
    shown = again.path()
    assert [turn.text for turn in shown] == ["What is 2 + 2?\nSay it.", "Four"]
    assert shown[1].number == first.number
    assert len(shown[1].siblings) == 2
    assert shown[0].attachments == (file,)
    assert shown[1].figures.num_completion_tokens == 2
    assert again.parameters == conversation.parameters
    # what is said next has a number of its own
    assert again.say("More").number > edited.number
    await chats.close()


@pytest.mark.parametrize("is_orderly", [True, False])
async def test_a_reply_stops_where_the_server_ends(database: Database, is_orderly: bool) -> None:
    chats = start(database)
    conversation = chats.begin(ADA)
    reply = ask(chats, conversation, conversation.say("Go on"), "slow")
    await until(lambda: reply.text == "It goes")
    if is_orderly:
        await chats.close()
    else:
        # what its last look at the clock wrote is there, nothing else
        chats.keep(conversation, reply)
        await until(lambda: chats.num_changes(ADA) >= 2)
    after = start(database)
    again = await after.open(ADA, conversation.id)
    assert [turn.text for turn in again.path()] == ["Go on", "It goes"]
    assert again.path()[1].state is TurnState.STOPPED
    await chats.close()


async def test_two_accounts_never_see_each_other_s(database: Database) -> None:
    chats = start(database)
    conversation = chats.begin(ADA)
    reply = ask(chats, conversation, conversation.say("A secret"))
    await until(lambda: reply.state is TurnState.DONE)
    # while it is in memory, and when only the database has it
    for server in (chats, start(database)):
        assert await server.heads(EVE) == []
        assert await server.search(EVE, "secret") == []
        with pytest.raises(NotFound):
            await server.open(EVE, conversation.id)
        await chats.close()
        assert [head.title for head in await server.heads(ADA)] == ["A secret"]


async def test_a_deleted_conversation_does_not_come_back(database: Database) -> None:
    chats = start(database)
    conversation = chats.begin(ADA)
    reply = ask(chats, conversation, conversation.say("Go on"), "slow")
    await until(lambda: reply.text == "It goes")
    await chats.remove(conversation)
    await until(lambda: reply.state is TurnState.STOPPED)
    await chats.close()
    assert await chats.heads(ADA) == []
    with pytest.raises(NotFound):
        await chats.open(ADA, conversation.id)


async def test_what_cannot_be_kept_says_so_and_is_tried_again(database: Database, tmp_path: Path) -> None:
    chats = start(database)
    conversation = chats.begin(ADA)
    with sqlite3.connect(tmp_path / SQLITE_FILE) as other:
        other.execute("ALTER TABLE turns RENAME TO elsewhere")
    reply = ask(chats, conversation, conversation.say("Hello"))
    await until(lambda: reply.state is TurnState.DONE and conversation.save_error is not None)
    with sqlite3.connect(tmp_path / SQLITE_FILE) as other:
        other.execute("ALTER TABLE elsewhere RENAME TO turns")
    await chats.close()
    assert conversation.save_error is None
    assert [head.title for head in await chats.heads(ADA)] == ["Hello"]
