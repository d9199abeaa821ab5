"""Chat: conversations with the models, streamed, branched, and measured."""

from __future__ import annotations

import msgspec
from nicegui import ui
from starlette.requests import Request

from mlx_manager.errors import MlxManagerError, NotFound
from mlx_manager.ui.attachments import Attachment
from mlx_manager.ui.chat_export import export_json, export_markdown, file_name
from mlx_manager.ui.chat_list import ChatList
from mlx_manager.ui.chat_options import ChatOptions
from mlx_manager.ui.chat_turns import ChatTurns, TurnActions
from mlx_manager.ui.composer import Composer
from mlx_manager.ui.console import Console, console_of, viewer_of
from mlx_manager.ui.conversation import Conversation, Turn, TurnState
from mlx_manager.ui.elements import ask, box, button, dialog, set_words, tell, text
from mlx_manager.ui.frame import frame
from mlx_manager.ui.model_choice import ModelChoice
from mlx_manager.ui.paths import CHAT


async def chat_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    conversation = await _latest(console, request)
    with frame(console, request, CHAT, classes="chat"):
        view = _ChatView(console, request, conversation)
    view.models.update()
    view.choose_last()
    view.update()
    ui.timer(0.12, view.update)
    ui.timer(1.0, view.look_around)


async def _latest(console: Console, request: Request) -> Conversation:
    """What was said last; a new conversation where there is none, or none can be read."""
    viewer = viewer_of(request)
    try:
        heads = await console.chats.heads(viewer)
        return await console.chats.open(viewer, heads[0].id) if heads else console.chats.begin(viewer)
    except MlxManagerError:
        # the list says what is wrong
        return console.chats.begin(viewer)


class _ChatView:
    def __init__(self, console: Console, request: Request, conversation: Conversation) -> None:
        self._console = console
        self._viewer = viewer_of(request)
        self._chats = console.chats
        self._conversation = conversation
        text("Chat", "visually-hidden", "h1")
        with box("chat-body"):
            with box("chat-list", "nav").props('aria-label="Conversations"') as self._side:
                with box("row-line only-overlay"):
                    text("Conversations", "grow", "h2")
                    button("", self._toggle_list, icon="close", look="bare", name="Close")
                self._list = ChatList(self._chats, self._viewer, begin=self._begin, open_=self._open)
            with box("chat-main") as main:
                with box("chat-head"):
                    self._head()
                self._unsaved = text("", "note warn").props('role="alert"')
                decide = self._chats.approvals.decide
                self._turns = ChatTurns(TurnActions(self._edit, self._again, self._choose, decide))
                self._composer = Composer(send=self._send, stop=self._stop, sees=self._sees, zone=main)
            with box("panel tight chat-options") as self._panel:
                with box("row-line"):
                    text("Parameters", "grow", "h2")
                    button("", self._toggle_options, icon="close", look="bare", name="Close")
                self._options = ChatOptions(console.toolbox, self._take_parameters, self._ask_again_for_tools)
                self._options.show(conversation.parameters)
        self._panel.set_visibility(False)

    def update(self) -> None:
        """Show what is new; nothing is sent when nothing is."""
        self._turns.update(self._conversation)
        self._composer.show_running(self._turns.is_running)
        set_words(self._title, self._conversation.title or "New conversation")
        problem = self._conversation.save_error
        set_words(self._unsaved, f"Not saved, and tried again until it is: {problem}" if problem else "")
        self._unsaved.set_visibility(problem is not None)

    def choose_last(self) -> None:
        """Go on with whom was asked last, where it is still there."""
        asked = [turn.model for turn in self._conversation.path() if turn.model is not None]
        if asked:
            self.models.choose(asked[-1])

    def _head(self) -> None:
        button("", self._toggle_list, icon="menu_open", look="bare", name="Conversations")
        self._title = text("", "clip strong grow", "h2")
        button("", self._begin, icon="add_comment", look="bare", name="New conversation")
        button("", self._ask_name, icon="edit_note", look="bare", name="Name the conversation")
        with (
            button("", icon="download", look="bare", name="Export the conversation"),
            ui.menu().props('role="menu" aria-label="Export"'),
        ):
            ui.menu_item("As Markdown", self._export_markdown).props('role="menuitem"')
            ui.menu_item("As JSON, with all branches", self._export_json).props('role="menuitem"')
        button("", self._ask_remove, icon="delete", look="bare", name="Delete the conversation")
        self.models = ModelChoice(self._console, self._viewer)
        button("", self._toggle_options, icon="tune", look="bare", name="Parameters")

    async def look_around(self) -> None:
        """Bring the list of conversations and the models up to date."""
        if self._conversation.is_removed:
            # in another window
            self._begin()
        await self._list.update(self._conversation.id)
        self._options.update(self._conversation.parameters)
        self.models.update()

    def _sees(self) -> bool:
        chosen = self.models.chosen
        return chosen is not None and chosen.may_see

    def _send(self, words: str, attachments: tuple[Attachment, ...]) -> bool:
        if not self._can_ask():
            return False
        self._answer(self._conversation.say(words, attachments))
        return True

    def _can_ask(self) -> bool:
        if self._running() is not None:
            tell("A reply is being written: stop it first.")
            return False
        if not self.models.name:
            is_admin = self._viewer.is_admin
            fix = "Download one first, on the page Models." if is_admin else "An admin can download one."
            tell(f"There is no model to ask. {fix}", "negative")
            return False
        return True

    def _answer(self, asked: Turn) -> None:
        self._conversation.parameters = self._options.read(self._conversation.parameters)
        reply = self._conversation.begin_reply(asked, self.models.name or "")
        if self.models.chosen is not None and self.models.chosen.is_loaded_first:
            tell(f"{reply.model} is loaded first.")
        self._chats.answer(self._viewer, self._conversation, reply)
        self.update()

    def _again(self, reply: Turn) -> None:
        if self._can_ask() and reply.parent is not None:
            self._answer(reply.parent)

    def _edit(self, turn: Turn, words: str) -> None:
        if self._can_ask() and words.strip():
            self._answer(self._conversation.edit(turn, words.strip()))

    def _choose(self, turn: Turn, step: int) -> None:
        self._conversation.choose(turn, step)
        if turn.parent is not None:
            self._chats.keep(self._conversation, turn.parent)
        self.update()

    def _running(self) -> Turn | None:
        return next((turn for turn in self._conversation.path() if turn.state is TurnState.RUNNING), None)

    def _stop(self) -> None:
        running = self._running()
        if running is not None:
            self._chats.stop(running)

    def _take_parameters(self) -> None:
        chosen = self._options.read(self._conversation.parameters)
        if chosen != self._conversation.parameters:
            self._conversation.parameters = chosen
            self._chats.keep(self._conversation)

    def _ask_again_for_tools(self) -> None:
        self._conversation.parameters = msgspec.structs.replace(self._conversation.parameters, allowed_tools=())
        self._chats.keep(self._conversation)
        self._options.update(self._conversation.parameters)

    def _toggle_options(self) -> None:
        self._panel.set_visibility(not self._panel.visible)

    def _toggle_list(self) -> None:
        # on wide screens it is there until it is put away, on narrow ones the other way round
        self._side.classes(toggle="toggled")

    async def _open(self, id_: str) -> None:
        self._side.classes(remove="toggled")
        try:
            opened = await self._chats.open(self._viewer, id_)
        except NotFound:
            tell("This conversation was deleted.")
        except MlxManagerError as error:
            tell(error.message, "negative")
        else:
            self._show(opened)

    def _begin(self) -> None:
        self._side.classes(remove="toggled")
        if self._conversation.path() or self._conversation.is_removed:
            self._show(self._chats.begin(self._viewer))

    def _show(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._options.show(conversation.parameters)
        self.choose_last()
        self.update()

    def _ask_name(self) -> None:
        with dialog("Name the conversation") as opened:
            name = ui.input("Name", value=self._conversation.title).props("outlined dense maxlength=60")
            text("Left empty, it is called by what it begins with.", "soft small", "p")

            def save() -> None:
                self._conversation.rename(name.value or "")
                self._chats.keep(self._conversation)
                opened.close()
                self.update()

            with box("dialog-foot"):
                button("Cancel", opened.close)
                button("Save", save, look="main")

    def _ask_remove(self) -> None:
        conversation = self._conversation

        async def remove() -> None:
            await self._chats.remove(conversation)
            if self._conversation is conversation:
                self._begin()

        title = f"Delete “{conversation.title or 'this conversation'}”?"
        ask(title, "All of its branches and files go with it. An export keeps them.", "Delete it", remove)

    def _export_markdown(self) -> None:
        ui.download.content(export_markdown(self._conversation), file_name(self._conversation, "md"), "text/markdown")

    def _export_json(self) -> None:
        ui.download.content(export_json(self._conversation), file_name(self._conversation, "json"), "application/json")
