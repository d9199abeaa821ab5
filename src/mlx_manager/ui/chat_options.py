"""The parameters of a chat as a panel of fields, and the tools that it may use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from nicegui import ui

from mlx_manager.tools import Toolbox
from mlx_manager.ui.chat_parameters import ChatParameters
from mlx_manager.ui.elements import box, button, set_words, text

_THINKING = {"": "as the model does", "on": "think first", "off": "do not think"}
_IS_THINKING = {"on": True, "off": False}


class ChatOptions:
    """Drawn where it is made. Empty fields leave it to the model's profile, then to the server."""

    def __init__(self, toolbox: Toolbox, on_change: Callable[[], None], on_ask_again: Callable[[], None]) -> None:
        self._toolbox = toolbox
        self._on_change = on_change
        self._is_filling = False
        text("Empty fields follow the model's profile.", "soft small", "p")
        self._system_prompt = ui.textarea("System prompt").props("outlined dense autogrow debounce=300")
        with box("form-grid"):
            self._numbers = {
                "temperature": _number("Temperature", 0, 2, 0.1),
                "top_p": _number("Top p", 0, 1, 0.05),
                "top_k": _number("Top k", 0, 100_000, 1),
                "min_p": _number("Min p", 0, 1, 0.05),
                "max_tokens": _number("Longest answer, tokens", 1, 10_000_000, 1),
                "seed": _number("Seed", 0, 2**31 - 1, 1),
            }
            self._thinking = ui.select(_THINKING, value="", label="Thinking").props("outlined dense options-dense")
        for field in (self._system_prompt, self._thinking, *self._numbers.values()):
            field.on_value_change(self._note_change)
        text("Tools", tag="h2")
        text("The model may call those that are chosen. You are asked before each call.", "soft small", "p")
        self._tools: dict[str, ui.checkbox] = {}
        self._drawn: tuple[tuple[str, ...], ...] | None = None
        self._place = box("stack")
        with box("row-line") as self._allowed:
            self._allowed_words = text("", "soft small grow")
            button("Ask again", on_ask_again, look="tiny")

    def read(self, before: ChatParameters) -> ChatParameters:
        """What was chosen; fields that are out of bounds are red and count as empty."""
        numbers: dict[str, Any] = {name: _value(field, name) for name, field in self._numbers.items()}
        return msgspec.structs.replace(
            before,
            system_prompt=self._system_prompt.value or "",
            is_thinking=_IS_THINKING.get(self._thinking.value),
            tool_servers=tuple(name for name, chosen in self._tools.items() if chosen.value),
            **numbers,
        )

    def show(self, chosen: ChatParameters) -> None:
        """Fill the fields."""
        self._is_filling = True
        self._draw_tools(chosen)
        self._system_prompt.set_value(chosen.system_prompt)
        for name, field in self._numbers.items():
            field.set_value(getattr(chosen, name))
        words = {value: word for word, value in _IS_THINKING.items()}
        self._thinking.set_value("" if chosen.is_thinking is None else words[chosen.is_thinking])
        self._is_filling = False

    def update(self, chosen: ChatParameters) -> None:
        """Show the tool servers that there are now, and what is allowed by now."""
        if self._drawn != self._wanted(chosen):
            self._draw_tools(chosen)

    def _note_change(self) -> None:
        if not self._is_filling:
            self._on_change()

    def _wanted(self, chosen: ChatParameters) -> tuple[tuple[str, ...], ...]:
        names = tuple(server.name for server in self._toolbox.servers)
        # what was chosen and is gone is shown, so that it can be taken out
        return (tuple(dict.fromkeys([*names, *chosen.tool_servers])), chosen.allowed_tools)

    def _draw_tools(self, chosen: ChatParameters) -> None:
        self._drawn = names, allowed = self._wanted(chosen)
        self._place.clear()
        with self._place:
            self._tools = {name: ui.checkbox(name, value=name in chosen.tool_servers) for name in names}
        for one in self._tools.values():
            one.props("dense").on_value_change(self._note_change)
        set_words(self._allowed_words, f"Without asking: {', '.join(allowed)}")
        self._allowed.set_visibility(bool(allowed))


def _number(label: str, least: float, most: float, step: float) -> ui.number:
    def check(value: float | None) -> str | None:
        return None if value is None or least <= value <= most else f"From {least:g} to {most:g}."

    return ui.number(label, step=step, validation=check).props("outlined dense hide-bottom-space")


def _value(field: ui.number, name: str) -> float | int | None:
    if field.value is None or not field.validate(return_result=True):
        return None
    return int(field.value) if name in ("top_k", "max_tokens", "seed") else float(field.value)
