"""The log of this server since it started: its last lines, by level and by words."""

from __future__ import annotations

import html
import logging
import time

from nicegui import ui

from mlx_manager.observability.log_tail import LogLine, LogTail
from mlx_manager.ui.elements import box, text

_MOST_SHOWN = 200
_LEVELS = {logging.DEBUG: "all", logging.WARNING: "warnings and errors", logging.ERROR: "errors"}
_TONES = {logging.WARNING: "warn", logging.ERROR: "bad", logging.CRITICAL: "bad"}


class LogView:
    """Drawn anew when there is a new line."""

    def __init__(self, tail: LogTail) -> None:
        self._tail = tail
        self._drawn: object = None
        with box("row-line"):
            self._words = ui.input(placeholder="Search the log").classes("grow")
            self._words.props('outlined dense clearable debounce=150 aria-label="Search the log"')
            self._level = ui.select(_LEVELS, value=logging.DEBUG, label="Level").props("outlined dense options-dense")
            self._level.style("min-width: 150px")
        self._lines = ui.html("", sanitize=False)
        self._lines.props('tabindex="0" role="log" aria-label="Log" aria-live="off"').classes("log")
        self._nothing = text("No line matches.", "soft", "p")
        for field in (self._words, self._level):
            field.on_value_change(self.update)

    def update(self) -> None:
        """Show what is new; the newest line stands first."""
        state = (self._tail.num_seen, self._words.value, self._level.value)
        if state == self._drawn:
            return
        self._drawn = state
        wanted = (self._words.value or "").lower().split()
        shown: list[str] = []
        for line in reversed(list(self._tail.lines)):
            haystack = f"{line.logger} {line.words}".lower()
            if line.level >= self._level.value and all(word in haystack for word in wanted):
                shown.append(_render(line))
                if len(shown) == _MOST_SHOWN:
                    break
        self._lines.set_content("".join(shown))
        self._lines.set_visibility(bool(shown))
        self._nothing.set_visibility(not shown)


def _render(line: LogLine) -> str:
    when = time.strftime("%m-%d %H:%M:%S", time.localtime(line.unix_s))
    level = logging.getLevelName(line.level).lower()
    name = html.escape(line.logger.removeprefix("mlx_manager."))
    return (
        f'<div><span class="soft num">{when}</span> <span class="badge {_TONES.get(line.level, "")}">{level}</span> '
        f'<span class="soft">{name}</span> {html.escape(line.words)}</div>'
    )
