"""mlx-manager pull: the flags. What it does is in `pulling`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mlx_manager.catalog import load_settings
from mlx_manager.cli.flags import with_settings


@with_settings("hf_token")
def pull(
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="A model on the hub.")],
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit; otherwise the default.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Fetch only files that match; may be repeated.")
    ] = None,
    **flags: object,
) -> None:
    """Download a model into the cache that all tools of Hugging Face's share. Ctrl-C pauses it."""
    # asyncio and rich: help needs neither
    from mlx_manager.cli.pulling import pull_model  # noqa: PLC0415

    pull_model(load_settings(os.environ, flags), name, revision, tuple(include or ()))
