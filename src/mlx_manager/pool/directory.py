"""What is asked of whatever has models, the pool above all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mlx_manager.errors import Conflict
from mlx_manager.pool.status import ModelState, ModelStatus


class ModelDirectory(Protocol):
    """What the routes ask of the pool: what is there, and how it stands."""

    @property
    def default_model(self) -> str | None:
        """The name of the model that the server was started for; None when there is none."""
        ...

    def statuses(self) -> Sequence[ModelStatus]:
        """Every model that can be asked for, loaded or not. Answers at once."""
        ...

    def progress(self, name: str) -> str | None:
        """What a request to the model or alias `name` waits for, in a line; None where it waits for no load."""
        ...


def refuse_loaded(models: ModelDirectory, name: str, verb: str) -> None:
    """Raises `Conflict` while the model `name` is in memory, or on its way there."""
    for status in models.statuses():
        if status.entry.name == name and status.state not in (ModelState.COLD, ModelState.FAILED):
            raise Conflict(f"{name} is {status.state.value}: unload it before it is {verb}.")
