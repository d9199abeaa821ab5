"""The model folders on this machine: those under home/models, one or two levels deep, and any folder named by path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlx_manager.catalog import ModelEntry
from mlx_manager.errors import InvalidRequest, ModelNotFound
from mlx_manager.hub.model_folder import read_entry


class Inventory:
    """Looks at the disk on every call; a folder that has not changed is not read again.

    `also` are folders outside home that are served too, by the name of the folder; what is not a folder is left out.
    """

    def __init__(self, home: Path, also: Sequence[str] = ()) -> None:
        self.models_folder = home / "models"
        self._also = tuple(folder for folder in (_as_path(name) for name in also) if folder.is_dir())
        self._known: dict[Path, tuple[tuple[int, ...], ModelEntry]] = {}

    def entries(self) -> list[ModelEntry]:
        """Every model that can be served, by name. Folders that are no models are left out; see `broken`."""
        found: dict[str, ModelEntry] = {}
        for folder in self._folders():
            try:
                entry = self._entry(folder)
            except InvalidRequest:
                continue
            found.setdefault(entry.name, entry)
        return sorted(found.values(), key=lambda entry: entry.name)

    def broken(self) -> list[str]:
        """One sentence for each folder under home/models that looks like a model but cannot be served."""
        sentences = []
        for folder in self._folders():
            try:
                self._entry(folder)
            except InvalidRequest as error:
                sentences.append(error.message)
        return sentences

    def find(self, name_or_path: str) -> ModelEntry:
        """The model of that name, or in that folder. Raises `ModelNotFound`; `InvalidRequest` for a broken one."""
        entries = self.entries()
        for entry in entries:
            if entry.name == name_or_path:
                return entry
        folder = _as_path(name_or_path)
        in_home = self.models_folder / name_or_path
        for candidate in (folder, in_home):
            if candidate.is_dir():
                return self._entry(candidate)
        if folder.is_file():
            hint = f"Import it first: mlx-manager import {folder}" if folder.suffix == ".gguf" else "It takes a folder."
            raise InvalidRequest(f"{folder} is a file, not a model folder. {hint}")
        existing = ", ".join(entry.name for entry in entries) or "none"
        raise ModelNotFound(
            f"There is no model {name_or_path!r}: no folder of that path, and none of that name in "
            f"{self.models_folder} (there: {existing})."
        )

    def _entry(self, folder: Path) -> ModelEntry:
        """Read the model in `folder`, unless neither it nor its config changed since."""
        stamp = _stamp(folder)
        known = self._known.get(folder)
        if known is not None and known[0] == stamp:
            return known[1]
        entry = read_entry(folder, self._name_of(folder))
        self._known[folder] = (stamp, entry)
        return entry

    def _name_of(self, folder: Path) -> str:
        if folder.is_relative_to(self.models_folder):
            return folder.relative_to(self.models_folder).as_posix()
        # A snapshot in the Hugging Face cache: models--ORG--NAME/snapshots/REVISION
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
            return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        return folder.name

    def _folders(self) -> Iterator[Path]:
        """Folders that might be models: those given, those in home with files in them, those one level deeper."""
        yield from self._also
        for folder in _subfolders(self.models_folder):
            if (folder / "config.json").exists() or not (deeper := _subfolders(folder)):
                yield folder
            else:
                yield from deeper


def _as_path(name_or_path: str) -> Path:
    return Path(os.path.normpath(Path(name_or_path).expanduser().absolute()))


def _subfolders(folder: Path) -> list[Path]:
    """Visible ones: what is being written has a name that begins with a dot."""
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _stamp(folder: Path) -> tuple[int, ...]:
    """Changes whenever the folder's list of files or its config does."""
    files = (folder, folder / "config.json")
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
