"""Pool: the models in memory, what they hold and do, loading and unloading them, and what was evicted."""

from __future__ import annotations

import time
from collections.abc import Callable

from nicegui import ui
from starlette.requests import Request

from mlx_manager.pool import Eviction, EvictionReason, ModelState
from mlx_manager.ui.console import Console, console_of
from mlx_manager.ui.elements import box, button, complaining, empty_state, set_words, tell, text
from mlx_manager.ui.frame import frame
from mlx_manager.ui.memory_bar import MemoryBar
from mlx_manager.ui.paths import POOL
from mlx_manager.ui.pool_tile import PoolTile
from mlx_manager.ui.pulse import Beat
from mlx_manager.ui.recording import record
from mlx_manager.ui.words import render_age, render_duration, render_size


def pool_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    with frame(console, request, POOL):
        text("Pool", tag="h1")
        if console.pool is None:
            empty_state("memory", "No models of its own", "This server passes requests on: nothing is loaded here.")
            return
        update_loader = _loader(console)
        with box("panel"):
            text("Memory budget", tag="h2")
            bar = MemoryBar()
        text("In memory", tag="h2")
        update_tiles = _tiles(console)
        with box("panel"):
            text("Unloaded lately", tag="h2")
            update_log = _eviction_log(console)

    def update() -> None:
        beat = console.pulse.look()
        bar.update(beat)
        update_loader(beat)
        update_tiles(beat)
        update_log()

    update()
    ui.timer(1.0, update)


def _loader(console: Console) -> Callable[[Beat], None]:
    """The selector of what is not in memory."""

    def load() -> None:
        if not selector.value:
            tell("Choose a model first.")
            return
        with complaining():
            console.need_pool().begin_load(selector.value)
            record(console, "model.load", selector.value)
            selector.set_value(None)
            console.pulse.look(is_fresh=True)

    with box("row-line"):
        selector = ui.select([], label="Model to load", with_input=True, clearable=True)
        selector.props("outlined dense options-dense").classes("grow").style("max-width: 460px")
        button("Load", load, icon="play_arrow", look="main")

    def update(beat: Beat) -> None:
        held = {status.entry.name for status in beat.in_memory}
        cold = [status.entry.name for status in beat.models if status.entry.name not in held]
        if selector.options != cold and not selector.is_showing_popup:
            selector.set_options(cold, value=selector.value if selector.value in cold else None)

    return update


def _tiles(console: Console) -> Callable[[Beat], None]:
    """A tile per model in memory, and per one that could not be loaded; kept while they change."""
    place = box("grid-tiles")
    nothing = empty_state(
        "bedtime", "No model is in memory", "Choose one above and load it, or send a request: that loads its model too."
    )
    tiles: dict[str, PoolTile] = {}

    def update(beat: Beat) -> None:
        shown = [status for status in beat.models if status.state is not ModelState.COLD]
        names = {status.entry.name for status in shown}
        for name in [name for name in tiles if name not in names]:
            tiles.pop(name).delete()
        for status in shown:
            if status.entry.name not in tiles:
                with place:
                    tiles[status.entry.name] = PoolTile(console, status)
            tiles[status.entry.name].update(status, beat.rates.get(status.entry.name))
        nothing.set_visibility(not shown)

    return update


_REASONS = {
    EvictionReason.ROOM: "made room",
    EvictionReason.TTL: "idle for too long",
    EvictionReason.PRESSURE: "the system ran short of memory",
    EvictionReason.BUDGET: "took more than planned",
    EvictionReason.ADMIN: "unloaded by hand",
}


def _eviction_log(console: Console) -> Callable[[], None]:
    place = box("scroll-x").props('tabindex="0" role="region" aria-label="Unloaded lately"')
    nothing = text("Nothing yet.", "soft", "p")
    drawn: list[Eviction] = []

    def update() -> None:
        evictions = console.need_pool().evictions()[:20]
        nothing.set_visibility(not evictions)
        if evictions == drawn:
            return
        drawn[:] = evictions
        place.clear()
        with place, box("plain", "table"):
            with box(tag="thead"), box(tag="tr"):
                for title in ("Model", "Why", "Freed", "When"):
                    text(title, tag="th")
            with box(tag="tbody"):
                for eviction in evictions:
                    _eviction_row(eviction)

    return update


def _eviction_row(eviction: Eviction) -> None:
    why = _REASONS[eviction.reason] + (f" for {eviction.for_model}" if eviction.for_model else "")
    with box(tag="tr"):
        text(eviction.model, tag="td")
        text(f"{why}, idle for {render_duration(eviction.idle_s)}", tag="td")
        text(render_size(eviction.freed_bytes) + (" of cache" if eviction.is_trim else ""), "num", "td")
        age = text(render_age(time.time() - eviction.unix_s), "num", "td")
        ui.timer(10.0, lambda: set_words(age, render_age(time.time() - eviction.unix_s)))
