"""The command line: `mlx-manager`."""

from mlx_manager.cli.main import main

__all__ = ["main"]
