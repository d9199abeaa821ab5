"""One round of a reply on the page: what the model thinks, and its words."""

from __future__ import annotations

import html

from nicegui import ui

from mlx_manager.ui.conversation import Round
from mlx_manager.ui.markdown import render_reply
from mlx_manager.ui.words import render_duration


class RoundView:
    """Made inside a reply; `update` draws what is new."""

    def __init__(self, shown: Round) -> None:
        self._round = shown
        self._drawn: tuple[int, int, bool] | None = None
        self._thinking = ui.expansion("Thinking", icon="psychology").props("dense").classes("thinking")
        with self._thinking:
            self._thoughts = ui.html("", sanitize=False).classes("thoughts")
        self._words = ui.html("", sanitize=False).classes("prose")
        self.update()

    @property
    def is_visible(self) -> bool:
        """Whether there is anything to see of it yet."""
        return bool(self._round.text or self._round.reasoning)

    def update(self) -> None:
        """Draw what is new."""
        shown = self._round
        state = (len(shown.text), len(shown.reasoning), shown.thinking_s is not None)
        if state == self._drawn:
            return
        self._drawn = state
        self._words.set_content(render_reply(shown.text))
        self._thinking.set_visibility(bool(shown.reasoning))
        if shown.reasoning:
            self._thoughts.set_content(html.escape(shown.reasoning))
            thinking_s = shown.thinking_s
            self._thinking.set_text(
                f"Thought for {render_duration(thinking_s)}" if thinking_s is not None else "Thinking"
            )
