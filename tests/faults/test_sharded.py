"""One model split over two processes by MLX's own launcher: the same tokens as from one, and half the cache each."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlx_manager.pool import find_openblas

pytestmark = pytest.mark.faults
SCRIPT = Path(__file__).with_name("sharded_greedy.py")
NUM_TOKENS = 64
LAUNCHER = shutil.which("mlx.launch", path=str(Path(sys.executable).parent))


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has."""
    for first in range(41_000, 60_000, 100):
        try:
            for port in range(first, first + count):
                with socket.create_server(("127.0.0.1", port)):
                    pass
        except OSError:
            continue
        return first
    raise AssertionError("no ports are free")


def answer(folder: Path, num_ranks: int) -> dict[str, Any]:
    """What rank 0 prints."""
    blas = {"LD_PRELOAD": str(find_openblas() or ""), "OPENBLAS_NUM_THREADS": "1"}
    command = [str(SCRIPT), str(folder), str(NUM_TOKENS)]
    if num_ranks == 1:
        command = [sys.executable, *command]
    else:
        assert LAUNCHER is not None
        names = [flag for name, value in blas.items() for flag in ("--env", f"{name}={value}")]
        launch = [LAUNCHER, "-n", str(num_ranks), "--backend", "ring", "--starting-port", str(free_ports(num_ranks))]
        command = [*launch, *names, "--python", sys.executable, *command]
    ended = subprocess.run(
        command,
        env=os.environ | blas,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    lines = [line.partition("RESULT ")[2] for line in ended.stdout.splitlines() if "RESULT " in line]
    assert len(lines) == 1, ended.stdout + ended.stderr
    result: dict[str, Any] = json.loads(lines[0])
    assert result["ranks"] == num_ranks
    return result


@pytest.mark.skipif(LAUNCHER is None, reason="mlx.launch is not installed")
def test_two_ranks_say_what_one_says(tiny_folder: Path) -> None:
    alone, split = answer(tiny_folder, 1), answer(tiny_folder, 2)
    assert split["tokens"] == alone["tokens"]
    assert len(set(alone["tokens"])) > 5
    assert split["kv_bytes"] * 2 == alone["kv_bytes"]
