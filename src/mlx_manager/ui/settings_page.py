"""Settings: every one with its value, where that came from, and when a change holds."""

from __future__ import annotations

from nicegui import ui
from starlette.requests import Request

from mlx_manager.catalog import GROUPS, Setting
from mlx_manager.ui.console import Console, console_of, viewer_of
from mlx_manager.ui.elements import box, empty_state, text
from mlx_manager.ui.frame import ThemeChoice, frame
from mlx_manager.ui.paths import SETTINGS
from mlx_manager.ui.setting_row import SettingRow


def settings_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    with frame(console, request, SETTINGS) as theme:
        view = _SettingsView(console, viewer_of(request).label, theme)
    view.update()
    ui.timer(2.0, view.update)


class _SettingsView:
    """The settings in their groups. `actor` is who changes things here."""

    def __init__(self, console: Console, actor: str, theme: ThemeChoice) -> None:
        self._live = console.live_settings
        self._rows: list[tuple[SettingRow, ui.element]] = []
        self._panels: list[tuple[ui.element, list[ui.element]]] = []
        text("Settings", tag="h1")
        words = (
            "A change is kept in the database and wins over flags, variables and config.toml, after a restart too. "
            "Going back leaves it to them again."
        )
        text(words, "soft small", "p")
        with box("sticky-bar"):
            search = ui.input(placeholder="Search the settings").props("outlined dense clearable debounce=100")
            search.props["aria-label"] = "Search the settings"
            search.on_value_change(lambda event: self._filter(event.value or ""))
        self._appearance = _appearance(theme)
        for group in GROUPS:
            with box("panel") as panel:
                text(group.title, tag="h2")
                rows = [self._row(console, actor, row) for row in group.settings]
            self._panels.append((panel, rows))
        self._nothing = empty_state("search_off", "No setting matches", "Search by name, or by a word of what it does.")
        self._nothing.set_visibility(False)

    def update(self) -> None:
        """Show what was changed, here or elsewhere; what is being typed stays."""
        for row, _ in self._rows:
            row.update()

    def _row(self, console: Console, actor: str, setting: Setting) -> ui.element:
        row = SettingRow(console.live_settings, actor, setting)
        self._rows.append((row, row.place))
        return row.place

    def _filter(self, words: str) -> None:
        wanted = words.lower().split()
        num_shown = 0
        for row, place in self._rows:
            is_shown = all(word in row.haystack for word in wanted)
            place.set_visibility(is_shown)
            num_shown += is_shown
        for panel, places in self._panels:
            panel.set_visibility(any(place.visible for place in places))
        self._appearance.set_visibility(not wanted)
        self._nothing.set_visibility(not num_shown)


def _appearance(theme: ThemeChoice) -> ui.element:
    """The look of the pages, which each browser remembers for itself."""
    with box("panel") as panel:
        text("Appearance", tag="h2")
        with box("setting"):
            with box("stack setting-words"):
                text("Theme", tag="h3")
                text("Light, dark, or whatever the system says. Remembered by this browser.", "soft small")
            chooser = ui.select(
                {"auto": "as the system", "light": "light", "dark": "dark"}, value=theme.name, label="Theme"
            )
            chooser.props("outlined dense options-dense").classes("setting-value")
            chooser.on_value_change(lambda event: theme.choose(event.value))
            theme.on_change(chooser.set_value)
    return panel
