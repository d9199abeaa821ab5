"""Prints the library that workers preload on this machine, or nothing: `LD_PRELOAD="$(python -m tools.blas)" …`."""

from __future__ import annotations

import os

from mlx_manager.pool import worker_environment

if __name__ == "__main__":
    print(worker_environment(os.environ).get("LD_PRELOAD", ""), end="")
