"""The parameters of a chat as a panel of fields."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from mlx_manager.ui.chat_parameters import ChatParameters
from mlx_manager.ui.elements import box, text

_THINKING = {"": "as the model does", "on": "think first", "off": "do not think"}
_IS_THINKING = {"on": True, "off": False}


class ChatOptions:
    """Drawn where it is made. Empty fields leave it to the model's profile, then to the server."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        text("Parameters", tag="h2")
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
            field.on_value_change(on_change)

    def read(self) -> ChatParameters:
        """What was chosen; fields that are out of bounds are red and count as empty."""
        numbers = {name: _value(field, name) for name, field in self._numbers.items()}
        return ChatParameters(
            system_prompt=self._system_prompt.value or "",
            is_thinking=_IS_THINKING.get(self._thinking.value),
            **numbers,  # type: ignore[arg-type]
        )

    def show(self, chosen: ChatParameters) -> None:
        """Fill the fields."""
        self._system_prompt.set_value(chosen.system_prompt)
        for name, field in self._numbers.items():
            field.set_value(getattr(chosen, name))
        words = {value: word for word, value in _IS_THINKING.items()}
        self._thinking.set_value(words.get(chosen.is_thinking, "") if chosen.is_thinking is not None else "")


def _number(label: str, least: float, most: float, step: float) -> ui.number:
    def check(value: float | None) -> str | None:
        return None if value is None or least <= value <= most else f"From {least:g} to {most:g}."

    return ui.number(label, step=step, validation=check).props("outlined dense hide-bottom-space")


def _value(field: ui.number, name: str) -> float | int | None:
    if field.value is None or not field.validate(return_result=True):
        return None
    return int(field.value) if name in ("top_k", "max_tokens", "seed") else float(field.value)
