"""What is on disk: the inventory of model folders, GGUF files imported into it, the starter model, and what a
model will take of memory."""

from mlx_manager.hub.fit import predict_footprint
from mlx_manager.hub.footprint import Footprint
from mlx_manager.hub.gguf_import import import_gguf
from mlx_manager.hub.inventory import Inventory
from mlx_manager.hub.starter import (
    EMBEDDING_NAME,
    STARTER_NAME,
    ensure_starter,
    fetch_embedding_model,
    link_embedding_model,
)

__all__ = [
    "EMBEDDING_NAME",
    "STARTER_NAME",
    "Footprint",
    "Inventory",
    "ensure_starter",
    "fetch_embedding_model",
    "import_gguf",
    "link_embedding_model",
    "predict_footprint",
]
