"""What is said about models by name: the overrides of config.toml, what an admin changed since, and aliases."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from mlx_manager.catalog import ModelOverrides, OverrideError, model_setting, override
from mlx_manager.errors import InvalidRequest

logger = logging.getLogger(__name__)


class ModelNames:
    """Overrides and aliases. Changes are written to `state_file` at once, whole or not at all; None keeps them here."""

    def __init__(self, configured: Mapping[str, ModelOverrides], state_file: Path | None) -> None:
        self._configured = dict(configured)
        self._state_file = state_file
        self._changes: dict[str, dict[str, object]] = {}
        self._effective = dict(configured)
        if state_file is not None:
            self._read(state_file)

    def overrides(self, name: str) -> ModelOverrides:
        """What holds for the model `name`."""
        return self._effective.get(name, ModelOverrides())

    def mentioned(self) -> list[str]:
        """Every model that something is said about."""
        return sorted({*self._configured, *self._changes})

    def resolve(self, name: str, existing: Iterable[str]) -> str:
        """The model that `name` leads to: its own name where there is such a model, else the model of that alias."""
        if name in existing:
            return name
        return next((model for model, said in sorted(self._effective.items()) if name in said.aliases), name)

    def configure(self, configured: Mapping[str, ModelOverrides]) -> None:
        """The config says this from now on; what admins changed stays on top of it, as far as it can."""
        self._configured = dict(configured)
        self._effective = dict(configured)
        for name, values in self._changes.items():
            self._effective[name] = override(configured.get(name, ModelOverrides()), values)

    def changed(self, name: str, values: Mapping[str, object]) -> ModelOverrides:
        """What would hold for the model `name` after such a change. Raises `InvalidRequest`."""
        merged = self._merged(name, values)
        try:
            for key in values:
                model_setting(key)
            changed = override(self._configured.get(name, ModelOverrides()), merged)
        except OverrideError as error:
            raise InvalidRequest(str(error), param=error.name) from None
        self._check_aliases(name, changed)
        return changed

    def change(self, name: str, values: Mapping[str, object]) -> ModelOverrides:
        """Set `values` by setting name, on top of what the config says; null goes back to that.

        Raises `InvalidRequest`, and then nothing has changed.
        """
        changed = self.changed(name, values)
        self._changes = {**self._changes, name: self._merged(name, values)}
        self._effective[name] = changed
        self._write()
        return changed

    def _merged(self, name: str, values: Mapping[str, object]) -> dict[str, object]:
        merged = {**self._changes.get(name, {}), **values}
        return {key: value for key, value in merged.items() if value is not None}

    def _check_aliases(self, name: str, changed: ModelOverrides) -> None:
        for other, said in self._effective.items():
            taken = set(changed.aliases) & set(said.aliases) if other != name else set()
            if taken:
                raise InvalidRequest(f"The alias {min(taken)!r} is one of {other!r} already.", param="aliases")

    @staticmethod
    def check_free(changed: ModelOverrides, known: Container[str]) -> None:
        """Raises `InvalidRequest` where an alias is the name of a model, which it would never lead to."""
        for alias in changed.aliases:
            if alias in known:
                raise InvalidRequest(
                    f"The alias {alias!r} is the name of a model here, which would answer instead: take another.",
                    param="aliases",
                )

    def _read(self, file: Path) -> None:
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))["models"]
            for name, values in stored.items():
                self._effective[name] = override(self._configured.get(name, ModelOverrides()), values)
                self._changes[name] = values
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("What admins changed about models is left out: %s cannot be read: %s", file, error)

    def _write(self) -> None:
        if self._state_file is None:
            return
        self._state_file.parent.mkdir(parents=True, exist_ok=True)
        new = self._state_file.with_suffix(".new")
        new.write_text(json.dumps({"models": self._changes}, indent=2), encoding="utf-8")
        os.replace(new, self._state_file)
