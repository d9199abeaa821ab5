"""Who asks, and what they may: passwords, sessions, API keys and their limits."""

from mlx_manager.auth.door import Credentials, Door
from mlx_manager.auth.keys import Keys, MintedKey
from mlx_manager.auth.limits import Allowance, KeyMeter
from mlx_manager.auth.people import Login, People

__all__ = ["Allowance", "Credentials", "Door", "KeyMeter", "Keys", "Login", "MintedKey", "People"]
