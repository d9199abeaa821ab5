"""The downloads as tiles: how far each is; pausing, resuming, cancelling it. They outlive the page and the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from mlx_manager.hub.download import DownloadState, DownloadStatus
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import Tone, ask, badge, box, button, complaining, note, set_words, text
from mlx_manager.ui.imports import Import, Imports
from mlx_manager.ui.words import render_duration, render_size

_TONES: dict[DownloadState, Tone] = {
    DownloadState.QUEUED: "",
    DownloadState.DOWNLOADING: "accent",
    DownloadState.PAUSED: "warn",
    DownloadState.DONE: "good",
    DownloadState.FAILED: "bad",
    DownloadState.CANCELLED: "",
}
_RUNNING = (DownloadState.QUEUED, DownloadState.DOWNLOADING)


class DownloadTiles:
    """All downloads that are remembered, the latest first; before them the imports that run or have failed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._place = box("grid-tiles")
        self._tiles: dict[str, _Tile] = {}
        self._imports: dict[Import, _ImportTile] = {}

    def update(self) -> None:
        """Show how they stand."""
        statuses = self._console.need_hub().downloads.statuses()
        ids = {status.id for status in statuses}
        for id_ in [id_ for id_ in self._tiles if id_ not in ids]:
            self._tiles.pop(id_).place.delete()
        for status in statuses:
            if status.id not in self._tiles:
                with self._place:
                    self._tiles[status.id] = _Tile(self._console, status, self.update)
                self._tiles[status.id].place.move(target_index=0)
            self._tiles[status.id].update(status)
        self._update_imports()
        self._place.set_visibility(bool(self._tiles or self._imports))

    def _update_imports(self) -> None:
        imports = self._console.imports
        for made in [made for made in self._imports if made not in imports.all]:
            self._imports.pop(made).place.delete()
        for made in imports.all:
            if made not in self._imports:
                with self._place:
                    self._imports[made] = _ImportTile(imports, made, self.update)
                self._imports[made].place.move(target_index=0)
            self._imports[made].update()


class _ImportTile:
    def __init__(self, imports: Imports, made: Import, on_change: Callable[[], None]) -> None:
        self._made = made
        self._is_failed = False
        self.place = box("panel tight", "article")
        self.place.props["aria-label"] = f"Import of {made.name}"
        with self.place:
            with box("row-line"):
                text(made.name, "grow", "h3")
                self._state = badge("importing", "accent")
            self._bar = ui.linear_progress(0, show_value=False, size="8px").props("rounded")
            self._bar.props["aria-label"] = f"Progress of the import of {made.name}"
            self._said = text("", "soft small", "p")

        def dismiss() -> None:
            imports.dismiss(made)
            on_change()

        self._dismiss = dismiss

    def update(self) -> None:
        """Show how it stands."""
        made = self._made
        self._bar.set_value(round(made.fraction, 3))
        set_words(self._said, made.stage)
        if made.error is not None and not self._is_failed:
            self._is_failed = True
            self._bar.set_visibility(False)
            self._said.set_visibility(False)
            set_words(self._state, "failed")
            self._state.classes(replace="badge bad")
            with self.place:
                note(made.error.message, "bad")
                with box("row-line"):
                    button("Dismiss", self._dismiss, icon="done", look="tiny")


class _Tile:
    def __init__(self, console: Console, status: DownloadStatus, on_change: Callable[[], None]) -> None:
        self._downloads = console.need_hub().downloads
        self._id = status.id
        self._on_change = on_change
        self._error_shown: str | None = None
        self.place = box("panel tight", "article")
        self.place.props["aria-label"] = f"Download of {status.model}"
        with self.place:
            with box("row-line"):
                text(status.model, "grow", "h3")
                self._state = badge("")
            self._bar = ui.linear_progress(0, show_value=False, size="8px").props("rounded")
            self._bar.props["aria-label"] = f"Progress of {status.model}"
            self._said = text("", "soft small num", "p")
            self._error_place = box()
            with box("row-line"):
                self._pause = button("Pause", self._act(self._downloads.pause), icon="pause", look="tiny")
                self._resume = button("Resume", self._resume_it, icon="play_arrow", look="tiny")
                self._cancel = button("Cancel", self._ask_cancel, icon="close", look="tiny")
                self._forget = button("Take off the list", self._forget_it, icon="done", look="tiny")

    def update(self, status: DownloadStatus) -> None:
        """Show how it stands."""
        set_words(self._state, status.state.value)
        self._state.classes(replace=f"badge {_TONES[status.state]}")
        self._bar.set_value(round(status.done_bytes / status.total_bytes, 4) if status.total_bytes else 0)
        set_words(self._said, _describe(status))
        message = status.error.message if status.error is not None else None
        if message != self._error_shown:
            self._error_shown = message
            self._error_place.clear()
            if message is not None:
                with self._error_place:
                    note(message, "bad")
        is_running = status.state in _RUNNING
        is_over = status.state in (DownloadState.DONE, DownloadState.CANCELLED)
        self._pause.set_visibility(is_running)
        self._resume.set_visibility(not is_running and status.state is not DownloadState.DONE)
        self._resume.set_text("Retry" if status.state is DownloadState.FAILED else "Resume")
        self._cancel.set_visibility(not is_over)
        self._forget.set_visibility(is_over)

    def _act(self, step: Callable[[str], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
        async def act() -> None:
            with complaining():
                await step(self._id)
                self._on_change()

        return act

    def _resume_it(self) -> None:
        with complaining():
            self._downloads.resume(self._id)
            self._on_change()

    def _forget_it(self) -> None:
        with complaining():
            self._downloads.forget(self._id)
            self._on_change()

    def _ask_cancel(self) -> None:
        async def cancel() -> None:
            await self._downloads.cancel(self._id)
            self._on_change()

        ask("Cancel this download?", "What has arrived of it is removed. A pause would keep it.", "Cancel it", cancel)


def _describe(status: DownloadStatus) -> str:
    if status.state is DownloadState.DONE:
        return f"{render_size(status.total_bytes)}, ready to be loaded"
    arrived = f"{render_size(status.done_bytes)} of {render_size(status.total_bytes)}" if status.total_bytes else ""
    parts = [status.stage, arrived]
    if status.bytes_per_s:
        parts.append(f"{render_size(status.bytes_per_s)}/s")
    if status.remaining_s is not None:
        parts.append(f"{render_duration(status.remaining_s)} left")
    nothing = "waits for its turn" if status.state is DownloadState.QUEUED else "nothing has arrived yet"
    return " · ".join(part for part in parts if part) or nothing
