"""mlx-manager load: a running server loads a model."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from mlx_manager.catalog import load_settings
from mlx_manager.cli.flags import with_settings
from mlx_manager.errors import ModelLoadFailed

_POLL_S = 0.2


@with_settings("home", "host", "port")
def load(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, or an alias.")], **flags: object
) -> None:
    """Load a model into a running server, and wait until it can answer."""
    # help needs neither an HTTP client nor rich
    from mlx_manager.cli.progress import ProgressLines  # noqa: PLC0415
    from mlx_manager.cli.remote import RemoteServer  # noqa: PLC0415

    server = RemoteServer(load_settings(os.environ, flags))
    began_s = time.monotonic()
    status = server.tell(model, "load")
    with ProgressLines(f"Loading {status['id']}") as progress:
        while status["state"] == "loading":
            progress(status["stage"] or "loading", status["fraction"])
            time.sleep(_POLL_S)
            status = server.model(status["id"])
    if status["state"] != "ready":
        reason = status["error"]["message"] if status["error"] else "it was unloaded meanwhile."
        raise ModelLoadFailed(f"{status['id']} is {status['state']}: {reason}")
    print(f"{status['id']} is ready after {time.monotonic() - began_s:.1f} s.")
