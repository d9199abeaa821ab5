"""Where `make clients` puts the clients, and how a test runs one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parents[3] / "build" / "clients"
SCRIPTS = Path(__file__).parent / "scripts"
_PATIENCE_S = 180


def program(*parts: str) -> Path:
    """A program that a client brought; the test is skipped where it is not there."""
    found = CLIENTS.joinpath(*parts)
    if not found.exists():
        pytest.skip(f"{'/'.join(parts)} is not installed: make clients")
    return found


def run(command: list[str | Path], folder: Path, **variables: str) -> str:
    """What a client prints, run to its end in `folder`, which is its home as well; it must not fail."""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("MLX_MANAGER_", "LD_PRELOAD"))}
    path = os.pathsep.join([str(CLIENTS / "node" / "node_modules" / ".bin"), os.environ["PATH"]])
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=quiet | {"HOME": str(folder), "PATH": path} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
