"""The conversations of every account, and the replies that run: they go on when a page is closed."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from weakref import WeakValueDictionary

from mlx_manager.errors import NotFound
from mlx_manager.gateway import Gateway
from mlx_manager.ir import Caller
from mlx_manager.storage.conversations import ConversationHead, ConversationStore, FoundConversation
from mlx_manager.tools import Toolbox
from mlx_manager.ui.chat_keeper import ChatKeeper
from mlx_manager.ui.chat_records import restore_conversation
from mlx_manager.ui.chat_tools import Approvals, ToolRun
from mlx_manager.ui.conversation import Conversation, Turn, TurnState
from mlx_manager.ui.reply_writer import ReplyWriter

MOST_LISTED = 200
"""Conversations that a list shows; a search finds the others."""
_KEEP_PERIOD_S = 2.0
"""How much of a reply is lost at most when the machine loses its power."""


class Chats:
    """Nobody reaches the conversations of another account. Inside the event loop only.

    What is read is read to its end, also for a page that is closed meanwhile: its connection goes back as it was.
    """

    def __init__(self, gateway: Gateway, store: ConversationStore, toolbox: Toolbox) -> None:
        self._gateway = gateway
        self._toolbox = toolbox
        self.approvals = Approvals()
        self._store = store
        self._keeper = ChatKeeper(store, self._note_change)
        self._open: WeakValueDictionary[str, Conversation] = WeakValueDictionary()
        self._running: dict[Turn, asyncio.Task[None]] = {}
        self._num_changes: defaultdict[int | None, int] = defaultdict(int)

    def num_changes(self, viewer: Caller) -> int:
        """Grows whenever the list of an account's conversations has changed."""
        return self._num_changes[viewer.user_id]

    async def heads(self, viewer: Caller) -> list[ConversationHead]:
        """The conversations of one account, the one that was changed last first. Raises `StorageUnavailable`."""
        if viewer.user_id is None:
            return []
        return await asyncio.shield(self._store.heads(viewer.user_id, limit=MOST_LISTED))

    async def search(self, viewer: Caller, words: str) -> list[FoundConversation]:
        """Those with all of `words` in their title or one of their turns. Raises `StorageUnavailable`."""
        if viewer.user_id is None:
            return []
        return await asyncio.shield(self._store.search(viewer.user_id, words, limit=MOST_LISTED))

    def begin(self, viewer: Caller) -> Conversation:
        """A new one. It is kept from the first message on."""
        made = Conversation(viewer.user_id)
        self._open[made.id] = made
        return made

    async def open(self, viewer: Caller, conversation_id: str) -> Conversation:
        """One of the account's: the same object for everybody who looks at it. Raises `NotFound`."""
        if viewer.user_id is None:
            raise NotFound("There is no such conversation.")
        known = self._open.get(conversation_id)
        if known is None:
            stored = await asyncio.shield(self._store.read(viewer.user_id, conversation_id))
            known = self._open.setdefault(conversation_id, restore_conversation(viewer.user_id, stored))
        if known.user_id != viewer.user_id or known.is_removed:
            raise NotFound("There is no such conversation: it may have been deleted.")
        return known

    def keep(self, conversation: Conversation, *turns: Turn) -> None:
        """Write its name and parameters, and these of its turns, as they are now."""
        self._keeper.keep(conversation, turns)

    async def remove(self, conversation: Conversation) -> None:
        """Delete one, and stop what runs in it. Raises `StorageUnavailable`."""
        for turn in conversation.turns():
            self.stop(turn)
        await self._keeper.remove(conversation)
        self._note_change(conversation)

    def answer(self, viewer: Caller, conversation: Conversation, reply: Turn) -> None:
        """Have `reply` written."""
        assert reply.parent is not None
        kept_s = time.monotonic()

        def note_change() -> None:
            nonlocal kept_s
            reply.version += 1
            if time.monotonic() - kept_s > _KEEP_PERIOD_S:
                kept_s = time.monotonic()
                self.keep(conversation, reply)

        tools = ToolRun(self._toolbox, self.approvals, conversation, note_change)
        writer = ReplyWriter(self._gateway, viewer, conversation, reply, tools, note_change)
        task = asyncio.create_task(writer.write())
        self._running[reply] = task
        task.add_done_callback(lambda _: self._forget(conversation, reply))
        # what they follow chooses between them
        self.keep(conversation, reply, reply.parent, reply.parent.parent or conversation.root)

    def stop(self, reply: Turn) -> None:
        """End a reply; what there is of it stays."""
        task = self._running.get(reply)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop all replies, and write down what there is of them."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # what happens when a task is done happens after it
        await asyncio.sleep(0)
        await self._keeper.close()

    def _note_change(self, conversation: Conversation) -> None:
        self._num_changes[conversation.user_id] += 1

    def _forget(self, conversation: Conversation, reply: Turn) -> None:
        self._running.pop(reply, None)
        if reply.state is TurnState.RUNNING:
            # stopped before its first step
            reply.state = TurnState.STOPPED
            reply.version += 1
        conversation.changed_unix_s = time.time()
        self.keep(conversation, reply)
