"""MLX Manager: one local inference server for every MLX model on a Mac."""

__version__ = "0.1.0"
