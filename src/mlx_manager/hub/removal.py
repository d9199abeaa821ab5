"""Models taken off the disk: those of ours and those of the shared cache, never those of other programs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from mlx_manager.errors import Conflict, DownloadFailed, ModelNotFound
from mlx_manager.hub.access import HubAccess
from mlx_manager.hub.hub_cache import model_id_of
from mlx_manager.hub.inventory import Inventory


@dataclass(frozen=True)
class Removable:
    """What deleting a model would take away."""

    folder: Path
    """In the cache the whole repository, with all its revisions."""
    size_bytes: int
    also: tuple[Path, ...] = ()
    """Its locks, which hold nothing."""


def find_removable(inventory: Inventory, access: HubAccess, name: str) -> Removable:
    """The folder of the model `name`, whether it is whole or not.

    Raises `ModelNotFound`, and `Conflict` for a model that belongs to another program.
    """
    in_home = inventory.models_folder / name
    repository = access.repository_folder(name)
    entry = next((entry for entry in inventory.entries() if entry.name == name), None)
    is_plain = ".." not in Path(name).parts and bool(name.strip("/.")) and not name.startswith("/")
    if is_plain and in_home.is_dir() and (entry is None or Path(entry.path).is_relative_to(inventory.models_folder)):
        return Removable(in_home, _size(in_home))
    in_cache = entry is None or model_id_of(Path(entry.path)) is not None
    if is_plain and in_cache and repository.is_dir():
        return Removable(repository, _size(repository), (access.cache_folder / ".locks" / repository.name,))
    if entry is not None:
        raise Conflict(f"{name} lies in {entry.path}, which belongs to another program: delete it there.")
    existing = ", ".join(entry.name for entry in inventory.entries()) or "none"
    raise ModelNotFound(f"There is no model {name!r} to delete. Models here: {existing}.")


def remove(found: Removable) -> None:
    """Delete it. Raises `DownloadFailed` where the disk does not let go."""
    try:
        shutil.rmtree(found.folder)
    except OSError as error:
        raise DownloadFailed(f"{error.filename or found.folder} cannot be deleted: {error.strerror}.") from None
    for folder in found.also:
        shutil.rmtree(folder, ignore_errors=True)
    if not any(found.folder.parent.iterdir()) and found.folder.parent.name != "models":
        found.folder.parent.rmdir()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
