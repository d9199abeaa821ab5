"""What is on disk: the inventory of model folders, GGUF files imported into it, the starter model, and what a
model will take of memory."""

from mlx_manager.hub.fit import predict_footprint
from mlx_manager.hub.footprint import Footprint
from mlx_manager.hub.gguf_import import import_gguf
from mlx_manager.hub.inventory import Inventory
from mlx_manager.hub.starter import STARTER_NAME, ensure_starter

__all__ = ["STARTER_NAME", "Footprint", "Inventory", "ensure_starter", "import_gguf", "predict_footprint"]
