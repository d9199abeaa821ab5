"""One turn of a conversation on the page."""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Callable
from dataclasses import dataclass

from nicegui import ui

from mlx_manager.ir import Role
from mlx_manager.ui.chat_tools import Decision
from mlx_manager.ui.conversation import ToolUse, Turn, TurnState
from mlx_manager.ui.elements import badge, box, button, copy_button, dialog, note, set_words, text
from mlx_manager.ui.round_view import RoundView
from mlx_manager.ui.words import render_rate

_SHOWN_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")


@dataclass(frozen=True)
class TurnActions:
    """What can be done with a turn."""

    edit: Callable[[Turn, str], None]
    again: Callable[[Turn], None]
    choose: Callable[[Turn, int], None]
    decide: Callable[[ToolUse, Decision], None]
    """Whether a tool may be called."""


class TurnView:
    """Made inside the list of turns; `update` shows how far its turn is."""

    def __init__(self, turn: Turn, actions: TurnActions) -> None:
        self._turn = turn
        self._actions = actions
        self._version = -1
        self.num_branches = len(turn.siblings)
        """As drawn."""
        self._rounds: list[RoundView] = []
        self._next_drawing_s = 0.0
        is_reply = turn.role is Role.ASSISTANT
        self.place = box(f"turn {'reply' if is_reply else 'asked'}", "article")
        self.place.props["aria-label"] = f"Reply of {turn.model}" if is_reply else "You"
        with self.place:
            text(turn.model or "" if is_reply else "You", "soft small strong")
            self._attachments()
            if is_reply:
                self._reply()
            else:
                text(turn.said, "asked-words")
            with box("row-line turn-foot"):
                self._branches()
                self._buttons(is_reply)
                self._figures = text("", "soft small num end")
        self.update()

    def update(self) -> None:
        """Draw what is new. A long reply is drawn less often, so that drawing takes a tenth of the time at most."""
        turn = self._turn
        if turn.role is not Role.ASSISTANT or turn.version == self._version:
            return
        began_s = time.monotonic()
        if turn.state is TurnState.RUNNING and began_s < self._next_drawing_s:
            return
        self._version = turn.version
        with self._said:
            self._rounds += [RoundView(one, self._actions.decide) for one in turn.rounds[len(self._rounds) :]]
        for view in self._rounds:
            view.update()
        has_begun = any(view.is_visible for view in self._rounds)
        self._waiting.set_visibility(turn.state is TurnState.RUNNING and not has_begun)
        self._show_end(turn)
        self._next_drawing_s = time.monotonic() + 10 * (time.monotonic() - began_s)

    def _reply(self) -> None:
        self._said = box("stack")
        self._waiting = text("waits for the first token …", "soft")
        self._problem = box()

    def _attachments(self) -> None:
        turn = self._turn
        if not turn.attachments:
            return
        with box("row-line"):
            for file in turn.attachments:
                if file.is_image:
                    kind = file.media_type if file.media_type in _SHOWN_IMAGES else "image/png"
                    source = f"data:{kind};base64,{base64.b64encode(file.content).decode()}"
                    name = html.escape(file.name)
                    ui.html(f'<img class="attached" src="{source}" alt="Attached: {name}">', sanitize=False)
                else:
                    badge(file.name)

    def _branches(self) -> None:
        turn = self._turn
        num = len(turn.siblings)
        if num > 1:
            self._step_button(-1, "chevron_left", "Branch before")
            text(f"{turn.siblings.index(turn) + 1}/{num}", "soft small num")
            self._step_button(1, "chevron_right", "Branch after")

    def _step_button(self, step: int, icon: str, name: str) -> None:
        button("", lambda: self._actions.choose(self._turn, step), icon=icon, look="bare tiny", name=name)

    def _buttons(self, is_reply: bool) -> None:
        turn = self._turn
        if is_reply:
            self._copy_place = box()
            self._again = button(
                "", lambda: self._actions.again(turn), icon="refresh", look="bare tiny", name="Ask again"
            )
        else:
            button("", self._ask_edit, icon="edit", look="bare tiny", name="Edit, as a new branch")

    def _ask_edit(self) -> None:
        with dialog("Say it otherwise", is_wide=True) as opened:
            words = ui.textarea("Message", value=self._turn.said).props("outlined autogrow")

            def send() -> None:
                opened.close()
                self._actions.edit(self._turn, words.value or "")

            with box("dialog-foot"):
                button("Cancel", opened.close)
                button("Send", send, look="main")

    def _show_end(self, turn: Turn) -> None:
        is_over = turn.state is not TurnState.RUNNING
        self._again.set_visibility(is_over)
        if not is_over:
            return
        set_words(self._figures, _describe(turn))
        self._copy_place.clear()
        with self._copy_place:
            copy_button(turn.text, "Copy the reply")
        self._problem.clear()
        if turn.error is not None:
            with self._problem:
                note(turn.error, "bad")


def _describe(turn: Turn) -> str:
    figures = turn.figures
    parts = ["stopped"] if turn.state is TurnState.STOPPED else []
    if turn.answered_by is not None:
        instead = f" instead of another ({turn.fallback_reason})" if turn.fallback_reason is not None else ""
        parts.append(f"by {turn.answered_by}{instead}")
    if figures.tokens_per_s is not None:
        parts.append(f"{render_rate(figures.tokens_per_s)} tokens/s")
    if figures.ttft_s is not None:
        parts.append(f"first after {figures.ttft_s:.2f} s")
    if figures.num_prompt_tokens is not None:
        parts.append(f"{figures.num_prompt_tokens} prompt, {figures.num_cached_tokens} cached")
    if figures.num_completion_tokens is not None:
        parts.append(f"{figures.num_completion_tokens} written")
    return " · ".join(parts)
