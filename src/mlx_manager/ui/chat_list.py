"""The conversations of an account as a list that can be searched."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from functools import partial

from nicegui import ui

from mlx_manager.errors import MlxManagerError
from mlx_manager.ir import Caller
from mlx_manager.storage.conversations import FoundConversation
from mlx_manager.ui.chat_records import words_of
from mlx_manager.ui.chats import MOST_LISTED, Chats
from mlx_manager.ui.elements import box, button, set_words, text
from mlx_manager.ui.words import render_age

_PERIOD_S = 15.0
"""How often it is read again although nothing has changed here."""
_EXCERPT_CHARS = 90


class ChatList:
    """Drawn where it is made. `update` brings it up to date, and is cheap where nothing has changed."""

    def __init__(
        self, chats: Chats, viewer: Caller, *, begin: Callable[[], None], open_: Callable[[str], Awaitable[None]]
    ):
        self._chats = chats
        self._viewer = viewer
        self._open = open_
        self._drawn: tuple[int, str] | None = None
        self._read_s = 0.0
        self._shown = ""
        self._entries: dict[str, ui.element] = {}
        button("New conversation", begin, icon="add_comment")
        self._words = ui.input(placeholder="Search titles and text")
        self._words.props('outlined dense clearable debounce=250 aria-label="Search conversations"')
        self._words.on_value_change(self.update)
        self._state = text("", "soft small", "p").props('role="status"')
        self._list = box("chat-entries", "ul")

    async def update(self, shown: str | None = None) -> None:
        """Read the list again if need be, and mark the conversation `shown`."""
        words = (self._words.value or "").strip()
        wanted = (self._chats.num_changes(self._viewer), words)
        is_old = time.monotonic() - self._read_s > _PERIOD_S
        if isinstance(shown, str) and shown != self._shown:
            self._shown = shown
            self._mark()
        if wanted == self._drawn and not is_old:
            return
        self._drawn, self._read_s = wanted, time.monotonic()
        try:
            found = await self._chats.search(self._viewer, words)
        except MlxManagerError as error:
            set_words(self._state, error.message)
            return
        if self._drawn == wanted:
            # nobody has typed on meanwhile
            self._draw(found, words)

    def _draw(self, found: list[FoundConversation], words: str) -> None:
        if len(found) == MOST_LISTED:
            set_words(self._state, f"The last {MOST_LISTED}; search for older ones.")
        elif words:
            set_words(self._state, f"{len(found)} found" if found else "Nothing has these words.")
        else:
            set_words(self._state, "" if found else "What you ask is kept here.")
        self._list.clear()
        self._entries = {}
        with self._list:
            for one in found:
                with box(tag="li"), box("chat-entry", "button") as entry:
                    entry.props["type"] = "button"
                    text(one.head.title, "clip strong")
                    aside = render_age(max(0.0, time.time() - one.head.changed_unix_s))
                    text(_excerpt(one, words) or aside, "clip soft small")
                entry.on("click", partial(self._open, one.head.id))
                self._entries[one.head.id] = entry
        self._mark()

    def _mark(self) -> None:
        for id_, entry in self._entries.items():
            is_shown = id_ == self._shown
            if ("aria-current" in entry.props) is not is_shown:
                if is_shown:
                    entry.props["aria-current"] = "true"
                else:
                    del entry.props["aria-current"]
                entry.update()


def _excerpt(found: FoundConversation, words: str) -> str:
    """What is around the first of `words` in the turn that has them."""
    if found.turn is None or not words:
        return ""
    said = " ".join(words_of(found.turn).split())
    at = re.search(re.escape(words.split(maxsplit=1)[0]), said, re.IGNORECASE)
    begin = max(0, (at.start() if at else 0) - _EXCERPT_CHARS // 3)
    return ("…" if begin else "") + said[begin : begin + _EXCERPT_CHARS]
