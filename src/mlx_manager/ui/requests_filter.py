"""Which requests the page shows: a form, and the query that it stands for."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
from nicegui import ui

from mlx_manager.storage.audit import AuditQuery, Outcome
from mlx_manager.ui.console import Console
from mlx_manager.ui.elements import box, button, note

_OUTCOMES = {
    "": "any outcome",
    Outcome.ANSWERED.value: "answered",
    Outcome.FAILED.value: "failed",
    Outcome.LEFT.value: "client gone",
}
_BETWEEN = -1
_RANGES = {3600: "the last hour", 86_400: "the last day", 604_800: "the last week", 0: "all", _BETWEEN: "between …"}
_PARAMETERS = {"is_failed": "failed", "is_fallback": "fallback", "since_unix_s": "since", "until_unix_s": "until"}
"""Fields of a query that the API calls otherwise."""
_MINUTE_S = 60


class RequestsFilter:
    """Calls `on_change` whenever something else is to be shown."""

    def __init__(self, console: Console, on_change: Callable[[], Awaitable[None]]) -> None:
        self._on_change = on_change
        with box("sticky-bar"):
            with box("row-line"):
                self._words = ui.input(placeholder="Model, user, key, path, error, address or id").classes("grow")
                self._words.props('outlined dense clearable debounce=100 aria-label="Search the requests"')
                self._range = self._select("When", _RANGES, 3600)
                self._more = button("Filters", self._toggle, icon="filter_list")
                self._more.props["aria-expanded"] = "false"
            with box("form-grid") as self._fields:
                self._outcome = self._select("Outcome", _OUTCOMES, "")
                names = [status.entry.name for status in console.models.statuses()]
                self._model = ui.input("Model", autocomplete=names).props("outlined dense clearable debounce=100")
                configured = console.find_configuration()
                backends = ["local", *(provider.name for provider in configured.providers)]
                self._target = self._select("Backend", _any(backends), "")
                self._user = self._select("User", _any([user.name for user in configured.users]), "")
                keys = {key.id: key.name for key in configured.keys}
                self._key = self._select("API key", {0: "any", **keys}, 0)
            with box("row-line") as self._between:
                self._since = self._moment("From")
                self._until = self._moment("Until")
            self._error = note("This is no moment: choose a day and a time.", "bad")
        self._fields.set_visibility(False)
        self._between.set_visibility(False)
        self._error.set_visibility(False)
        for field in (self._words, self._range, self._outcome, self._model, self._target, self._user, self._key):
            field.on_value_change(self._changed)
        for field in (self._since, self._until):
            field.on_value_change(self._changed)

    def query(self) -> AuditQuery:
        """What the form says now. Ranges that end now begin at a whole minute, so that pages can be shared."""
        return AuditQuery(
            words=(self._words.value or "").strip()[:200] or None,
            outcome=Outcome(self._outcome.value) if self._outcome.value else None,
            model=(self._model.value or "").strip() or None,
            target=self._target.value or None,
            user=self._user.value or None,
            key_id=self._key.value or None,
            since_unix_s=self._since_unix_s(),
            until_unix_s=_unix_s(self._until.value) if self._range.value == _BETWEEN else None,
        )

    def export_path(self, kind: str) -> str:
        """Where all that match are downloaded from, as `csv` or `jsonl`."""
        asked = {
            _PARAMETERS.get(name, name): value
            for name, value in msgspec.to_builtins(self.query()).items()
            if value is not None
        }
        return f"/admin/requests/export?{urlencode({'format': kind, **asked})}"

    def _since_unix_s(self) -> float | None:
        if self._range.value == _BETWEEN:
            return _unix_s(self._since.value)
        if not self._range.value:
            return None
        return float(int(time.time()) // _MINUTE_S * _MINUTE_S - self._range.value)

    async def _changed(self) -> None:
        is_between = self._range.value == _BETWEEN
        self._between.set_visibility(is_between)
        moments = [self._since.value, self._until.value] if is_between else []
        self._error.set_visibility(any(moment and _unix_s(moment) is None for moment in moments))
        await self._on_change()

    def _toggle(self) -> None:
        is_shown = not self._fields.visible
        self._fields.set_visibility(is_shown)
        self._more.props["aria-expanded"] = str(is_shown).lower()

    def _select(self, label: str, options: dict[Any, str], value: object) -> ui.select:
        made = ui.select(options, label=label, value=value).props("outlined dense options-dense")
        made.style("min-width: 130px")
        return made

    def _moment(self, label: str) -> ui.input:
        return ui.input(f"{label}, the server's time").props('outlined dense type="datetime-local" stack-label')


def _any(names: list[str]) -> dict[str, str]:
    return {"": "any", **{name: name for name in names}}


def _unix_s(moment: str | None) -> float | None:
    """2026-01-31T13:05, as browsers write it, in the server's time zone; None for anything else."""
    try:
        return time.mktime(time.strptime((moment or "")[:16], "%Y-%m-%dT%H:%M"))
    except (ValueError, OverflowError):
        return None
