"""MLX Manager: one local inference server for every MLX model on a Mac."""

import os

__version__ = "0.1.0"

# Logfire hooks itself into pydantic, which imports it at once: that would double the time of the gateway's start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "logfire-plugin")
