"""mlx-manager profile: the settings of one model on a running server, shown and changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from mlx_manager.catalog import MODEL_SETTINGS, load_settings, render_override
from mlx_manager.cli.flags import with_settings
from mlx_manager.cli.models import print_json, print_table
from mlx_manager.errors import InvalidRequest


@with_settings("home", "host", "port")
def profile(
    *,
    model: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, or an alias.")],
    change: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE", help="What is to hold for it from now on; a list has commas between."),
    ] = [],  # noqa: B006
    unset: Annotated[
        list[str],
        typer.Option(metavar="KEY", help="Goes back to what config.toml or the server says; may be repeated."),
    ] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **flags: object,
) -> None:
    """Show the settings of one model on a running server, or change some; they outlive a restart of it."""
    # help needs no HTTP client
    from mlx_manager.cli.remote import RemoteServer  # noqa: PLC0415

    values = _read_changes(change, unset)
    server = RemoteServer(load_settings(os.environ, flags))
    shown = server.model(model)
    late: list[str] = []
    if values:
        changed = server.change(shown["id"], values)
        shown, late = changed["model"], changed["after_next_load"]
    said: dict[str, Any] = shown["settings"]
    if as_json:
        print_json({"id": shown["id"], "settings": said, "after_next_load": late})
        return
    rows = [row for row in MODEL_SETTINGS if not values or row.name in values]
    print_table(
        ("setting", "value", "takes", "what it does"),
        [
            (row.name, render_override(said.get(row.name)) or "-", "|".join(row.choices) or row.type, row.help)
            for row in rows
        ],
    )
    if late:
        print(f"\nAfter the next load of {shown['id']}: {', '.join(late)}.")


def _read_changes(changes: Sequence[str], unset: Sequence[str]) -> dict[str, str | None]:
    """Values by setting, None for what is to go. Raises `InvalidRequest`; what a value may be, the server knows."""
    values: dict[str, str | None] = {}
    for text in changes:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidRequest(f"A change is KEY=VALUE, as in temperature=0.7, not {text!r}.", param="change")
        if not value.strip():
            raise InvalidRequest(f"{name}= says no value. To take what it says away: --unset {name}", param=name)
        if name in values:
            raise InvalidRequest(f"{name} is said twice.", param=name)
        values[name] = value
    for name in unset:
        if name in values:
            raise InvalidRequest(f"{name} is set and unset at once.", param=name)
        values[name] = None
    return values
