"""The models on this machine: in home, in the shared cache of the hub, in folders of other programs, and by path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlx_manager.catalog import ModelEntry
from mlx_manager.errors import InvalidRequest, ModelNotFound
from mlx_manager.hub.foreign import ForeignModel, find_foreign, resolve_folders
from mlx_manager.hub.hub_cache import model_id_of, snapshot_folders
from mlx_manager.hub.model_folder import read_entry


class Inventory:
    """Looks at the disk on every call; a folder that has not changed is not read again.

    `also` are folders outside home that are served too, by the name of the folder; what is not a folder is left out.
    `cache` is the shared cache of the hub. `scan` are folders of other programs, or the words that name them.
    """

    def __init__(
        self, home: Path, also: Sequence[str] = (), *, cache: Path | None = None, scan: Sequence[str] = ()
    ) -> None:
        self.models_folder = home / "models"
        self._cache = cache
        self._scanned = resolve_folders(scan)
        self._also = tuple(folder for folder in (_as_path(name) for name in also) if folder.is_dir())
        self._known: dict[Path, tuple[tuple[int, ...], ModelEntry | InvalidRequest]] = {}

    def entries(self) -> list[ModelEntry]:
        """Every model that can be served, by name. Folders that are no models are left out; see `broken`.

        Of several by one name the first counts: a folder given, home, the cache, the folders of other programs.
        """
        found: dict[str, ModelEntry] = {}
        for folder in self._folders():
            entry = self._look(folder)
            if isinstance(entry, ModelEntry):
                found.setdefault(entry.name, entry)
        return sorted(found.values(), key=lambda entry: entry.name)

    def broken(self) -> list[str]:
        """One sentence for each folder under home/models that looks like a model but cannot be served.

        The cache and other programs' folders hold a lot that is not meant for us: nothing is said about those.
        """
        looked = (self._look(folder) for folder in (*self._also, *model_folders(self.models_folder)))
        return [refusal.message for refusal in looked if isinstance(refusal, InvalidRequest)]

    def foreign(self) -> list[ForeignModel]:
        """Models in the cache and in the folders to scan that would have to be imported before they can be served."""
        return find_foreign(self._cache, self._scanned)

    def find(self, name_or_path: str) -> ModelEntry:
        """The model of that name, or in that folder. Raises `ModelNotFound`; `InvalidRequest` for a broken one."""
        entries = self.entries()
        for entry in entries:
            if entry.name == name_or_path:
                return entry
        folder = _as_path(name_or_path)
        for candidate in (folder, self.models_folder / name_or_path, *self._snapshots(name_or_path)):
            if candidate.is_dir():
                looked = self._look(candidate)
                if isinstance(looked, InvalidRequest):
                    raise looked
                return looked
        if folder.is_file():
            hint = f"Import it first: mlx-manager import {folder}" if folder.suffix == ".gguf" else "It takes a folder."
            raise InvalidRequest(f"{folder} is a file, not a model folder. {hint}")
        existing = ", ".join(entry.name for entry in entries) or "none"
        raise ModelNotFound(
            f"There is no model {name_or_path!r}: no folder of that path, and none of that name in "
            f"{self.models_folder} (there: {existing})."
        )

    def _look(self, folder: Path) -> ModelEntry | InvalidRequest:
        """The model in `folder`, or what is wrong with it; not read again unless it or its config changed."""
        stamp = _stamp(folder)
        known = self._known.get(folder)
        if known is not None and known[0] == stamp:
            return known[1]
        looked: ModelEntry | InvalidRequest
        try:
            looked = read_entry(folder, self._name_of(folder))
        except InvalidRequest as error:
            looked = error
        self._known[folder] = (stamp, looked)
        return looked

    def _name_of(self, folder: Path) -> str:
        model_id = model_id_of(folder)
        if model_id is not None:
            return model_id
        for parent in (self.models_folder, *self._scanned):
            if folder.is_relative_to(parent) and folder != parent:
                return folder.relative_to(parent).as_posix()
        return folder.name

    def _snapshots(self, model_id: str) -> Iterator[Path]:
        """The snapshot of the model of that name, whether it is whole or not."""
        if self._cache is not None:
            yield from (folder for folder in snapshot_folders(self._cache) if model_id_of(folder) == model_id)

    def _folders(self) -> Iterator[Path]:
        """Folders that might be models: those given, those in home, in the cache, in the folders to scan."""
        yield from self._also
        yield from model_folders(self.models_folder)
        if self._cache is not None:
            yield from snapshot_folders(self._cache)
        for scanned in self._scanned:
            yield from model_folders(scanned)


def model_folders(parent: Path) -> Iterator[Path]:
    """Folders in `parent` that might be models: those with a config, and otherwise those one level deeper."""
    for folder in _subfolders(parent):
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
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _stamp(folder: Path) -> tuple[int, ...]:
    """Changes whenever the folder's list of files or its config does."""
    files = (folder, folder / "config.json")
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
