"""mlx-manager serve: the flags. What it does is in `serving`."""

from __future__ import annotations

import os
import sys

from mlx_manager.catalog import load_settings, unknown_variables
from mlx_manager.cli.flags import with_settings


@with_settings()
def serve(**flags: object) -> None:
    """Serve models over HTTP until interrupted."""
    settings = load_settings(os.environ, flags)
    for sentence in unknown_variables(os.environ):
        print(f"warning: {sentence}", file=sys.stderr)
    # FastAPI, uvicorn and httpx take most of a second
    from mlx_manager.cli.serving import run_server  # noqa: PLC0415

    run_server(settings, lambda: load_settings(os.environ, flags))
