"""mlx-manager rm: a model taken off the disk."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mlx_manager.catalog import load_settings, render_size
from mlx_manager.cli.flags import with_settings


@with_settings("home", "scan_folders")
def rm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, as `mlx-manager models` lists it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    **flags: object,
) -> None:
    """Delete a model from home or from the cache of the hub."""
    # the hub's client is not cheap, and help needs none of it
    from mlx_manager.cli.disk import local_inventory  # noqa: PLC0415
    from mlx_manager.hub.access import default_access  # noqa: PLC0415
    from mlx_manager.hub.removal import find_removable, remove  # noqa: PLC0415

    settings = load_settings(os.environ, flags)
    found = find_removable(local_inventory(settings), default_access(None), name)
    if not yes and not typer.confirm(f"Delete {found.folder} ({render_size(found.size_bytes)})?"):
        print("Nothing was deleted.")
        raise typer.Exit(1)
    remove(found)
    print(f"Deleted {name}: {render_size(found.size_bytes)} are free again.")
