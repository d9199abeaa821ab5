"""System: the server itself, its alerts, what its models complain about, its log, and what was changed by whom."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence

import psutil
from nicegui import ui
from starlette.requests import Request

from mlx_manager.observability.alerts import Alert
from mlx_manager.storage.store import RecordedChange
from mlx_manager.ui.console import Console, console_of
from mlx_manager.ui.doctor_view import DoctorView
from mlx_manager.ui.elements import box, empty_state, facts, note, text
from mlx_manager.ui.frame import frame
from mlx_manager.ui.log_view import LogView
from mlx_manager.ui.paths import SYSTEM
from mlx_manager.ui.words import render_age, render_duration, render_size

_MOST_CHANGES = 50
_MOST_DETAIL_CHARS = 160


async def system_page(request: Request) -> None:
    """Builds the page."""
    console = console_of(request)
    with frame(console, request, SYSTEM):
        text("System", tag="h1")
        with box("grid-2"):
            with box("panel"):
                text("This server", tag="h2")
                update_facts = _server_facts(console)
            with box("panel"):
                text("Alerts", tag="h2")
                update_alerts = _alerts(console)
        with box("panel"):
            DoctorView(console)
        with box("panel"):
            text("Log", tag="h2")
            log = LogView(console.log)
        with box("panel"):
            text("Changes", tag="h2")
            text("What was configured, and by whom; the last first.", "soft small", "p")
            update_changes = _ChangeList(console).update

    def update() -> None:
        update_facts()
        update_alerts()
        log.update()

    update()
    await update_changes()
    ui.timer(2.0, update)
    ui.timer(5.0, update_changes)


def _server_facts(console: Console) -> Callable[[], None]:
    labels = ("Version", "Up for", "Python", "System", "Memory available", "Disk free", "Models", "Accounts")
    change = facts([(label, "") for label in labels])

    def update() -> None:
        memory = psutil.virtual_memory()
        change(
            [
                console.version,
                render_duration(time.monotonic() - console.started_s),
                platform.python_version(),
                f"{platform.system()} {platform.machine()}",
                f"{render_size(memory.available)} of {render_size(memory.total)}",
                render_size(psutil.disk_usage(str(console.home)).free),
                str(len(console.pulse.look().models)),
                str(len(console.people.all())),
            ]
        )

    return update


def _alerts(console: Console) -> Callable[[], None]:
    """Those that are on now, models that cannot be loaded among them, and those that were."""
    place = box("list")
    drawn: list[object] = []

    def update() -> None:
        failed = [status for status in console.pulse.look().models if status.error is not None]
        alerts = list(console.find_alerts())
        state: list[object] = [*alerts, *((status.entry.name, status.error) for status in failed)]
        if drawn and drawn[0] == state:
            return
        drawn[:] = [state]
        place.clear()
        with place:
            for alert in alerts:
                _alert(alert)
            for status in failed:
                assert status.error is not None
                note(f"{status.entry.name}: {status.error.message}", "bad")
            if not state:
                empty_state("check_circle", "All is well", "Alerts and models that cannot be loaded are listed here.")

    return update


def _alert(alert: Alert) -> None:
    if alert.cleared_unix_s is None:
        note(f"{alert.message} Since {render_age(time.time() - alert.fired_unix_s)}.", "warn")
    else:
        text(f"Over since {render_age(time.time() - alert.cleared_unix_s)}: {alert.message}", "soft small", "p")


class _ChangeList:
    """Drawn anew when there is a new change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._drawn: Sequence[RecordedChange] | None = None
        self._place = box("scroll-x").props('tabindex="0" role="region" aria-label="Changes"')

    async def update(self) -> None:
        """Show what is new."""
        changes = await self._console.find_changes(_MOST_CHANGES)
        if changes == self._drawn or self._place.is_deleted:
            return
        self._drawn = changes
        self._place.clear()
        with self._place, box("plain", "table"):
            with box(tag="thead"), box(tag="tr"):
                for title in ("When", "Who", "What", "Of", "Detail"):
                    text(title, tag="th")
            with box(tag="tbody"):
                for change in changes:
                    _change_row(change)


def _change_row(change: RecordedChange) -> None:
    detail = json.dumps(change.detail, ensure_ascii=False) if change.detail else ""
    with box(tag="tr"):
        text(time.strftime("%Y-%m-%d %H:%M", time.localtime(change.at_unix_s)), "num", "td")
        text(change.actor, tag="td")
        text(change.action, tag="td")
        text(change.subject, tag="td")
        text(detail[:_MOST_DETAIL_CHARS], "mono", "td")
