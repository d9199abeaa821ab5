"""Reading the settings again while the server runs, on SIGHUP: what can follow does, and of the rest the log tells."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlx_manager.catalog.settings import SETTINGS, Effect, Settings, SettingsError
from mlx_manager.gateway import LiveSettings

_logger = logging.getLogger("mlx_manager.app")


class Reload:
    """Has `live` follow what flags, variables and config.toml say now. What an admin changed still wins."""

    def __init__(self, live: LiveSettings, reread: Callable[[], Settings]) -> None:
        self._live = live
        self._reread = reread

    def __call__(self) -> None:
        """Read them again. Settings that cannot be used change nothing."""
        before = self._live.current.origins
        try:
            self._live.start_with(self._reread())
        except SettingsError as error:
            _logger.error("The settings stay as they are: %s", error)
            return
        changed = [row for row in SETTINGS if self._live.origin(row) != before[row.name]]
        late = [row.name for row in changed if row.takes_effect in (Effect.RESTART, Effect.FIXED)]
        names = [row.name for row in changed if row.name not in late]
        _logger.warning("The settings were read again. Changed: %s", ", ".join(names) or "none of the server's")
        if late:
            _logger.warning("These hold after a restart only: %s", ", ".join(late))


@contextmanager
def on_hangup(reload: Callable[[], None]) -> Iterator[None]:
    """Call `reload` from the event loop at each SIGHUP, until the context ends."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
