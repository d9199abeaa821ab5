"""What the operator configured: the settings table, the models to serve, and how to serve them."""

from mlx_manager.catalog.model import LoadOptions, ModelEntry

__all__ = ["LoadOptions", "ModelEntry"]
