"""One tool call of a reply on the page: its arguments, what came of it, and the question whether it may be made."""

from __future__ import annotations

import html
import json
from collections.abc import Callable

from nicegui import ui

from mlx_manager.ui.chat_tools import Decision
from mlx_manager.ui.conversation import CallState, ToolUse
from mlx_manager.ui.elements import box, button, set_words, text
from mlx_manager.ui.words import render_duration

_MOST_SHOWN_CHARS = 20_000
_WORDS = {
    CallState.WRITTEN: "being written",
    CallState.ASKED: "waits for you",
    CallState.RUNNING: "runs",
    CallState.DONE: "done",
    CallState.FAILED: "failed",
    CallState.REFUSED: "not allowed",
}
_TONES = {CallState.ASKED: "warn", CallState.DONE: "good", CallState.FAILED: "bad", CallState.REFUSED: "bad"}


class CallView:
    """Made inside a round; `update` draws what is new. `decide` is told what whoever looks decides."""

    def __init__(self, use: ToolUse, decide: Callable[[ToolUse, Decision], None]) -> None:
        self._use = use
        self._decide = decide
        self._drawn: tuple[CallState, int] | None = None
        with ui.expansion().props("dense").classes("tool-call") as self._panel:
            with self._panel.add_slot("header"), box("row-line grow"):
                ui.icon("build")
                text(use.name, "strong clip")
                self._server = text("", "soft small")
                self._state = text("", "badge end")
            text("Arguments", "soft small")
            self._arguments = ui.html("", sanitize=False)
            self._result_title = text("Result", "soft small")
            self._result = ui.html("", sanitize=False)
        # outside of the panel, so that a question cannot be folded away
        with box("row-line tool-question") as self._question:
            self._asked = text("", "grow")
            self._button("Allow once", Decision.ONCE)
            self._button("Always in this conversation", Decision.ALWAYS)
            self._button("Refuse", Decision.REFUSE)
        self._question.props('role="group" aria-label="Allow this call?"')
        self.update()

    def update(self) -> None:
        """Draw what is new."""
        use = self._use
        state = (use.state, len(use.arguments))
        if state == self._drawn:
            return
        self._drawn = state
        set_words(self._server, f"of {use.server}" if use.server else "")
        took = f" in {render_duration(use.duration_s)}" if use.duration_s is not None else ""
        set_words(self._state, _WORDS[use.state] + took)
        self._state.classes(replace=f"badge end {_TONES.get(use.state, '')}")
        self._arguments.set_content(_code(_pretty(use.arguments)))
        self._result.set_content(_code(use.result) if use.result else "")
        self._result_title.set_visibility(bool(use.result))
        set_words(self._asked, f"Let the model call {use.name} of {use.server} with these arguments?")
        self._question.set_visibility(use.state is CallState.ASKED)
        if use.state is CallState.ASKED:
            self._panel.set_value(True)

    def _button(self, label: str, decision: Decision) -> None:
        button(label, lambda: self._decide(self._use, decision), look="main" if decision is Decision.ONCE else "")


def _code(words: str) -> str:
    shown = words if len(words) <= _MOST_SHOWN_CHARS else words[:_MOST_SHOWN_CHARS] + "\n… cut off here."
    return f'<pre tabindex="0" class="tool-text">{html.escape(shown)}</pre>'


def _pretty(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return arguments
