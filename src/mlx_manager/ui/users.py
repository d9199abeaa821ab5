"""Users: who has an account, who waits for one, and what each may do."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from nicegui import ui
from starlette.requests import Request

from mlx_manager.catalog import KeyLimits, User, UserRole, UserState
from mlx_manager.ui.console import Console, console_of, viewer_of
from mlx_manager.ui.elements import Tone, ask, badge, box, button, complaining, dialog, tell, text
from mlx_manager.ui.frame import frame
from mlx_manager.ui.limits_dialog import open_limits
from mlx_manager.ui.paths import USERS
from mlx_manager.ui.words import render_age

_TONES: dict[UserState, Tone] = {UserState.PENDING: "warn", UserState.ACTIVE: "good", UserState.DISABLED: "bad"}


def users_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    with frame(console, request, USERS):
        view = _UsersView(console, viewer_of(request).label)
    view.update()
    ui.timer(2.0, view.update)


class _UsersView:
    """The accounts, those that wait first. `actor` is who does things here."""

    def __init__(self, console: Console, actor: str) -> None:
        self._people = console.people
        self._actor = actor
        self._drawn: Sequence[User] = ()
        with box("page-head"):
            text("Users", "grow", "h1")
            button("Add a user", self._add, icon="person_add")
        self._place = box("list")

    def update(self) -> None:
        """Draw the accounts anew when one has changed."""
        users = sorted(self._people.all(), key=lambda user: (user.state is not UserState.PENDING, user.name))
        if users == self._drawn:
            return
        self._drawn = users
        self._place.clear()
        with self._place:
            for user in users:
                self._row(user)

    def _row(self, user: User) -> None:
        with box("row-item", "article") as row:
            row.props["aria-label"] = user.name
            with box("stack grow").style("flex-basis: 240px; gap: 4px"):
                with box("row-line"):
                    text(user.name, "", "h3")
                    badge(user.state.value, _TONES[user.state])
                    badge(user.role.value, "accent" if user.role is UserRole.ADMIN else "")
                text(f"since {render_age(time.time() - user.created_unix_s)}", "soft small")
                if user.limits.words:
                    text(f"limits: {user.limits.words}", "soft small wrap-anywhere")
            with box("row-line end"):
                self._actions(user)

    def _actions(self, user: User) -> None:
        if user.state is UserState.PENDING:
            button("Approve", lambda: self._change(user, state=UserState.ACTIVE), icon="check", look="main")
        elif user.state is UserState.DISABLED:
            button("Enable", lambda: self._change(user, state=UserState.ACTIVE))
        else:
            button("Disable", lambda: self._ask_disable(user))
        if user.role is UserRole.USER:
            button("Make an admin", lambda: self._change(user, role=UserRole.ADMIN))
        else:
            button("Make a user", lambda: self._change(user, role=UserRole.USER))
        button("Limits", lambda: self._limit(user), name=f"Limits of {user.name}")
        button("Set a password", lambda: self._reset(user))
        button("", lambda: self._ask_remove(user), icon="delete", look="bare", name=f"Delete {user.name}")

    async def _change(self, user: User, *, role: UserRole | None = None, state: UserState | None = None) -> None:
        with complaining():
            await self._people.change(user, role=role, state=state, actor=self._actor)
            self.update()

    def _ask_disable(self, user: User) -> None:
        async def disable() -> None:
            await self._people.change(user, state=UserState.DISABLED, actor=self._actor)
            self.update()

        ask(f"Disable {user.name}?", "Their sessions end and their API keys stop working.", "Disable", disable)

    def _ask_remove(self, user: User) -> None:
        async def remove() -> None:
            await self._people.remove(user, actor=self._actor)
            self.update()

        ask(f"Delete {user.name}?", "The account goes, with its sessions and API keys.", "Delete it", remove)

    def _limit(self, user: User) -> None:
        async def save(limits: KeyLimits) -> None:
            await self._people.change(user, limits=limits, actor=self._actor)
            self.update()

        open_limits(user, save)

    def _reset(self, user: User) -> None:
        with dialog(f"A new password for {user.name}") as opened:
            text("Every session of the account ends.", "soft", "p")
            password = ui.input("New password", password=True).props('outlined dense autocomplete="new-password"')

            async def save() -> None:
                with complaining():
                    await self._people.reset_password(user, password.value or "", actor=self._actor)
                    opened.close()
                    tell(f"{user.name} has a new password.", "positive")

            _foot(opened, "Set it", save)

    def _add(self) -> None:
        with dialog("Add a user") as opened:
            name = ui.input("Name").props('outlined dense autocomplete="off"')
            password = ui.input("Password", password=True).props('outlined dense autocomplete="new-password"')
            is_admin = ui.checkbox("An admin").props("dense")

            async def save() -> None:
                role = UserRole.ADMIN if is_admin.value else UserRole.USER
                with complaining():
                    await self._people.create(name.value or "", password.value or "", role=role, actor=self._actor)
                    opened.close()
                    self.update()

            _foot(opened, "Add", save)


def _foot(opened: ui.dialog, verb: str, save: Callable[[], Awaitable[None]]) -> None:
    with box("dialog-foot"):
        button("Cancel", opened.close)
        button(verb, save, look="main")
