"""Forms: fields of one look, and errors of ours shown on the field that they name."""

from __future__ import annotations

from collections.abc import Mapping

from nicegui import ui

from mlx_manager.errors import InvalidRequest


def dress(field: ui.element, hint: str = "") -> None:
    """Give a field the look that all have, with room for an error under it."""
    field.props("outlined dense bottom-slots")
    if hint:
        field.props["hint"] = hint


def clear_errors(fields: Mapping[str, ui.element]) -> None:
    """Before a form is looked at again."""
    for field in fields.values():
        field.props(remove="error error-message")


def show_error(fields: Mapping[str, ui.element], error: InvalidRequest, otherwise: str) -> None:
    """Under the field that the error is about; under `otherwise` where it names none of these."""
    param = error.param or ""
    name = param if param in fields else param.partition(".")[0]
    field = fields.get(name) or fields[otherwise]
    field.props["error"] = True
    field.props["error-message"] = error.message
    field.run_method("focus")


def read_number(field: ui.input, name: str, *, least: float = 0.0) -> float | None:
    """The number in a text field, None where it is empty. Raises `InvalidRequest`."""
    words = str(field.value or "").strip()
    if not words:
        return None
    try:
        number = float(words)
    except ValueError:
        number = float("nan")
    if not least <= number < float("inf"):
        raise InvalidRequest(f"{words!r} is no number from {least:g} on.", param=name)
    return number
