"""mlx-manager follow: this machine is one rank of a model that is split over several."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from mlx_manager.catalog import load_settings
from mlx_manager.cli.flags import with_settings

_PAUSE_S = 1.0
_MISUSED = 2
"""What the follower ends with where another try would end the same way."""


@with_settings("home", "scan_folders")
def follow(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, or a folder: the same as at rank 0.")],
    hostfile: Annotated[
        Path,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="The host file of the ring; the same on all machines."
        ),
    ],
    rank: Annotated[int, typer.Option(min=1, help="Which of the hosts this is, counted from 0; 0 is the server.")],
    **flags: object,
) -> None:
    """Follow a server that has split a model over several machines, until interrupted."""
    # the pool and the hub take a moment to import
    from mlx_manager.cli.disk import local_inventory  # noqa: PLC0415
    from mlx_manager.pool import worker_environment  # noqa: PLC0415

    folder = local_inventory(load_settings(os.environ, flags)).find(model).path
    command = [sys.executable, "-P", "-m", "mlx_manager.worker.follow", folder]
    print(f"Rank {rank} waits for the server. Ctrl-C ends it.", flush=True)
    try:
        while True:
            # a process can join the ring once: each session of the server has one of its own
            ended = subprocess.run(
                [*command, "--hostfile", str(hostfile), "--rank", str(rank)],
                env=worker_environment(os.environ),
                check=False,
            )
            if ended.returncode == _MISUSED:
                raise typer.Exit(1)
            time.sleep(_PAUSE_S)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
