"""Chat: conversations with the models, streamed, branched, and measured."""

from __future__ import annotations

import json

from nicegui import ui
from starlette.requests import Request

from mlx_manager.catalog import ModelKind
from mlx_manager.ir import ImageContent
from mlx_manager.pool import ModelState
from mlx_manager.ui.chat_options import ChatOptions
from mlx_manager.ui.composer import Composer
from mlx_manager.ui.console import Console, console_of, viewer_of
from mlx_manager.ui.conversation import AttachedFile, Conversation, Turn, TurnState
from mlx_manager.ui.elements import ask, box, button, dialog, empty_state, tell, text
from mlx_manager.ui.frame import frame
from mlx_manager.ui.paths import CHAT
from mlx_manager.ui.turn_view import TurnActions, TurnView

_KINDS = (ModelKind.TEXT, ModelKind.VISION)
_MOST_SHOWN = 60
_WELCOME = (
    "Replies are Markdown; pictures go to models that see. Conversations are kept until the server restarts, for your "
    "account alone."
)


def chat_page(request: Request) -> None:
    """Builds the page."""
    with frame(console_of(request), request, CHAT, classes="chat"):
        view = _ChatView(console_of(request), request)
    view.fill_selects()
    view.update()
    ui.timer(0.12, view.update)
    ui.timer(1.0, view.fill_selects)


class _ChatView:
    def __init__(self, console: Console, request: Request) -> None:
        self._console = console
        self._viewer = viewer_of(request)
        self._chats = console.chats
        known = self._chats.of(self._viewer)
        self._conversation = known[0] if known else self._chats.begin(self._viewer)
        self._views: dict[Turn, TurnView] = {}
        self._shown: tuple[int, int] | None = None
        self._num_shown = _MOST_SHOWN
        text("Chat", "visually-hidden", "h1")
        with box("chat-head"):
            self._head()
        with box("chat-body"):
            with box("chat-main"):
                self._list = box("turns").props('role="log" aria-label="Conversation" tabindex="0"')
                with self._list:
                    self._welcome = empty_state("forum", "Ask something", _WELCOME)
                    self._earlier = button("Show earlier turns", self._show_earlier, icon="expand_less")
                self._composer = Composer(send=self._send, stop=self._stop, sees=self._sees)
            with box("panel tight chat-options") as self._panel:
                self._options = ChatOptions()
        self._panel.set_visibility(False)
        ui.timer(0.4, lambda: ui.run_javascript(f"mlxManager.follow('{self._list.html_id}')"), once=True)

    def update(self) -> None:
        """Show what is new; nothing is sent when nothing is."""
        shape = (self._conversation.id, self._conversation.shape)
        if shape != self._shown:
            self._shown = shape
            self._arrange()
        for view in self._views.values():
            view.update()
        self._composer.show_running(self._running() is not None)

    def _head(self) -> None:
        self._chooser = ui.select({}, on_change=lambda event: self._open(event.value)).classes("grow")
        self._chooser.props('outlined dense options-dense aria-label="Conversation"')
        button("", self._begin, icon="add_comment", look="bare", name="New conversation")
        button("", self._ask_name, icon="edit_note", look="bare", name="Name the conversation")
        button("", self._export, icon="download", look="bare", name="Export the conversation")
        button("", self._ask_remove, icon="delete", look="bare", name="Delete the conversation")
        self._model = ui.select([], with_input=True).classes("chat-model")
        self._model.props('outlined dense options-dense aria-label="Model"')
        button("", self._toggle_options, icon="tune", look="bare", name="Parameters")

    def fill_selects(self) -> None:
        """Offer the conversations and models that there are now."""
        names = {one.id: one.name for one in self._chats.of(self._viewer)}
        if self._conversation.id not in names:
            # deleted in another window
            self._open(next(iter(names), None))
            return
        if self._chooser.options != names and not self._chooser.is_showing_popup:
            self._chooser.set_options(names, value=self._conversation.id)
        models = [status.entry.name for status in self._console.pulse.look().models if status.entry.kind in _KINDS]
        if self._model.options != models and not self._model.is_showing_popup:
            default = self._console.models.default_model
            wanted = self._model.value if self._model.value in models else default if default in models else None
            self._model.set_options(models, value=wanted or next(iter(models), None))

    def _arrange(self) -> None:
        """Draw the path. Turns that stay where they are are kept, so that what is open in them stays open."""
        shown = self._conversation.path()[-self._num_shown :]
        before = list(self._views.items())
        num_kept = 0
        for (turn, view), wanted in zip(before, shown, strict=False):
            if turn is not wanted or view.num_branches != len(turn.siblings):
                break
            num_kept += 1
        for _, view in before[num_kept:]:
            view.place.delete()
        self._views = dict(before[:num_kept])
        actions = TurnActions(edit=self._edit, again=self._again, choose=self._choose)
        with self._list:
            for turn in shown[num_kept:]:
                self._views[turn] = TurnView(turn, actions)
        self._earlier.set_visibility(len(self._conversation.path()) > len(shown))
        self._welcome.set_visibility(not shown)

    def _show_earlier(self) -> None:
        self._num_shown += _MOST_SHOWN
        self._shown = None

    def _sees(self) -> bool:
        models = self._console.pulse.look().models
        return any(one.entry.name == self._model.value and one.entry.kind is ModelKind.VISION for one in models)

    def _send(self, words: str, images: tuple[ImageContent, ...], files: tuple[AttachedFile, ...]) -> bool:
        if not self._can_ask():
            return False
        self._answer(self._conversation.say(words, images, files))
        return True

    def _can_ask(self) -> bool:
        if self._running() is not None:
            tell("A reply is being written: stop it first.")
            return False
        if not self._model.value:
            tell("There is no model to ask. Download one first, on the page Models.", "negative")
            return False
        return True

    def _answer(self, asked: Turn) -> None:
        self._conversation.system_prompt = self._options.system_prompt.value or ""
        reply = self._conversation.begin_reply(asked, self._model.value)
        status = next((one for one in self._console.pulse.look().models if one.entry.name == reply.model), None)
        if status is not None and status.state is ModelState.COLD:
            tell(f"{reply.model} is loaded first.")
        self._chats.answer(self._viewer, self._conversation, reply, self._options.sampling(), self._options.thinking())
        self.update()

    def _again(self, reply: Turn) -> None:
        if self._can_ask() and reply.parent is not None:
            self._answer(reply.parent)

    def _edit(self, turn: Turn, words: str) -> None:
        if self._can_ask() and words.strip():
            self._answer(self._conversation.edit(turn, words.strip()))

    def _choose(self, turn: Turn, step: int) -> None:
        self._conversation.choose(turn, step)
        self.update()

    def _running(self) -> Turn | None:
        return next((turn for turn in self._conversation.path() if turn.state is TurnState.RUNNING), None)

    def _stop(self) -> None:
        running = self._running()
        if running is not None:
            self._chats.stop(running)

    def _toggle_options(self) -> None:
        self._panel.set_visibility(not self._panel.visible)

    def _open(self, id_: int | None) -> None:
        found = next((one for one in self._chats.of(self._viewer) if one.id == id_), None)
        if found is self._conversation:
            return
        self._show(found or self._chats.begin(self._viewer))

    def _begin(self) -> None:
        if self._conversation.path():
            self._show(self._chats.begin(self._viewer))

    def _show(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._options.system_prompt.set_value(conversation.system_prompt)
        self._num_shown = _MOST_SHOWN
        self.fill_selects()
        self.update()

    def _ask_name(self) -> None:
        with dialog("Name the conversation") as opened:
            name = ui.input("Name", value=self._conversation.title).props("outlined dense maxlength=80")

            def save() -> None:
                self._conversation.title = (name.value or "").strip()
                opened.close()

            with box("dialog-foot"):
                button("Cancel", opened.close)
                button("Save", save, look="main")

    def _ask_remove(self) -> None:
        async def remove() -> None:
            self._chats.remove(self._viewer, self._conversation)
            self._open(None)

        ask("Delete this conversation?", "Its branches go with it; an export keeps what is shown.", "Delete it", remove)

    def _export(self) -> None:
        """What is shown, in the form of OpenAI's messages."""
        turns = [
            {"role": turn.role.value, "content": turn.text, **({"model": turn.model} if turn.model else {})}
            for turn in self._conversation.path()
        ]
        told = {"name": self._conversation.name, "messages": turns}
        content = json.dumps(told, ensure_ascii=False, indent=2).encode()
        ui.download.content(content, "conversation.json", "application/json")
