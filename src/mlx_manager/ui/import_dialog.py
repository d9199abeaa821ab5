"""Importing a GGUF file of this machine: found ones are offered, any other by its path."""

from __future__ import annotations

from pathlib import Path

from nicegui import ui

from mlx_manager.errors import MlxManagerError
from mlx_manager.hub.desk import HubDesk
from mlx_manager.hub.foreign import ForeignModel
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import box, button, dialog, note, set_words, tell, text
from mlx_manager.ui.imports import Import
from mlx_manager.ui.recording import actor_here, record
from mlx_manager.ui.words import render_size


async def import_dialog(console: Console) -> None:
    """Opens the dialog; the import goes on when it is closed, as a tile among the downloads."""
    hub = console.need_hub()
    running: list[Import] = []
    with dialog("Import a GGUF") as opened:
        text(
            "A GGUF file of the Llama family becomes an ordinary MLX model folder, its quantization kept. The file "
            "stays as it is.",
            "soft",
            "p",
        )
        source = ui.input("Path of the file on the server").props("outlined dense")
        found_place = box("stack")
        name = ui.input("Name of the new model").props("outlined dense bottom-slots")
        name.props["hint"] = "Letters, digits, . _ - and one / inside."
        force = ui.checkbox("Replace a model of that name").props("dense")
        problem = box()
        bar = ui.linear_progress(0, show_value=False, size="8px").props('rounded aria-label="Import"')
        stage = text("", "soft small", "p")
        bar.set_visibility(False)
        with box("dialog-foot"):
            button("Close", opened.close)
            start = button("Import", look="main")

    def show_progress() -> None:
        if running:
            bar.set_value(round(running[0].fraction, 3))
            set_words(stage, running[0].stage)

    async def run() -> None:
        actor = actor_here()
        problem.clear()
        start.disable()
        bar.set_visibility(True)
        made = Import(name.value or "")
        running[:] = [made]
        try:
            entry = await console.imports.run(hub, made, Path(source.value or ""), force=bool(force.value))
        except MlxManagerError as error:
            if not problem.is_deleted:
                # told here, so no tile is needed
                console.imports.dismiss(made)
                with problem:
                    note(error.message, "bad")
            return
        finally:
            if not opened.is_deleted:
                start.enable()
                bar.set_visibility(False)
        record(console, "model.import", entry.name, {"force": bool(force.value)}, actor=actor)
        console.pulse.look(is_fresh=True)
        if not opened.is_deleted:
            tell(f"{entry.name} is imported.", "positive")
            opened.close()

    start.on_click(run)
    with opened:
        ui.timer(0.5, show_progress)
    await _offer_found(hub, found_place, source, name)


async def _offer_found(hub: HubDesk, place: ui.element, source: ui.input, name: ui.input) -> None:
    found = await hub.find_importable()
    if found and not place.is_deleted:
        with place:
            text("Found on this machine", "soft small", "p")
            for model in found[:8]:
                _offer(model, source, name)


def _offer(model: ForeignModel, source: ui.input, name: ui.input) -> None:
    def choose() -> None:
        source.set_value(model.path)
        name.set_value(model.suggested_name)

    button(f"{model.name} · {model.program} · {render_size(model.size_bytes)}", choose, look="tiny")
