"""The limits of an account in a form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from mlx_manager.catalog import KeyLimits, User
from mlx_manager.errors import InvalidRequest
from mlx_manager.ui.elements import box, button, complaining, dialog, text
from mlx_manager.ui.fields import clear_errors, dress, read_number, show_error


def open_limits(user: User, save: Callable[[KeyLimits], Awaitable[None]]) -> None:
    """Ask for the limits of `user`, and hand them to `save`, which may raise `MlxManagerError`."""
    said = user.limits
    with dialog(f"Limits of {user.name}") as opened:
        text("They hold for all of the account's API keys and sessions together. Empty: no limit.", "soft", "p")
        fields: dict[str, ui.input] = {
            "requests_per_minute": ui.input("Requests a minute", value=_written(said.requests_per_minute)),
            "tokens_per_day": ui.input("Tokens a day", value=_written(said.tokens_per_day)),
            "budget_usd_per_month": ui.input("US dollars a month", value=_written(said.budget_usd_per_month)),
            "models": ui.input("Models", value=", ".join(said.models)),
        }
        hints = {
            "budget_usd_per_month": "for answers of providers",
            "models": "names as they are asked for, with commas",
        }
        for name, field in fields.items():
            dress(field, hints.get(name, ""))
        stays = ui.checkbox("Nothing leaves this machine", value=said.is_local_only).props("dense")

        async def keep() -> None:
            clear_errors(fields)
            with complaining():
                try:
                    await save(_read(fields, is_local_only=bool(stays.value)))
                    opened.close()
                except InvalidRequest as error:
                    named = InvalidRequest(error.message, param=(error.param or "").removeprefix("limits."))
                    show_error(fields, named, "models")

        with box("dialog-foot"):
            button("Cancel", opened.close)
            button("Keep", keep, look="main")


def _read(fields: dict[str, ui.input], *, is_local_only: bool) -> KeyLimits:
    names = str(fields["models"].value or "").split(",")
    return KeyLimits(
        models=tuple(name.strip() for name in names if name.strip()),
        requests_per_minute=_whole(fields["requests_per_minute"], "requests_per_minute"),
        tokens_per_day=_whole(fields["tokens_per_day"], "tokens_per_day"),
        budget_usd_per_month=read_number(fields["budget_usd_per_month"], "budget_usd_per_month"),
        is_local_only=is_local_only,
    )


def _written(number: float | None) -> str:
    return "" if number is None else f"{number:.15g}"


def _whole(field: ui.input, name: str) -> int | None:
    number = read_number(field, name)
    if number is not None and number != int(number):
        raise InvalidRequest(f"{number:g} is no whole number.", param=name)
    return None if number is None else int(number)
