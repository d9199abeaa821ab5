"""mlx-manager unload: a running server unloads a model."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mlx_manager.catalog import load_settings
from mlx_manager.cli.flags import with_settings


@with_settings("home", "host", "port")
def unload(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, or an alias.")], **flags: object
) -> None:
    """Unload a model from a running server; its requests are answered first."""
    # help needs no HTTP client
    from mlx_manager.cli.remote import RemoteServer  # noqa: PLC0415

    status = RemoteServer(load_settings(os.environ, flags)).tell(model, "unload")
    if status["state"] == "failed":
        print(f"{status['id']} is not loaded: its last load failed.")
        return
    print(f"{status['id']} is {'unloaded' if status['state'] == 'cold' else status['state']}.")
