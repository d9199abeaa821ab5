"""Writes conversations into the database as they change: one task, which ends when there is nothing left to write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from mlx_manager.errors import StorageUnavailable
from mlx_manager.storage.conversations import ConversationStore
from mlx_manager.ui.chat_records import store_conversation
from mlx_manager.ui.conversation import Conversation, Turn

_logger = logging.getLogger("mlx_manager.ui")
_RETRY_S = 2.0


class ChatKeeper:
    """What cannot be written waits, and is tried again; the conversation says why. `on_kept` hears of what is kept."""

    def __init__(self, store: ConversationStore, on_kept: Callable[[Conversation], None]) -> None:
        self._store = store
        self._on_kept = on_kept
        self._waiting: dict[Conversation, set[Turn]] = {}
        self._turn = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def keep(self, conversation: Conversation, turns: Iterable[Turn] = ()) -> None:
        """Write the conversation's name and parameters, and these of its turns. Inside the event loop only."""
        if conversation.is_removed or conversation.user_id is None or not conversation.root.children:
            # one in which nothing was said yet is not worth keeping
            return
        self._waiting.setdefault(conversation, set()).update(turns)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    async def remove(self, conversation: Conversation) -> None:
        """Delete it. Raises `StorageUnavailable`; then it is still there."""
        async with self._turn:
            if conversation.user_id is not None:
                await self._store.remove(conversation.user_id, conversation.id)
            conversation.is_removed = True
            self._waiting.pop(conversation, None)

    async def close(self) -> None:
        """Write what is left, as far as it can be."""
        self._closing.set()
        if self._writer is not None:
            await self._writer

    async def _write_all(self) -> None:
        while self._waiting:
            conversation = next(iter(self._waiting))
            if await self._write(conversation):
                continue
            if self._closing.is_set():
                _logger.warning("%d conversations could not be written.", len(self._waiting))
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _RETRY_S)

    async def _write(self, conversation: Conversation) -> bool:
        """Whether it is kept now."""
        async with self._turn:
            turns = self._waiting.pop(conversation, None)
            if turns is None or conversation.user_id is None:
                return True
            stored = store_conversation(conversation, turns)
            try:
                await self._store.write(conversation.user_id, stored)
            except StorageUnavailable as error:
                self._waiting.setdefault(conversation, set()).update(turns)
                conversation.save_error = error.message
                return False
            conversation.save_error = None
            self._on_kept(conversation)
            return True
