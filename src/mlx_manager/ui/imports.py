"""The imports of GGUF files that run or have failed. They outlive the dialog and the page that began them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_manager.catalog import ModelEntry
from mlx_manager.errors import MlxManagerError
from mlx_manager.hub.desk import HubDesk


@dataclass(eq=False)
class Import:
    """One of them. Written by `Imports`, and from the thread that converts."""

    name: str
    """Of the model that it is to be."""
    stage: str = "starting"
    fraction: float = 0.0
    error: MlxManagerError | None = None
    """Why it failed."""


class Imports:
    """One per console."""

    def __init__(self) -> None:
        self.all: list[Import] = []
        """The latest last; those that are done are not in it."""

    async def run(self, hub: HubDesk, made: Import, source: Path, *, force: bool) -> ModelEntry:
        """Import `source`, seen in `all` meanwhile. Raises `MlxManagerError`; it stays in `all` then."""

        def report(stage: str, fraction: float) -> None:
            # called from the thread that converts; who shows it looks by itself
            made.stage, made.fraction = stage, fraction

        self.all.append(made)
        try:
            entry = await hub.import_gguf(source, name=made.name, force=force, report=report)
        except MlxManagerError as error:
            made.error = error
            raise
        except BaseException:
            self.dismiss(made)
            raise
        self.dismiss(made)
        return entry

    def dismiss(self, made: Import) -> None:
        """Tell of it no longer."""
        if made in self.all:
            self.all.remove(made)
