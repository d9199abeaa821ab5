"""What every page shares: the header, the navigation, the theme, and the place where the page goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from nicegui import ui
from starlette.requests import Request

from mlx_manager.catalog import UserState
from mlx_manager.ir import Caller
from mlx_manager.ui.console import Console, viewer_of
from mlx_manager.ui.elements import box, button, set_words, text
from mlx_manager.ui.paths import HOME, LOGIN, PLACES, USERS, PagePlace
from mlx_manager.ui.words import render_rate

THEME_COOKIE = "mlx_manager_theme"
_THEMES = {"auto": None, "light": False, "dark": True}
_ICONS = {"auto": "brightness_auto", "light": "light_mode", "dark": "dark_mode"}
_STATIC = Path(__file__).parent / "static"
_STAMP = int(max(file.stat().st_mtime for file in _STATIC.iterdir()))
"""In the addresses of our own files, so that browsers keep them until they change."""


@contextmanager
def frame(console: Console, request: Request, place: PagePlace, *, classes: str = "") -> Iterator[ThemeChoice]:
    """Everything around a page; what the context holds is the page."""
    theme = ThemeChoice(request)
    ui.add_head_html(
        f'<link rel="stylesheet" href="/_console/console.css?v={_STAMP}">'
        f'<script src="/_console/console.js?v={_STAMP}"></script>'
    )
    with ui.left_drawer(fixed=True).props("width=216 breakpoint=1023").classes("frame-drawer") as drawer:
        _navigation(console, viewer_of(request), place)
    with ui.header().classes("frame-header"):
        button("", drawer.toggle, icon="menu", look="bare", name="Show or hide the pages").classes("lt-md")
        _brand()
        with box("live-state grow", "div"):
            _live_state(console)
        _theme_button(theme)
        _log_out_button(request)
    _leave_when_over(console, request, place)
    with box(f"stack-lg {classes}").props('data-page tabindex="-1"') as page:
        ui.skip_link("Skip to the page", target=page)
        yield theme


def _navigation(console: Console, viewer: Caller, here: PagePlace) -> None:
    with box("pages", "nav").props('aria-label="Pages"'):
        for place in PLACES:
            if place.is_for_admins and not viewer.is_admin:
                continue
            with ui.element("a").classes("nav-item") as link:
                link.props["href"] = place.path
                if place is here:
                    link.props["aria-current"] = "page"
                ui.icon(place.icon)
                text(place.title)
                if place is USERS:
                    _pending_count(console)


def _brand() -> None:
    ui.html(
        '<a class="brand" href="/"><span class="brand-mark" aria-hidden="true"><i></i><i></i><i></i><i></i></span>'
        "<span>MLX Manager</span></a>",
        sanitize=False,
    )


def _live_state(console: Console) -> None:
    """What runs, in a line that every page has."""
    words = text("", "hide-narrow end")

    def update() -> None:
        beat = console.pulse.look()
        num_loaded = len(beat.in_memory)
        loaded = f"{num_loaded} model{'' if num_loaded == 1 else 's'} in memory"
        set_words(words, f"{loaded} · {render_rate(beat.generated_per_s)} tokens/s")

    update()
    ui.timer(2.0, update)


class ThemeChoice:
    """Light, dark, or whatever the system says; a cookie remembers it."""

    def __init__(self, request: Request) -> None:
        chosen = request.cookies.get(THEME_COOKIE, "auto")
        self.name = chosen if chosen in _THEMES else "auto"
        self._dark = ui.dark_mode(_THEMES[self.name])
        self._listeners: list[Callable[[str], object]] = []

    def choose(self, name: str) -> None:
        """Show the pages that way from now on."""
        if name != self.name:
            self.name = name
            self._dark.set_value(_THEMES[name])
            ui.run_javascript(f"mlxManager.remember('{THEME_COOKIE}', '{name}')")
            for listener in self._listeners:
                listener(name)

    def on_change(self, listener: Callable[[str], object]) -> None:
        """Call `listener` with each theme that is chosen."""
        self._listeners.append(listener)


def _theme_button(theme: ThemeChoice) -> None:
    """Goes round the themes."""
    names = list(_THEMES)
    toggle = button("", icon=_ICONS[theme.name], look="bare", name=f"Theme: {theme.name}")
    toggle.on_click(lambda: theme.choose(names[(names.index(theme.name) + 1) % len(names)]))

    def show(name: str) -> None:
        toggle.props(f"icon={_ICONS[name]}")
        toggle.props["aria-label"] = f"Theme: {name}"

    theme.on_change(show)


def _pending_count(console: Console) -> None:
    """How many accounts wait for an admin."""
    count = text("", "nav-count")

    def update() -> None:
        num = sum(user.state is UserState.PENDING for user in console.people.all())
        set_words(count, f"{num} waiting")
        count.set_visibility(num > 0)

    update()
    ui.timer(5.0, update)


def _log_out_button(request: Request) -> None:
    name = viewer_of(request).user_name
    leave = button("", icon="logout", look="bare", name=f"Log out {name}")
    leave.on("click", js_handler="() => mlxManager.logOut()")


def _leave_when_over(console: Console, request: Request, place: PagePlace) -> None:
    """A page does not stay open when its session ends, or when whoever looks may see it no longer."""

    async def check() -> None:
        viewer = await console.find_viewer(request)
        if viewer is None or (place.is_for_admins and not viewer.is_admin):
            # where somebody was is where the login leads back to, unless they may see it no longer
            is_over = viewer is None
            ui.navigate.to(f"{LOGIN}?next={quote(place.path, safe='')}" if is_over else HOME.path)

    ui.timer(4.0, check, immediate=False)
