"""How settings are read: flags win over variables, those over config.toml, that over the default. What an admin
changed wins over all of them.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlx_manager.catalog.model import LoadOptions
from mlx_manager.catalog.overrides import ModelOverrides, OverrideError, override
from mlx_manager.catalog.settings.chosen import Settings
from mlx_manager.catalog.settings.setting import Origin, Setting, SettingsError, Source
from mlx_manager.catalog.settings.table import ROWS, SETTINGS

CONFIG_FILE = "config.toml"
MODELS_TABLE = "models"
"""The table of config.toml that holds one table per model."""
CLIENT_VARIABLES = ("MLX_MANAGER_API_KEY",)
"""Read by commands that ask a running server, not by the server."""


def load_settings(environ: Mapping[str, str], overrides: Mapping[str, object]) -> Settings:
    """The settings in force. `overrides` are the command line's, by setting name; a None there was not given.

    An empty variable counts as unset. Raises `SettingsError`.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    for name in given:
        if name not in ROWS:
            raise SettingsError(f"There is no setting {name!r}. {_nearest(name)}")
    home: Path = _read(ROWS["home"], _find(ROWS["home"], given, environ, {}), CONFIG_FILE)
    config_file = home / CONFIG_FILE
    config = _read_config(config_file)
    origins = {row.name: _find(row, given, environ, config) for row in SETTINGS}
    chosen = {row.name: _read(row, origins[row.name], str(config_file)) for row in SETTINGS}
    models = _read_models(config.get(MODELS_TABLE, {}), str(config_file))
    return _assemble(chosen, models, origins)


def with_changes(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """`settings` with what an admin changed, by the names of settings; None is no change. Raises `SettingsError`."""
    origins = dict(settings.origins)
    chosen = {row.name: _value(settings, row) for row in SETTINGS}
    for name, said in changes.items():
        row = _changeable(name)
        if said is not None:
            origins[name] = Origin(source=Source.DATABASE, said=said)
            chosen[name] = _read(row, origins[name], "")
    return _assemble(chosen, settings.models, origins)


def usable_changes(settings: Settings, changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Those of the changes kept that can still be used, and one sentence for each that cannot.

    A newer version may know fewer settings, or allow less: the server starts all the same.
    """
    kept: dict[str, Any] = {}
    problems = []
    for name, said in changes.items():
        try:
            with_changes(settings, kept | {name: said})
        except SettingsError as error:
            problems.append(str(error))
        else:
            kept[name] = said
    return kept, problems


def changeable_settings() -> Iterable[Setting]:
    """Those that an admin can change while the server runs."""
    return (row for row in SETTINGS if row.is_changeable)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """One sentence for each MLX_MANAGER_* variable that no setting reads: most likely a misspelt one."""
    known = {row.env for row in SETTINGS}
    return [
        f"{name} is set, but no setting reads it. {_nearest(name.removeprefix('MLX_MANAGER_').lower(), as_env=True)}"
        for name in sorted(environ)
        if name.startswith("MLX_MANAGER_") and name not in known and name not in CLIENT_VARIABLES
    ]


def _assemble(
    chosen: Mapping[str, Any], models: Mapping[str, ModelOverrides], origins: Mapping[str, Origin]
) -> Settings:
    load = LoadOptions(**{row.field: chosen[row.name] for row in SETTINGS if row.is_load})
    _check_together(load)
    own = {row.field: chosen[row.name] for row in SETTINGS if not row.is_load}
    return Settings(load=load, models=models, origins=origins, **own)


def _value(settings: Settings, row: Setting) -> Any:
    return getattr(settings.load if row.is_load else settings, row.field)


def _changeable(name: str) -> Setting:
    row = ROWS.get(name)
    if row is None:
        raise SettingsError(f"There is no setting {name!r}. {_nearest(name)}")
    if not row.is_changeable:
        raise SettingsError(
            f"{name!r} cannot be changed while the server runs: set {row.flag}, {row.env} or {name} in "
            f"{CONFIG_FILE}, and start it again."
        )
    return row


def _find(row: Setting, given: Mapping[str, Any], environ: Mapping[str, str], config: Mapping[str, Any]) -> Origin:
    """What was said for a setting last, and where."""
    if row.name in given:
        return Origin(source=Source.FLAG, said=given[row.name])
    if environ.get(row.env, "") != "":
        return Origin(source=Source.ENVIRONMENT, said=environ[row.env])
    if row.name in config:
        return Origin(source=Source.FILE, said=config[row.name])
    return Origin(source=Source.DEFAULT, said=row.default)


def _read(row: Setting, origin: Origin, config_name: str) -> Any:
    if origin.source is Source.DEFAULT and origin.said is None:
        return None
    try:
        return row.parse(origin.said)
    except ValueError as error:
        source = {
            Source.DEFAULT: "its default",
            Source.FILE: f"{row.name} in {config_name}",
            Source.ENVIRONMENT: f"the environment variable {row.env}",
            Source.FLAG: f"the flag {row.flag}",
            Source.DATABASE: "what was changed",
        }[origin.source]
        raise SettingsError(f"{row.name} cannot be {origin.said!r} (from {source}): {error}") from None


def _read_config(file: Path) -> dict[str, object]:
    try:
        config = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}. Make it a readable UTF-8 file, or remove it.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}. A line looks like: port = 10242") from None
    for key in config:
        if key == "home":
            raise SettingsError(f"home cannot be set in {file}, which lies inside it. Set MLX_MANAGER_HOME or --home.")
        if key not in ROWS and key != MODELS_TABLE:
            raise SettingsError(f"There is no setting {key!r} (in {file}). {_nearest(key)}")
    return config


def _read_models(tables: object, config_name: str) -> dict[str, ModelOverrides]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise SettingsError(f'{MODELS_TABLE} in {config_name} holds tables, one per model: [{MODELS_TABLE}."NAME"].')
    models: dict[str, ModelOverrides] = {}
    claimed: dict[str, str] = {}
    for name, table in tables.items():
        try:
            models[name] = override(ModelOverrides(), table)
        except OverrideError as error:
            raise SettingsError(f'{error} (in [{MODELS_TABLE}."{name}"] of {config_name})') from None
        for alias in models[name].aliases:
            other = claimed.setdefault(alias, name)
            if other != name or alias in tables:
                holder = "a model of its own there" if alias in tables else f"an alias of {other!r} too"
                raise SettingsError(
                    f"The alias {alias!r} of {name!r} is {holder} (in {config_name}). A name leads to one model: "
                    "choose another alias."
                )
    return models


def _nearest(name: str, *, as_env: bool = False) -> str:
    close = difflib.get_close_matches(name, ROWS, n=1, cutoff=0.5)
    if not close:
        return f"Known settings: {', '.join(row.env if as_env else row.name for row in SETTINGS)}."
    return f"Did you mean {ROWS[close[0]].env if as_env else close[0]}?"


def _check_together(load: LoadOptions) -> None:
    if load.max_step_tokens < load.max_batch_size:
        raise SettingsError(
            f"max_step_tokens ({load.max_step_tokens}) is less than max_batch_size ({load.max_batch_size}): a step "
            "takes one token of every running sequence. Raise max_step_tokens or lower max_batch_size."
        )
    if load.max_context and load.default_max_tokens and load.default_max_tokens >= load.max_context:
        raise SettingsError(
            f"default_max_tokens ({load.default_max_tokens}) leaves no room for a prompt in max_context "
            f"({load.max_context}). Lower default_max_tokens."
        )
