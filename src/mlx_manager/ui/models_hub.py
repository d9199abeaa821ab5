"""Models on Hugging Face: searched through the hub desk, opened, downloaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import msgspec
from nicegui import ui

from mlx_manager.catalog import ModelKind
from mlx_manager.errors import MlxManagerError
from mlx_manager.hub.download import DownloadRequest
from mlx_manager.hub.search import SORTS, SearchHit, SearchQuery, Sort
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import badge, box, button, complaining, empty_state, note, tell, text
from mlx_manager.ui.model_dialog import ModelDialog
from mlx_manager.ui.recording import record
from mlx_manager.ui.words import render_age, render_count, render_size

_PAGE_SIZE = 30
_SORT_TITLES = {
    "downloads": "Most downloaded",
    "likes": "Most liked",
    "updated": "Updated last",
    "created": "Newest",
    "trending": "Trending",
}


class HubView:
    """Nothing is asked of the hub until somebody searches."""

    def __init__(self, console: Console, *, on_download: Callable[[], None]) -> None:
        self._console = console
        self._on_download = on_download
        self._query = SearchQuery(limit=_PAGE_SIZE)
        with box("sticky-bar"):
            with box("row-line"):
                self._words = ui.input(placeholder="Search Hugging Face: a name, or part of one").classes("grow")
                self._words.props('outlined dense clearable aria-label="Search Hugging Face"')
                self._words.on("keydown.enter", self._search)
                with self._words.add_slot("prepend"):
                    ui.icon("search")
                button("Search", self._search, look="main")
            with box("row-line"):
                kinds = {"": "any kind", **{kind.value: kind.value for kind in ModelKind}}
                self._kind = ui.select(kinds, value="", label="Kind").props("outlined dense options-dense")
                titles = {sort: _SORT_TITLES[sort] for sort in SORTS}
                self._sort = ui.select(titles, value="downloads", label="Order").props("outlined dense options-dense")
                self._any_format = ui.checkbox("Also what is not made for MLX").props("dense")
        self._busy = ui.linear_progress(show_value=False, size="3px").props('indeterminate aria-label="Searching"')
        self._busy.set_visibility(False)
        self._results = box("list")
        self._more = button("Show more", self._show_more, icon="expand_more")
        self._more.set_visibility(False)
        with self._results:
            empty_state("travel_explore", "Search for a model", "An empty search lists what is downloaded most.")

    async def _search(self) -> None:
        kind = ModelKind(self._kind.value) if self._kind.value else None
        self._query = SearchQuery(
            text=self._words.value or "",
            kind=kind,
            sort=cast(Sort, self._sort.value),
            is_any_format=bool(self._any_format.value),
            limit=_PAGE_SIZE,
        )
        self._results.clear()
        await self._show()

    async def _show_more(self) -> None:
        self._query = msgspec.structs.replace(self._query, offset=self._query.offset + _PAGE_SIZE)
        await self._show()

    async def _show(self) -> None:
        self._more.set_visibility(False)
        self._busy.set_visibility(True)
        try:
            page = await self._console.need_hub().search(self._query)
        except MlxManagerError as error:
            with self._results:
                note(error.message, "bad")
            return
        finally:
            self._busy.set_visibility(False)
        with self._results:
            for hit in page.hits:
                self._row(hit)
            if not page.hits and not self._query.offset:
                empty_state(
                    "search_off", "Nothing found", "Try a shorter name, another kind, or what is not made for MLX."
                )
        self._more.set_visibility(page.has_more)

    def _row(self, hit: SearchHit) -> None:
        with box("row-item", "article") as row:
            row.props["aria-label"] = hit.id
            with box("stack grow").style("flex-basis: 300px; gap: 6px"):
                text(hit.id, "", "h3")
                with box("row-line"):
                    _hit_badges(hit)
            with box("row-line end"):
                button(
                    "Details",
                    lambda: ModelDialog(self._console, hit.id, on_download=self._on_download).open(),
                    icon="info",
                )
                if not hit.is_on_disk:
                    button("Download", lambda: self._download(hit.id), icon="download", look="main")

    def _download(self, name: str) -> None:
        with complaining():
            self._console.need_hub().downloads.add(DownloadRequest(model=name))
            record(self._console, "model.download", name)
            tell(f"The download of {name} has begun.", "positive")
            self._on_download()


def _hit_badges(hit: SearchHit) -> None:
    if hit.is_on_disk:
        badge("on this machine", "good")
    if hit.is_gated:
        badge("gated", "warn", "Its terms have to be accepted on the hub, and a token is needed.")
    if hit.task:
        badge(hit.task, "accent")
    if hit.size_bytes:
        badge(render_size(hit.size_bytes))
    if hit.num_parameters:
        badge(f"{render_count(hit.num_parameters)} parameters")
    if hit.downloads is not None:
        badge(f"{render_count(hit.downloads)} downloads")
    if hit.likes:
        badge(f"{render_count(hit.likes)} likes")
    if hit.updated_unix_s:
        badge(f"updated {render_age(time.time() - hit.updated_unix_s)}")
