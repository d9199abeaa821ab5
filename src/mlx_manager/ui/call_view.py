"""One tool call of a reply that is being written: its arguments, what came of it, and whether it may be made."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from mlx_manager.ui.chat_tools import Decision
from mlx_manager.ui.conversation import CallState, ToolUse
from mlx_manager.ui.elements import box, button, set_words, text
from mlx_manager.ui.turn_html import CALL_TONES, describe_call, render_arguments, render_code


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

    @property
    def is_open(self) -> bool:
        """Whether it is not folded."""
        return bool(self._panel.value)

    def update(self) -> None:
        """Draw what is new."""
        use = self._use
        state = (use.state, len(use.arguments))
        if state == self._drawn:
            return
        self._drawn = state
        set_words(self._server, f"of {use.server}" if use.server else "")
        set_words(self._state, describe_call(use))
        self._state.classes(replace=f"badge end {CALL_TONES.get(use.state, '')}")
        self._arguments.set_content(render_arguments(use.arguments))
        self._result.set_content(render_code(use.result) if use.result else "")
        self._result_title.set_visibility(bool(use.result))
        set_words(self._asked, f"Let the model call {use.name} of {use.server} with these arguments?")
        self._question.set_visibility(use.state is CallState.ASKED)
        if use.state is CallState.ASKED:
            self._panel.set_value(True)

    def _button(self, label: str, decision: Decision) -> None:
        button(label, lambda: self._decide(self._use, decision), look="main" if decision is Decision.ONCE else "")
