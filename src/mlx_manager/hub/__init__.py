"""What is on disk: the inventory of model folders, GGUF files imported into it, and the starter model."""

from mlx_manager.hub.gguf_import import import_gguf
from mlx_manager.hub.inventory import Inventory
from mlx_manager.hub.starter import STARTER_NAME, ensure_starter

__all__ = ["STARTER_NAME", "Inventory", "ensure_starter", "import_gguf"]
