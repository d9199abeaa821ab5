"""mlx-manager show: the flags. What it prints is in `showing`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mlx_manager.catalog import load_settings
from mlx_manager.cli.flags import with_settings


@with_settings("home", "hf_token", "scan_folders", "dtype", "kv_budget", "max_batch_size", "max_context")
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A model on this machine, its folder, or one on the hub.")
    ],
    revision: Annotated[str | None, typer.Option(help="Of a model on the hub: a branch, a tag or a commit.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    **flags: object,
) -> None:
    """Say what a model is like and whether it fits this machine; one on the hub before it is downloaded."""
    # the hub's client takes most of a second
    from mlx_manager.cli.showing import show_model  # noqa: PLC0415

    show_model(load_settings(os.environ, flags), name, revision, as_json=as_json)
