"""Profile: one's own password, sessions and API keys."""

from __future__ import annotations

import time
from collections.abc import Callable

from nicegui import ui
from starlette.requests import Request

from mlx_manager.catalog import ApiKey, Scope
from mlx_manager.ir import Caller
from mlx_manager.ui.console import Console, console_of, viewer_of
from mlx_manager.ui.elements import (
    ask,
    badge,
    box,
    button,
    complaining,
    copy_button,
    dialog,
    empty_state,
    note,
    tell,
    text,
)
from mlx_manager.ui.frame import frame
from mlx_manager.ui.paths import PROFILE
from mlx_manager.ui.sessions_view import SessionsView
from mlx_manager.ui.words import render_age


async def profile_page(request: Request) -> None:
    """Builds the page."""
    console, viewer = console_of(request), viewer_of(request)
    with frame(console, request, PROFILE):
        with box("page-head"):
            text(f"Profile of {viewer.user_name}", "grow", "h1")
            badge("admin" if viewer.is_admin else "user", "accent" if viewer.is_admin else "")
        with box("grid-2"):
            with box("panel"):
                _keys(console, viewer)
            with box("panel"):
                _password()
        with box("panel"):
            sessions = SessionsView(console, viewer)
    await sessions.update()
    ui.timer(5.0, sessions.update, immediate=False)


def _password() -> None:
    text("Password", tag="h2")
    text("A new one ends every other session of yours.", "soft", "p")
    old = ui.input("Password now", password=True).props('outlined dense autocomplete="current-password"')
    new = ui.input("New password", password=True).props('outlined dense autocomplete="new-password"')

    async def change() -> None:
        problem = await ui.run_javascript(
            f"return await mlxManager.changePassword('{old.html_id}', '{new.html_id}')", timeout=10
        )
        tell(problem or "The password is changed.", "negative" if problem else "positive")

    with box("row-line"):
        button("Change it", change, look="main")


def _keys(console: Console, viewer: Caller) -> None:
    place = box("list")

    def draw() -> None:
        place.clear()
        assert viewer.user_id is not None
        keys = console.keys.of(viewer.user_id)
        with place:
            if not keys:
                empty_state(
                    "key",
                    "No API key yet",
                    "On this machine requests need none until the first one is made anywhere, and from then on one.",
                )
            for key in keys:
                _row(console, viewer, key, draw)

    with box("page-head"):
        text("API keys", "grow", "h2")
        button("New key", lambda: _mint(console, viewer, draw), icon="add")
    place.move(target_index=1)
    draw()


def _row(console: Console, viewer: Caller, key: ApiKey, draw: Callable[[], None]) -> None:
    with box("row-item", "article") as row:
        row.props["aria-label"] = key.name
        with box("stack grow").style("gap: 4px"):
            with box("row-line"):
                text(key.name, "", "h3")
                badge(f"…{key.hint}")
                for scope in key.scopes:
                    badge(scope.value, "accent")
            used = key.last_used_unix_s
            text(f"used {render_age(time.time() - used)}" if used else "not used yet", "soft small")
        button("Revoke", lambda: _ask_revoke(console, viewer, key, draw), icon="key_off")


def _ask_revoke(console: Console, viewer: Caller, key: ApiKey, draw: Callable[[], None]) -> None:
    async def revoke() -> None:
        await console.keys.revoke(console.keys.find(key.id, user_id=viewer.user_id), actor=viewer.label)
        draw()

    ask(f"Revoke {key.name}?", "Whoever uses it is refused from then on.", "Revoke", revoke)


def _mint(console: Console, viewer: Caller, draw: Callable[[], None]) -> None:
    with dialog("A new API key") as opened:
        name = ui.input("Name").props('outlined dense autocomplete="off"')
        is_for_admin = ui.checkbox("It may administer too").props("dense")
        is_for_admin.set_visibility(viewer.is_admin)
        shown = box("stack")

        async def mint() -> None:
            user = console.people.find(viewer.user_name or "")
            scopes = (Scope.INFERENCE, Scope.ADMIN) if is_for_admin.value else (Scope.INFERENCE,)
            with complaining():
                minted = await console.keys.mint(user, name.value or "", scopes=scopes, actor=viewer.label)
                draw()
                make.delete()
                with shown:
                    note("Copy the key now: it is not shown again.", "info")
                    with box("snippet"):
                        text(minted.secret, "mono wrap-anywhere", "pre").props('tabindex="0"')
                        copy_button(minted.secret, "Copy the key").classes("copy")

        with box("dialog-foot"):
            button("Close", opened.close)
            make = button("Make it", mint, look="main")
