"""Asking a running server from the command line, through its admin routes."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from mlx_manager.catalog import Settings
from mlx_manager.cli.watching import base_url
from mlx_manager.errors import MlxManagerError, ModelNotFound, Unavailable
from mlx_manager.storage.private_files import read_local_token

_PATIENCE_S = 60.0


class RemoteServer:
    """The server on the address of the settings. Raises `Unavailable` where none answers, and what it refuses."""

    def __init__(self, settings: Settings) -> None:
        self.base = base_url(settings.host, settings.port)
        # the key of whoever runs the command, else what the server of this home left for its own user
        self.token = os.environ.get("MLX_MANAGER_API_KEY") or read_local_token(settings.home)
        # no proxy stands between a command and its own machine
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def models(self) -> list[dict[str, Any]]:
        """How its models stand."""
        models: list[dict[str, Any]] = self.ask("GET", "/admin/models")["models"]
        return models

    def model(self, name: str) -> dict[str, Any]:
        """One of them."""
        return self.ask("GET", f"/admin/models/{urllib.parse.quote(name)}")

    def tell(self, name: str, action: str) -> dict[str, Any]:
        """Load or unload a model; how it stands then."""
        return self.ask("POST", f"/admin/models/{urllib.parse.quote(name)}/{action}")

    def change(self, name: str, values: Mapping[str, object]) -> dict[str, Any]:
        """Change settings of a model, by name; how it stands then, and which settings wait for its next load."""
        return self.ask("PATCH", f"/admin/models/{urllib.parse.quote(name)}", values)

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """The JSON object that the server answers."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        sent = None
        if body is not None:
            sent = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(f"{self.base}{path}", sent, headers, method=method)
        try:
            with self._opener.open(request, timeout=_PATIENCE_S) as answer:
                answered = json.load(answer)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from None
        except (OSError, ValueError):
            raise Unavailable(
                f"No MLX Manager answers on {self.base}. Start one with mlx-manager serve, or say where it is with "
                "--host and --port."
            ) from None
        if not isinstance(answered, dict):
            raise Unavailable(f"What answers on {self.base} is no MLX Manager.")
        return answered


def _refusal(error: urllib.error.HTTPError) -> MlxManagerError:
    try:
        message = str(json.load(error)["error"]["message"])
    except (OSError, ValueError, KeyError, TypeError):
        message = f"The server answered {error.code} {error.reason}."
    return ModelNotFound(message) if error.code == ModelNotFound.status else MlxManagerError(message)
