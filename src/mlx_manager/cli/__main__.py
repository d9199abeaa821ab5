"""`python -m mlx_manager.cli` is `mlx-manager`."""

from mlx_manager.cli.main import main

if __name__ == "__main__":
    main()
