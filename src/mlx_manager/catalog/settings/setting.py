"""One row of the settings table, and where the value of a setting came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec


class SettingsError(Exception):
    """A setting cannot be used. The message names it, where it came from, and what would be right."""


class Effect(StrEnum):
    """When a value that an admin changes holds."""

    AT_ONCE = "at once"
    NEXT_LOAD = "with the next load of a model"
    RESTART = "after a restart"
    FIXED = "only from outside, after a restart"
    """It is needed before there is a database, or does not belong into one."""


class Source(StrEnum):
    """Where a value came from. Those further down win."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"
    DATABASE = "database"
    """An admin changed it."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What was said for a setting, before it was read, and where."""

    source: Source = Source.DEFAULT
    said: str | int | float | bool | list[str] | tuple[str, ...] | None = None


@dataclass(frozen=True)
class Setting:
    """One row of the table. `name` is its key in config.toml; its field may carry the unit in its name as well."""

    name: str
    type: str
    """For people: what kind of value it takes."""
    default: str | int | float | bool | tuple[str, ...] | None
    unit: str
    help: str
    parse: Callable[[object], object]
    """From what the source holds (text, or a TOML value). Raises `ValueError` that says what would be right."""
    field: str
    """Of `Settings`, or of `LoadOptions` where `is_load`."""
    is_load: bool = False
    choices: tuple[str, ...] = ()
    takes_effect: Effect = Effect.AT_ONCE
    is_secret: bool = False
    """Whether its value is not shown."""

    @property
    def env(self) -> str:
        """Its environment variable."""
        return f"MLX_MANAGER_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """Its command-line flag."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def is_changeable(self) -> bool:
        """Whether an admin can change it while the server runs, whenever it holds then."""
        return self.takes_effect is not Effect.FIXED
