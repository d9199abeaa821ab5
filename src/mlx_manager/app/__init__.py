"""The composition root: settings in, an ASGI app or a running server out."""

from mlx_manager.app.access import check_database
from mlx_manager.app.app import create_app
from mlx_manager.app.parts import Parts, PartsFactory, local_parts
from mlx_manager.app.server import build_server

__all__ = ["Parts", "PartsFactory", "build_server", "check_database", "create_app", "local_parts"]
