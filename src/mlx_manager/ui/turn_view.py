"""One turn of a conversation on the page: live while it is written, one piece of HTML afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable

from nicegui import ui

from mlx_manager.ir import Role
from mlx_manager.ui.chat_tools import Decision
from mlx_manager.ui.conversation import ToolUse, Turn, TurnState
from mlx_manager.ui.elements import box, text
from mlx_manager.ui.round_view import RoundView
from mlx_manager.ui.turn_html import render_turn

Decide = Callable[[ToolUse, Decision], None]
"""What is told whether a tool may be called."""


class TurnView:
    """Made inside the list of turns; `update` shows how far its turn is."""

    def __init__(self, turn: Turn, conversation_id: str, decide: Decide) -> None:
        self._turn = turn
        self._conversation_id = conversation_id
        self._decide = decide
        self._live: _LiveReply | None = None
        self.num_branches = len(turn.siblings)
        """As drawn."""
        is_reply = turn.role is Role.ASSISTANT
        label = f"Reply of {turn.model}" if is_reply else "You"
        self.place: ui.element
        if turn.state is TurnState.RUNNING:
            self.place = box("turn reply", "article")
            with self.place:
                self._live = _LiveReply(turn, decide)
        else:
            self.place = self._still()
        self.place.props["aria-label"] = label

    @property
    def is_live(self) -> bool:
        """Whether there may be something new to draw."""
        return self._live is not None

    def update(self) -> None:
        """Draw what is new. A turn that has ended is drawn once more, and then no longer."""
        if self._live is None:
            return
        if self._turn.state is TurnState.RUNNING:
            self._live.update()
            return
        opened = self._live.opened()
        self._live = None
        self.place.clear()
        with self.place:
            ui.html(render_turn(self._turn, self._conversation_id, opened=opened), sanitize=False).classes("turn")

    def _still(self) -> ui.html:
        is_reply = self._turn.role is Role.ASSISTANT
        content = render_turn(self._turn, self._conversation_id)
        return ui.html(content, sanitize=False, tag="article").classes(f"turn {'reply' if is_reply else 'asked'}")


class _LiveReply:
    """A reply that is being written."""

    def __init__(self, turn: Turn, decide: Decide) -> None:
        self._turn = turn
        self._decide = decide
        self._version = -1
        self._rounds: list[RoundView] = []
        self._next_drawing_s = 0.0
        text(turn.model or "", "soft small strong")
        self._said = box("stack")
        self._waiting = text("waits for the first token …", "soft")
        self.update()

    def update(self) -> None:
        """Draw what is new. A long reply is drawn less often, so that drawing takes a tenth of the time at most."""
        turn = self._turn
        began_s = time.monotonic()
        if turn.version == self._version or began_s < self._next_drawing_s:
            return
        self._version = turn.version
        with self._said:
            for number, one in enumerate(turn.rounds[len(self._rounds) :], start=len(self._rounds)):
                self._rounds.append(RoundView(one, number, self._decide))
        for view in self._rounds:
            view.update()
        self._waiting.set_visibility(not any(view.is_visible for view in self._rounds))
        self._next_drawing_s = time.monotonic() + 10 * (time.monotonic() - began_s)

    def opened(self) -> list[str]:
        """The names of the panels that are not folded."""
        return [name for view in self._rounds for name in view.opened()]
