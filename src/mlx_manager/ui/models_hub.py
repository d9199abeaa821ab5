"""Models on Hugging Face: searched through the hub desk, opened, downloaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import msgspec
from nicegui import ui

from mlx_manager.catalog import ModelKind
from mlx_manager.errors import MlxManagerError
from mlx_manager.hub.download import DownloadRequest, DownloadState
from mlx_manager.hub.search import SORTS, SearchHit, SearchQuery, Sort
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import badge, box, button, complaining, empty_state, note, set_words, tell, text
from mlx_manager.ui.model_dialog import ModelDialog
from mlx_manager.ui.recording import record
from mlx_manager.ui.words import render_age, render_count, render_size

_PAGE_SIZE = 30
_ON_THEIR_WAY = (DownloadState.QUEUED, DownloadState.DOWNLOADING, DownloadState.PAUSED)
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
        self._rows: list[_Row] = []
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
                widths = {"": "any", **{f"{bits}-bit": f"{bits}-bit" for bits in (3, 4, 5, 6, 8)}}
                self._width = ui.select(widths, value="", label="Quantization").props("outlined dense options-dense")
                self._width.style("min-width: 128px")
                self._architecture = ui.input("Architecture", placeholder="llama").props("outlined dense clearable")
                self._architecture.on("keydown.enter", self._search)
                self._tools = ui.checkbox("Tools", on_change=self._sift).props("dense")
                self._thinking = ui.checkbox("Thinking", on_change=self._sift).props("dense")
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
            tags=tuple(filter(None, (self._width.value, (self._architecture.value or "").strip().lower()))),
        )
        self._results.clear()
        self._rows.clear()
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
                self._rows.append(_Row(self._console, hit, self._on_download))
            if not page.hits and not self._query.offset:
                empty_state(
                    "search_off", "Nothing found", "Try a shorter name, another kind, or what is not made for MLX."
                )
        self._more.set_visibility(page.has_more)
        self._sift()
        self.update()

    def update(self) -> None:
        """Offer to download what is neither here nor on its way."""
        if self._rows:
            hub = self._console.need_hub()
            states = {status.model: status.state for status in reversed(hub.downloads.statuses())}
            there = {status.entry.name for status in self._console.pulse.look().models}
            for row in self._rows:
                row.update(states.get(row.hit.id), is_here=row.hit.id in there)

    def _sift(self) -> None:
        """Show the rows that the two check boxes leave."""
        for row in self._rows:
            is_shown = (row.hit.has_tools or not self._tools.value) and (
                row.hit.has_thinking or not self._thinking.value
            )
            row.place.set_visibility(is_shown)


class _Row:
    """One model that was found."""

    def __init__(self, console: Console, hit: SearchHit, on_download: Callable[[], None]) -> None:
        self.hit = hit
        self._console = console
        self._on_download = on_download
        with box("row-item", "article") as self.place:
            self.place.props["aria-label"] = hit.id
            with box("stack grow").style("flex-basis: 300px; gap: 6px"):
                text(hit.id, "", "h3")
                with box("row-line"):
                    self._here = badge("on this machine", "good")
                    self._state = badge("", "accent")
                    _hit_badges(hit)
            with box("row-line end"):
                button("Details", self._show, icon="info")
                self._button = button("Download", self._download, icon="download", look="main")

    def update(self, state: DownloadState | None, *, is_here: bool) -> None:
        """Show whether it is here, or how its download stands."""
        is_on_its_way = state in _ON_THEIR_WAY
        self._here.set_visibility(is_here)
        self._state.set_visibility(is_on_its_way)
        set_words(self._state, f"download {state.value}" if state is not None else "")
        self._button.set_visibility(not is_here and not is_on_its_way)

    async def _show(self) -> None:
        await ModelDialog(self._console, self.hit.id, on_download=self._on_download).open()

    async def _download(self) -> None:
        """At once where it fits; else its details say why not, and offer it all the same."""
        self._button.disable()
        try:
            shown = await self._console.need_hub().show(self.hit.id)
        except MlxManagerError as error:
            tell(error.message, "negative")
            return
        finally:
            self._button.enable()
        if shown.entry is None or shown.fit is None or shown.fit.verdict == "does not fit":
            tell(f"{self.hit.id} does not fit this machine, or cannot be judged: look first.", "negative")
            await self._show()
            return
        with complaining():
            self._console.need_hub().downloads.add(DownloadRequest(model=self.hit.id))
            record(self._console, "model.download", self.hit.id)
            words = "" if shown.fit.verdict == "fits" else f" It {shown.fit.verdict}."
            tell(f"The download of {self.hit.id} has begun.{words}", "positive")
            self._on_download()


def _hit_badges(hit: SearchHit) -> None:
    if hit.is_gated:
        badge("gated", "warn", "Its terms have to be accepted on the hub, and a token is needed.")
    if hit.task:
        badge(hit.task, "accent")
    for words in (hit.architecture, hit.quantization):
        if words:
            badge(words)
    if hit.size_bytes:
        badge(render_size(hit.size_bytes))
    if hit.num_parameters:
        badge(f"{render_count(hit.num_parameters)} parameters")
    if hit.has_tools:
        badge("tools", "good", "Its chat template shows tools to the model.")
    if hit.has_thinking:
        badge("thinking", "good", "It can think before it answers.")
    if hit.downloads is not None:
        badge(f"{render_count(hit.downloads)} downloads")
    if hit.likes:
        badge(f"{render_count(hit.likes)} likes")
    if hit.updated_unix_s:
        badge(f"updated {render_age(time.time() - hit.updated_unix_s)}")
