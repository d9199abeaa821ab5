"""Chats over a real database, as a server that has just started has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from mlx_manager.backends import Backend
from mlx_manager.catalog import User, UserRole, UserState
from mlx_manager.gateway import Gateway
from mlx_manager.ir import Caller, CallerKind
from mlx_manager.storage import users
from mlx_manager.storage.conversations import ConversationStore
from mlx_manager.storage.database import Database
from mlx_manager.tools import Toolbox
from mlx_manager.ui.chats import Chats
from mlx_manager.ui.conversation import Conversation, Turn

ADA = Caller(kind=CallerKind.SESSION, user_id=1, user_name="ada")
EVE = Caller(kind=CallerKind.SESSION, user_id=2, user_name="eve")


@asynccontextmanager
async def two_accounts(folder: Path) -> AsyncIterator[Database]:
    """SQLite with the accounts of Ada and Eve."""
    opened = await Database.open(None, folder)
    async with opened.writing() as session:
        for name in ("ada", "eve"):
            account = User(id=0, name=name, role=UserRole.USER, state=UserState.ACTIVE, created_unix_s=1)
            await users.insert(session, account, "hash")
    yield opened
    await opened.close()


def start(database: Database, backend: Backend, toolbox: Toolbox | None = None) -> Chats:
    """The chats of a server that has just started."""
    return Chats(Gateway([backend]), ConversationStore(database), toolbox or Toolbox())


def ask(chats: Chats, conversation: Conversation, asked: Turn, model: str = "kind") -> Turn:
    """A reply of `model` to what was asked, begun."""
    reply = conversation.begin_reply(asked, model)
    chats.answer(ADA, conversation, reply)
    return reply


async def until(holds: Callable[[], object]) -> None:
    """Wait until it does."""
    deadline_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)
