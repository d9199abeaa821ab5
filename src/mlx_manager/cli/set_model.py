"""mlx-manager set: settings of one model in a running server."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mlx_manager.catalog import MODEL_SETTINGS, load_settings
from mlx_manager.cli.flags import with_settings
from mlx_manager.errors import InvalidRequest


@with_settings("home", "host", "port")
def set_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, or an alias.")],
    said: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=VALUE", help="A setting; nothing behind the = goes back to config.toml's."),
    ] = None,
    **flags: object,
) -> None:
    """Change settings of one model in a running server; with none, show those that are set."""
    # help needs no HTTP client
    from mlx_manager.cli.remote import RemoteServer  # noqa: PLC0415

    values = dict(_parse(one) for one in said or ())
    server = RemoteServer(load_settings(os.environ, flags))
    name = server.model(model)["id"]
    late: list[str] = []
    if values:
        late = server.change(name, values)["after_next_load"]
    for key, value in server.model(name)["settings"].items():
        print(f"{key} = {', '.join(value) if isinstance(value, list) else value}")
    if late:
        print(f"After the next load of {name}: {', '.join(late)}.")


def _parse(said: str) -> tuple[str, str | None]:
    name, equals, value = said.partition("=")
    if not equals:
        names = ", ".join(row.name for row in MODEL_SETTINGS)
        raise InvalidRequest(f"{said!r} is no NAME=VALUE. The settings of a model are: {names}.")
    return name, value or None
