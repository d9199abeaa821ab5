"""One model in a dialog: what it would be like here, whether it fits, its card; and its download."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from mlx_manager.errors import MlxManagerError
from mlx_manager.hub.desk import Shown
from mlx_manager.hub.download import DownloadRequest
from mlx_manager.hub.judge import Fit
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import Tone, badge, box, button, complaining, dialog, facts, note, tell, text
from mlx_manager.ui.markdown import render_card
from mlx_manager.ui.recording import record
from mlx_manager.ui.words import render_count, render_size

_TONES: dict[str, Tone] = {"fits": "good", "fits with less context": "warn", "does not fit": "bad"}


class ModelDialog:
    """Asks the desk while it is open already: the hub may take its time."""

    def __init__(self, console: Console, name: str, *, on_download: Callable[[], None] | None = None) -> None:
        self._console = console
        self._name = name
        self._on_download = on_download

    async def open(self) -> None:
        """Open it and fill it."""
        with dialog(self._name, is_wide=True) as opened:
            place = box("stack-lg")
            with place:
                ui.spinner(size="28px").props('aria-label="Asking the hub"')
            foot = box("dialog-foot")
            with foot:
                button("Close", opened.close)
        try:
            shown = await self._console.need_hub().show(self._name)
        except MlxManagerError as error:
            place.clear()
            with place:
                note(error.message, "bad")
            return
        place.clear()
        with place:
            self._fill(shown)
        if not shown.is_on_disk and shown.entry is not None:
            with foot:
                button("Download", lambda: self._download(opened), icon="download", look="main")

    def _fill(self, shown: Shown) -> None:
        if shown.fit is not None:
            _show_fit(shown.fit)
        if shown.problem is not None and shown.fit is not None and shown.is_on_disk:
            # it can be served as it is: only its card is missing
            text(shown.problem, "soft small wrap-anywhere", "p")
        elif shown.problem is not None:
            note(shown.problem, "warn")
        if shown.entry is not None:
            entry = shown.entry
            facts(
                [
                    ("Kind", entry.kind.value),
                    *((("Family", entry.family),) if entry.family else ()),
                    ("Architecture", entry.architecture),
                    ("Quantization", entry.quantization),
                    ("Weights", render_size(entry.size_bytes)),
                    ("Parameters", render_count(entry.num_parameters) if entry.num_parameters else "not said"),
                    ("Context", f"{entry.max_context:,}" if entry.max_context else "not said"),
                    ("Tools", "yes" if entry.has_tools else "no"),
                    ("Thinking", "yes" if entry.has_thinking else "no"),
                ]
            )
            if shown.is_on_disk:
                text(entry.path, "mono soft wrap-anywhere", "p")
        if shown.card is not None:
            with box("row-line"):
                badge(f"License: {shown.card.license or 'not said'}")
                if not shown.is_on_disk:
                    badge(f"Download: {render_size(shown.card.download_bytes)}")
            if shown.card.description:
                with (
                    ui.element("div")
                    .props('role="region" aria-label="Model card" tabindex="0"')
                    .style("max-height: 46vh; overflow: auto")
                ):
                    ui.html(render_card(shown.card.description), sanitize=False).classes("prose")

    def _download(self, opened: ui.dialog) -> None:
        with complaining():
            self._console.need_hub().downloads.add(DownloadRequest(model=self._name))
            record(self._console, "model.download", self._name)
            opened.close()
            tell(f"The download of {self._name} has begun.", "positive")
            if self._on_download is not None:
                self._on_download()


def _show_fit(fit: Fit) -> None:
    with box("panel tight"):
        with box("row-line"):
            badge(fit.verdict, _TONES[fit.verdict])
            text(f"On this machine, {fit.backend}: {fit.reason}", "small grow")
        with box("plain", "table"):
            with box(tag="thead"), box(tag="tr"):
                text("Requests at once", "num", "th")
                text("Context each, tokens", "num", "th")
            with box(tag="tbody"):
                for num, tokens in fit.largest_context.items():
                    with box(tag="tr"):
                        text(str(num), "num", "td")
                        text(f"{tokens:,}" if tokens else "none", "num", "td")
        for words in fit.footprint.notes:
            text(words, "soft small", "p")
