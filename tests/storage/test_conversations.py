"""Conversations: kept, found, replaced and deleted, each account its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlx_manager.catalog import User, UserRole, UserState
from mlx_manager.errors import NotFound
from mlx_manager.storage import users
from mlx_manager.storage.conversations import ConversationHead, ConversationStore, StoredConversation, StoredTurn
from mlx_manager.storage.database import Database
from tests.storage.test_database import reset

ROOT = StoredTurn(number=0, parent=None, chosen=0, words="", body={})


def said(number: int, words: str, *, parent: int, **body: Any) -> StoredTurn:
    return StoredTurn(number=number, parent=parent, chosen=0, words=words, body=body)


def conversation(id_: str, title: str, *turns: StoredTurn, changed_unix_s: int = 5) -> StoredConversation:
    head = ConversationHead(id=id_, title=title, created_unix_s=1, changed_unix_s=changed_unix_s)
    return StoredConversation(head=head, options={"seed": 7}, turns=[ROOT, *turns], files={})


@pytest.fixture
async def database(database_url: str | None, tmp_path: Path) -> AsyncIterator[Database]:
    """One with the accounts 1, ada, and 2, eve."""
    await reset(database_url)
    opened = await Database.open(database_url, tmp_path)
    async with opened.writing() as session:
        for name in ("ada", "eve"):
            account = User(id=0, name=name, role=UserRole.USER, state=UserState.ACTIVE, created_unix_s=1)
            await users.insert(session, account, "hash")
    yield opened
    await opened.close()


async def test_what_was_written_is_read_and_replaced(database: Database) -> None:
    store = ConversationStore(database)
    first = conversation("c1", "Sums", said(1, "What is 2 + 2?", parent=0, said="What is 2 + 2?"))
    content = bytes(range(256)) * 1000
    await store.write(1, msgspec.structs.replace(first, files={"d1": content}))
    reply = said(2, "Four", parent=1, state="running")
    await store.write(1, msgspec.structs.replace(first, turns=[reply], files={"d1": content}))
    await store.write(1, conversation("c1", "Renamed", said(2, "Four.", parent=1, state="done"), changed_unix_s=9))
    read = await store.read(1, "c1")
    assert read.head == ConversationHead(id="c1", title="Renamed", created_unix_s=1, changed_unix_s=9)
    assert read.options == {"seed": 7}
    assert [(turn.number, turn.parent) for turn in read.turns] == [(0, None), (1, 0), (2, 1)]
    assert read.turns[2].body == {"state": "done"}
    assert read.files == {"d1": content}


async def test_they_are_found_by_title_and_text_in_any_case(database: Database) -> None:
    store = ConversationStore(database)
    await store.write(1, conversation("c1", "Über Züge", said(1, "100% sure", parent=0, said="100% sure")))
    both = (said(1, "Where is ÉCOLE street?", parent=0, said="1"), said(2, "école street again", parent=1, said="2"))
    await store.write(1, conversation("c2", "Schools", *both, changed_unix_s=6))

    async def found(words: str) -> list[tuple[str, Any]]:
        return [(one.head.id, one.turn) for one in await store.search(1, words, limit=10)]

    assert await found("ÜBER") == [("c1", None)]
    # the words may be apart; the first turn that has them is shown
    assert await found("street école") == [("c2", {"said": "1"})]
    # what means something to the database is a character as any other
    assert await found("100%") == [("c1", {"said": "100% sure"})]
    assert await found("100_") == []
    assert await found("street sure") == []
    assert [id_ for id_, _ in await found(" ")] == ["c2", "c1"]


async def test_nobody_reaches_what_belongs_to_another_account(database: Database) -> None:
    store = ConversationStore(database)
    await store.write(1, conversation("c1", "Secret", said(1, "A secret", parent=0)))
    assert await store.heads(2, limit=10) == []
    assert await store.search(2, "secret", limit=10) == []
    with pytest.raises(NotFound):
        await store.read(2, "c1")
    await store.remove(2, "c1")
    assert [head.title for head in await store.heads(1, limit=10)] == ["Secret"]


async def test_all_of_it_goes_when_it_or_its_account_is_deleted(database: Database) -> None:
    store = ConversationStore(database)
    for id_ in ("c1", "c2"):
        await store.write(1, msgspec.structs.replace(conversation(id_, id_), files={"d": b"x"}))
    await store.remove(1, "c1")
    assert [head.id for head in await store.heads(1, limit=10)] == ["c2"]
    async with database.writing() as session:
        await users.remove(session, 1)
    assert await store.heads(1, limit=10) == []
    # a reply that ends later brings nothing back
    await store.write(1, conversation("c2", "late"))
    assert await store.heads(1, limit=10) == []


async def test_characters_that_databases_do_not_take_are_left_out(database: Database) -> None:
    store = ConversationStore(database)
    await store.write(1, conversation("c1", "a\0b\ud800", said(1, "x\0y", parent=0, said="x\0y")))
    assert (await store.read(1, "c1")).head.title == "ab?"
    assert [one.head.id for one in await store.search(1, "xy", limit=10)] == ["c1"]
