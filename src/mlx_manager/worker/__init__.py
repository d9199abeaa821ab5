"""A worker process: one model, its own MLX. `python -m mlx_manager.worker --socket ADDRESS`, started by the pool."""
