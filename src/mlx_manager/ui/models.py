"""Models: those on this machine, those on the hub, and the downloads between the two."""

from __future__ import annotations

from nicegui import ui
from starlette.requests import Request

from mlx_manager.ui.console import console_of
from mlx_manager.ui.downloads import DownloadTiles
from mlx_manager.ui.elements import box, button, empty_state, text
from mlx_manager.ui.frame import frame
from mlx_manager.ui.import_dialog import import_dialog
from mlx_manager.ui.models_hub import HubView
from mlx_manager.ui.models_local import LocalView
from mlx_manager.ui.paths import MODELS


def models_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    with frame(console, request, MODELS):
        with box("page-head"):
            text("Models", "grow", "h1")
            if console.hub is not None:
                button("Import a GGUF", lambda: import_dialog(console), icon="file_open")
        if console.hub is None:
            empty_state("inventory_2", "No models of its own", "This server passes requests on and keeps no models.")
            return
        downloads = DownloadTiles(console)
        with ui.tabs().props("align=left no-caps dense inline-label") as tabs:
            here = ui.tab("On this machine")
            hub = ui.tab("Hugging Face")
        with ui.tab_panels(tabs, value=here).props("animated=false keep-alive"):
            with ui.tab_panel(here):
                local = LocalView(console)
            with ui.tab_panel(hub):
                found = HubView(console, on_download=downloads.update)

    def update_downloads() -> None:
        downloads.update()
        found.update()

    downloads.update()
    local.update()
    ui.timer(1.0, update_downloads)
    ui.timer(2.0, local.update)
