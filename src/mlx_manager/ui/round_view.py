"""One round of a reply that is being written: what the model thinks, its words, and the tools that it calls."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator

from nicegui import ui

from mlx_manager.ui.call_view import CallView
from mlx_manager.ui.chat_tools import Decision
from mlx_manager.ui.conversation import Round, ToolUse
from mlx_manager.ui.elements import box
from mlx_manager.ui.markdown import render_reply
from mlx_manager.ui.turn_html import describe_thinking, panel_name


class RoundView:
    """Made inside a reply; `update` draws what is new."""

    def __init__(self, shown: Round, number: int, decide: Callable[[ToolUse, Decision], None]) -> None:
        self._round = shown
        self._number = number
        self._decide = decide
        self._calls: list[CallView] = []
        self._drawn: tuple[int, int, bool] | None = None
        self._thinking = ui.expansion("Thinking", icon="psychology").props("dense").classes("thinking")
        with self._thinking:
            self._thoughts = ui.html("", sanitize=False).classes("thoughts")
        self._words = ui.html("", sanitize=False).classes("prose")
        self._called = box("stack")
        self.update()

    @property
    def is_visible(self) -> bool:
        """Whether there is anything to see of it yet."""
        return bool(self._round.text or self._round.reasoning or self._round.calls)

    def opened(self) -> Iterator[str]:
        """The names of its panels that are not folded."""
        if self._thinking.value:
            yield panel_name(self._number)
        for index, call in enumerate(self._calls):
            if call.is_open:
                yield panel_name(self._number, index)

    def update(self) -> None:
        """Draw what is new."""
        shown = self._round
        self._update_calls()
        state = (len(shown.text), len(shown.reasoning), shown.thinking_s is not None)
        if state == self._drawn:
            return
        self._drawn = state
        self._words.set_content(render_reply(shown.text))
        self._thinking.set_visibility(bool(shown.reasoning))
        if shown.reasoning:
            self._thoughts.set_content(html.escape(shown.reasoning))
            self._thinking.set_text(describe_thinking(shown))

    def _update_calls(self) -> None:
        calls = self._round.calls
        if len(self._calls) > len(calls):
            # what looked like a call was none
            self._called.clear()
            self._calls = []
        with self._called:
            self._calls += [CallView(use, self._decide) for use in calls[len(self._calls) :]]
        for view in self._calls:
            view.update()
