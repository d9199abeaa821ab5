"""Where somebody is logged in, and logging them out there."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from mlx_manager.errors import MlxManagerError
from mlx_manager.ir import Caller
from mlx_manager.storage.users import StoredSession
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import ask, badge, box, button, set_words, text
from mlx_manager.ui.words import render_age, render_duration

_BROWSERS = (
    ("Edge", re.compile(r"Edg/(\d+)")),
    ("Firefox", re.compile(r"Firefox/(\d+)")),
    ("Chrome", re.compile(r"Chrom(?:e|ium)/(\d+)")),
    ("Safari", re.compile(r"Version/(\d+).* Safari/")),
)
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Mac OS X", "macOS"),
    ("Windows", "Windows"),
)


class SessionsView:
    """Drawn where it is made. `update` draws the sessions anew when one has come or gone."""

    def __init__(self, console: Console, viewer: Caller) -> None:
        self._people = console.people
        self._viewer = viewer
        self._drawn: Sequence[StoredSession] | None = None
        text("Sessions", tag="h2")
        text("Where you are logged in. A session that is ended has to log in again.", "soft", "p")
        self._problem = text("", "soft", "p").props('role="status"')
        self._place = box("list")

    async def update(self) -> None:
        """Show where the account is logged in now."""
        try:
            sessions = await self._people.sessions(self._people.find(self._viewer.user_name or ""))
        except MlxManagerError as error:
            set_words(self._problem, error.message)
            return
        if sessions == self._drawn or self._place.is_deleted:
            return
        self._drawn = sessions
        set_words(self._problem, "")
        self._place.clear()
        with self._place:
            for session in sessions:
                self._row(session)

    def _row(self, session: StoredSession) -> None:
        name = describe_client(session.client)
        with box("row-item", "article") as row:
            row.props["aria-label"] = name
            with box("stack grow").style("gap: 4px"):
                with box("row-line"):
                    text(name, "", "h3")
                    if session.id == self._viewer.session_id:
                        badge("this one", "good")
                now_s = time.time()
                parts = (
                    f"from {session.address}" if session.address else "",
                    f"begun {render_age(max(0.0, now_s - session.created_unix_s))}",
                    f"{render_duration(max(0.0, session.expires_unix_s - now_s))} left",
                )
                text(" · ".join(filter(None, parts)), "soft small")
            if session.id != self._viewer.session_id:
                button("End it", lambda: self._ask_end(session, name), icon="logout")

    def _ask_end(self, session: StoredSession, name: str) -> None:
        async def end() -> None:
            user = self._people.find(self._viewer.user_name or "")
            await self._people.end_session(user, session.id, actor=self._viewer.label)
            await self.update()

        ask(f"End the session of {name}?", "Whoever uses it is asked to log in again, within seconds.", "End it", end)


def describe_client(user_agent: str | None) -> str:
    """Firefox 156 on macOS; of other programs what they say themselves."""
    said = user_agent or ""
    for browser, pattern in _BROWSERS:
        found = pattern.search(said)
        if found is not None:
            system = next((name for word, name in _SYSTEMS if word in said), "Linux" if "Linux" in said else "")
            return f"{browser} {found[1]}" + (f" on {system}" if system else "")
    return said or "A program that does not say which"
