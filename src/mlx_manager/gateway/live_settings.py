"""The settings as they hold now: what admins changed, in the database, wins over what the server was started with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from mlx_manager.catalog import (
    SETTINGS,
    Effect,
    Origin,
    Setting,
    Settings,
    SettingsError,
    changeable_settings,
    usable_changes,
    with_changes,
)
from mlx_manager.errors import InvalidRequest
from mlx_manager.storage.configuration import Configuration
from mlx_manager.storage.store import Store

HIDDEN = "…"
"""Stands for a secret value."""
_logger = logging.getLogger("mlx_manager.gateway")


class LiveSettings:
    """Follows the database. `given` is what flags, variables and config.toml say.

    `current` holds now; `at_start` is what the parts of the server were built from.
    """

    def __init__(self, given: Settings, store: Store) -> None:
        self._given = given
        self._store = store
        self._listeners: list[Callable[[Settings], None]] = []
        self._problems: list[str] = []
        self.current = given
        """Written here only."""
        self._follow(store.current)
        self.at_start = self.current
        store.subscribe(self._follow)

    def subscribe(self, listener: Callable[[Settings], None]) -> None:
        """Call `listener` with the settings whenever one has changed. It has to be quick, and raise nothing."""
        self._listeners.append(listener)

    def start_with(self, given: Settings) -> None:
        """From now on these are what flags, variables and config.toml say; what admins changed still wins."""
        self._given = given
        self._follow(self._store.current)

    def origin(self, row: Setting) -> Origin:
        """What was said for a setting, and where."""
        return self.current.origins[row.name]

    def waits_for_restart(self, row: Setting) -> bool:
        """Whether a setting was changed that the running server does not follow."""
        is_late = row.takes_effect in (Effect.RESTART, Effect.FIXED)
        return is_late and self.origin(row) != self.at_start.origins[row.name]

    def values(self) -> dict[str, Any]:
        """Those that can be changed, by name, as they were said; of secret ones whether they are."""
        return {row.name: self._shown(row) for row in changeable_settings()}

    async def change(self, changes: Mapping[str, Any], *, actor: str) -> None:
        """Change settings by name; None goes back to what the server was started with. All are changed, or none.

        Raises `InvalidRequest`, whose param is the setting where one alone is at fault.
        """
        kept, _ = usable_changes(self._given, self._store.current.overrides)
        try:
            with_changes(self._given, {**kept, **changes})
        except SettingsError as error:
            raise InvalidRequest(str(error), param=self._culprit(kept, changes)) from None
        secret = {row.name for row in SETTINGS if row.is_secret}
        told = {name: HIDDEN if name in secret and said is not None else said for name, said in changes.items()}
        await self._store.override(changes, told=told, actor=actor)

    def _shown(self, row: Setting) -> Any:
        said = self.origin(row).said
        return HIDDEN if row.is_secret and said is not None else said

    def _culprit(self, kept: Mapping[str, Any], changes: Mapping[str, Any]) -> str | None:
        """The first of the changes that cannot be made by itself; else the first."""
        for name, said in changes.items():
            if usable_changes(self._given, {**kept, name: said})[1]:
                return name
        return next(iter(changes), None)

    def _follow(self, configuration: Configuration) -> None:
        kept, problems = usable_changes(self._given, configuration.overrides)
        if problems != self._problems:
            self._problems = problems
            for problem in problems:
                _logger.warning("A setting that an admin changed is left as it was: %s", problem)
        current = with_changes(self._given, kept)
        if current != self.current:
            self.current = current
            for listener in self._listeners:
                listener(current)
