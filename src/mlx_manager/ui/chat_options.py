"""The parameters of a chat: a panel of fields, and what they make of a request."""

from __future__ import annotations

from nicegui import ui

from mlx_manager.ir import Sampling, Thinking
from mlx_manager.ui.elements import box, text

_THINKING = {"": "as the model does", "on": "think first", "off": "do not think"}


class ChatOptions:
    """Drawn where it is made. Empty fields leave it to the model's profile, then to the server."""

    def __init__(self) -> None:
        text("Parameters", tag="h2")
        text("Empty fields follow the model's profile.", "soft small", "p")
        self.system_prompt = ui.textarea("System prompt").props("outlined dense autogrow")
        with box("form-grid"):
            self._temperature = _number("Temperature", 0, 2, 0.1)
            self._top_p = _number("Top p", 0, 1, 0.05)
            self._top_k = _number("Top k", 0, 100_000, 1)
            self._min_p = _number("Min p", 0, 1, 0.05)
            self._max_tokens = _number("Longest answer, tokens", 1, 10_000_000, 1)
            self._seed = _number("Seed", 0, 2**31 - 1, 1)
            self._thinking = ui.select(_THINKING, value="", label="Thinking").props("outlined dense options-dense")

    def sampling(self) -> Sampling:
        """What was chosen; fields that are out of bounds are red and count as empty."""
        max_tokens, top_k, seed = (_value(field) for field in (self._max_tokens, self._top_k, self._seed))
        return Sampling(
            temperature=_value(self._temperature),
            top_p=_value(self._top_p),
            min_p=_value(self._min_p),
            top_k=None if top_k is None else int(top_k),
            max_tokens=None if max_tokens is None else int(max_tokens),
            seed=None if seed is None else int(seed),
        )

    def thinking(self) -> Thinking:
        """Whether the model is to think."""
        return Thinking(is_enabled={"on": True, "off": False}.get(self._thinking.value))


def _number(label: str, least: float, most: float, step: float) -> ui.number:
    def check(value: float | None) -> str | None:
        return None if value is None or least <= value <= most else f"From {least:g} to {most:g}."

    return ui.number(label, step=step, validation=check).props("outlined dense hide-bottom-space")


def _value(field: ui.number) -> float | None:
    return field.value if field.validate(return_result=True) else None
