"""Providers: who answers from outside this machine, whether they can be reached, and what they have."""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import UNSET
from nicegui import ui
from starlette.requests import Request

from mlx_manager.catalog import Provider
from mlx_manager.errors import MlxManagerError
from mlx_manager.ui.console import Console, console_of, viewer_of
from mlx_manager.ui.elements import ask, badge, box, button, complaining, dialog, empty_state, note, text
from mlx_manager.ui.frame import frame
from mlx_manager.ui.paths import PROVIDERS, ROUTES
from mlx_manager.ui.provider_dialog import ProviderDialog


def providers_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    with frame(console, request, PROVIDERS):
        view = _ProvidersView(console, viewer_of(request).label)
    view.update()
    ui.timer(2.0, view.update)


class _ProvidersView:
    """The providers, by name. `actor` is who changes things here."""

    def __init__(self, console: Console, actor: str) -> None:
        self._console = console
        self._actor = actor
        self._drawn: Sequence[Provider] | None = None
        self._tried: dict[str, tuple[bool, str]] = {}
        """What became of the last test of each: whether it answered, and in words."""
        with box("page-head"):
            text("Providers", "grow", "h1")
            button("Add a provider", self._add, icon="add", look="main")
        with box("row-line soft small", "p"):
            text("Nothing leaves this machine unless one of the")
            ui.link("routes", ROUTES.path)
            text("leads to a provider.")
        self._closed = note("The setting use_cloud is off: no provider is asked, whatever the routes say.", "warn")
        self._place = box("list")

    def update(self) -> None:
        """Draw the providers anew when one has changed."""
        self._closed.set_visibility(not self._console.live_settings.current.use_cloud)
        providers = sorted(self._console.find_configuration().providers, key=lambda provider: provider.name)
        if providers != self._drawn:
            self._drawn = providers
            self._draw()

    def _draw(self) -> None:
        self._place.clear()
        with self._place:
            if not self._drawn:
                empty_state(
                    "cloud_off",
                    "No provider yet",
                    "Add one for what this machine cannot answer, then a route that says when it is asked.",
                )
            for provider in self._drawn or ():
                self._row(provider)

    def _row(self, provider: Provider) -> None:
        with box("row-item", "article") as row:
            row.props["aria-label"] = provider.name
            with box("stack grow").style("flex-basis: 280px; gap: 4px"):
                with box("row-line"):
                    text(provider.name, "", "h3")
                    badge(provider.kind.value)
                    badge("key kept" if provider.has_key else "no key", "" if provider.has_key else "warn")
                text(provider.base_url, "soft small wrap-anywhere")
                self._outcome(provider)
            with box("row-line end"):
                switch = ui.switch("On", value=provider.is_on).props("dense")
                switch.props["aria-label"] = f"{provider.name} is on"
                switch.on_value_change(lambda event: self._switch(provider, event.value))
                if provider.models:
                    button(f"{len(provider.models)} models", lambda: _show_models(provider))
                button("Test", lambda: self._test(provider), icon="network_check")
                button("Edit", lambda: self._edit(provider), icon="edit")
                button(
                    "", lambda: self._ask_remove(provider), icon="delete", look="bare", name=f"Delete {provider.name}"
                )

    def _outcome(self, provider: Provider) -> None:
        tried = self._tried.get(provider.name)
        if tried is not None:
            note(tried[1], "info" if tried[0] else "bad")

    async def _test(self, provider: Provider) -> None:
        self._tried[provider.name] = (True, "Asking for its models …")
        self._draw()
        started_s = time.monotonic()
        try:
            kept = await self._console.desk.fetch_models(provider.name, actor=self._actor)
            words = f"It answers, after {time.monotonic() - started_s:.2f} s, with {len(kept.models)} models."
            self._tried[provider.name] = (True, words)
        except MlxManagerError as error:
            self._tried[provider.name] = (False, error.message)
        self._redraw()

    async def _switch(self, provider: Provider, is_on: bool) -> None:
        with complaining():
            await self._console.desk.change_provider(provider.name, {"is_on": is_on}, key=UNSET, actor=self._actor)
        self._redraw()

    def _redraw(self) -> None:
        self._drawn = None
        if not self._place.is_deleted:
            self.update()

    def _add(self) -> None:
        ProviderDialog(self._console, self._actor, self._changed).open()

    def _edit(self, provider: Provider) -> None:
        ProviderDialog(self._console, self._actor, self._changed, provider).open()

    def _changed(self, name: str) -> None:
        self._tried.pop(name, None)
        self._redraw()

    def _ask_remove(self, provider: Provider) -> None:
        async def remove() -> None:
            await self._console.desk.remove_provider(provider.name, actor=self._actor)
            self._changed(provider.name)

        words = "Its key goes with it. A provider that a route leads to is kept."
        ask(f"Delete {provider.name}?", words, "Delete it", remove)


def _show_models(provider: Provider) -> None:
    with dialog(f"Models of {provider.name}") as opened:
        with box("scroll-y", "ul").props('tabindex="0" role="list"'):
            for name in provider.models:
                text(name, "mono wrap-anywhere", "li")
        with box("dialog-foot"):
            button("Close", opened.close)
