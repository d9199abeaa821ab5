"""Reading the settings again while the server runs, on SIGHUP: what can follow does, and of the rest the log tells."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlx_manager.catalog.settings import SETTINGS, Settings, SettingsError

_logger = logging.getLogger("mlx_manager.app")

RELOADED = frozenset(
    {
        "log_level",
        "use_cloud",
        "cloud_budget",
        "local_timeout",
        "memory_budget",
        "memory_floor",
        "eviction",
        "drain_timeout",
        "hang_timeout",
        "load_timeout",
        "leak_limit",
        "model_ttl",
        "audit_max_rows",
        "audit_max_age",
        "alert_error_share",
        "alert_ttft",
        "alert_worker_restarts",
        "alert_disk_free",
        *(row.name for row in SETTINGS if row.is_load),
    }
)
"""Settings that a running server follows, beside those of single models; those about loading from the next load on."""


class Reload:
    """The settings in force. `follow` is told of new ones; what is not among `RELOADED` stays as it was in them."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings], follow: Callable[[Settings], None]) -> None:
        self._current = settings
        self._reread = reread
        self._follow = follow

    def __call__(self) -> None:
        """Read them again. Settings that cannot be used change nothing."""
        try:
            wanted = self._reread()
        except SettingsError as error:
            _logger.error("The settings stay as they are: %s", error)
            return
        changed = [row for row in SETTINGS if _value(self._current, row.name) != _value(wanted, row.name)]
        late = [row.name for row in changed if row.name not in RELOADED]
        fields = {row.field: getattr(wanted, row.field) for row in changed if row.name in RELOADED and not row.is_load}
        replaced = {name: getattr(self._current, name) for name in self._current.__struct_fields__} | fields
        self._current = Settings(**{**replaced, "load": wanted.load, "models": wanted.models})
        self._follow(self._current)
        names = [row.name for row in changed if row.name in RELOADED]
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


def _value(settings: Settings, name: str) -> object:
    row = next(row for row in SETTINGS if row.name == name)
    return getattr(settings.load if row.is_load else settings, row.field)
