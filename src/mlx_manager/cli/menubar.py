"""mlx-manager menubar: the running server in the menu bar of macOS. An optional extra: it needs rumps."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlx_manager.catalog import load_settings, render_size
from mlx_manager.cli.flags import with_settings
from mlx_manager.errors import MlxManagerError, Unavailable

_PERIOD_S = 5.0


@with_settings("home", "host", "port")
def menubar(**flags: object) -> None:
    """Show in the menu bar of macOS what the running server has in memory; needs pip install 'mlx-manager[menubar]'."""
    if sys.platform != "darwin":
        raise Unavailable("The menu bar helper is for macOS; mlx-manager ps shows the same in a terminal.")
    try:
        import rumps  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError:
        raise Unavailable("The menu bar helper needs one more package: pip install 'mlx-manager[menubar]'") from None
    # help needs no HTTP client
    from mlx_manager.cli.remote import RemoteServer  # noqa: PLC0415

    server = RemoteServer(load_settings(os.environ, flags))
    app = rumps.App("MLX Manager", title="MLX")

    def refresh(_: object) -> None:
        try:
            models = server.models()
        except MlxManagerError:
            models = None
        app.title = title(models)
        app.menu.clear()
        app.menu = [rumps.MenuItem(line.text, callback=_action(line)) for line in lines(models, server)] + [
            None,
            rumps.MenuItem("Open the console", callback=lambda _: webbrowser.open(server.base)),
            rumps.MenuItem("Quit", callback=rumps.quit_application),
        ]

    rumps.Timer(refresh, _PERIOD_S).start()
    app.run()


@dataclass(frozen=True)
class Line:
    """One line of the menu, and what choosing it does; None: nothing."""

    text: str
    act: Callable[[], object] | None = None


def title(models: list[dict[str, Any]] | None) -> str:
    """What stands in the menu bar; None: no server answers."""
    if models is None:
        return "MLX –"
    num_requests = sum(model["num_in_flight"] for model in models)
    return f"MLX {num_requests}" if num_requests else "MLX"


def lines(models: list[dict[str, Any]] | None, server: Any) -> list[Line]:
    """A line for each model in memory; choosing one that is idle unloads it through `server.tell`."""
    if models is None:
        return [Line("No server is running")]
    warm = [model for model in models if model["state"] != "cold"]
    return [_line(model, server) for model in warm] or [Line("No model is in memory")]


def _line(model: dict[str, Any], server: Any) -> Line:
    name = model["id"]
    if model["state"] == "ready" and not model["num_in_flight"]:
        return Line(f"Unload {name} ({render_size(model['planned_bytes'])})", lambda: server.tell(name, "unload"))
    what = f"{model['num_in_flight']} requests" if model["num_in_flight"] else model["state"]
    return Line(f"{name}: {what}")


def _action(line: Line) -> Callable[[object], object] | None:
    act = line.act
    return None if act is None else lambda _: act()
