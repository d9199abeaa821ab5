"""The cache that all tools of Hugging Face's share: which models are in it, and what is taken out of it again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from mlx_manager.hub.access import HubAccess

PARTIAL_SUFFIX = ".mlx-manager.incomplete"
"""Of our unfinished files; it ends as the client's own do, so that its cleaning finds ours too."""
_PREFIX = "models--"


def snapshot_folders(cache: Path) -> Iterator[Path]:
    """One folder for each model in the cache: what its branch main points to, else its newest snapshot."""
    for repository in _repositories(cache):
        snapshots = repository / "snapshots"
        try:
            main = snapshots / (repository / "refs" / "main").read_text(encoding="utf-8").strip()
            if main.name != "snapshots" and main.is_dir():
                yield main
                continue
        except (OSError, UnicodeDecodeError):
            pass
        newest = max(_subfolders(snapshots), key=lambda folder: folder.stat().st_mtime_ns, default=None)
        if newest is not None:
            yield newest


def model_id_of(folder: Path) -> str | None:
    """ORG/NAME of a snapshot folder, models--ORG--NAME/snapshots/REVISION; None for any other folder."""
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith(_PREFIX):
        return folder.parent.parent.name.removeprefix(_PREFIX).replace("--", "/")
    return None


def discard_unfinished(access: HubAccess, model_id: str) -> None:
    """Remove what an unfinished download of the model left: partial files, and blobs that no snapshot uses.

    Another tool's unfinished files stay.
    """
    repository = access.repository_folder(model_id)
    used = {file.resolve().name for file in (repository / "snapshots").glob("*/**/*") if file.is_symlink()}
    for blob in list((repository / "blobs").glob("*")):
        is_foreign = blob.name.endswith(".incomplete") and not blob.name.endswith(PARTIAL_SUFFIX)
        if blob.name not in used and not is_foreign:
            blob.unlink(missing_ok=True)
    if not any((repository / "snapshots").glob("*/*")) and not any((repository / "blobs").glob("*")):
        shutil.rmtree(repository, ignore_errors=True)


def remove_repository(access: HubAccess, model_id: str) -> None:
    """Remove a model with all its revisions. Raises `OSError`."""
    shutil.rmtree(access.repository_folder(model_id))
    shutil.rmtree(access.cache_folder / ".locks" / access.repository_folder(model_id).name, ignore_errors=True)


def _repositories(cache: Path) -> list[Path]:
    return [folder for folder in _subfolders(cache) if folder.name.startswith(_PREFIX)]


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
