"""The private folder that one pool's sockets lie in, and the sweep of those that killed gateways left behind."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

MAX_SOCKET_PATH_BYTES = 100
"""Unix socket paths hold 104 bytes on macOS and 108 on Linux, the closing zero included."""
_PREFIX = "mlxm-"
_OWNER = "owner"
"""A file that the folder's gateway keeps locked for as long as it lives; the system drops the lock with the process."""


class SocketFolder:
    """A new folder that only this user can enter, with a path short enough for sockets in it.

    Making one first removes those of dead gateways.
    """

    def __init__(self) -> None:
        sweep_dead_folders()
        self.path = _private_folder()
        self._lock = _lock(self.path)
        self._numbers = itertools.count(1)

    def new_path(self) -> Path:
        """A path no socket has had."""
        return self.path / f"{next(self._numbers)}"

    def remove(self) -> None:
        """Remove the folder; every socket must be closed before."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def sweep_dead_folders() -> None:
    """Remove the socket folders of this user's gateways that are gone, as one killed by SIGKILL leaves its own.

    Only a folder that holds an owner file which nobody has locked is of a dead gateway. Any other is left alone: it may
    be one that is just being made, or not ours at all.
    """
    for parent in {Path(tempfile.gettempdir()), Path("/tmp")}:
        for folder in parent.glob(f"{_PREFIX}*"):
            if _is_own_private(folder):
                _remove_if_dead(folder)


def _is_own_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def _remove_if_dead(folder: Path) -> None:
    try:
        with (folder / _OWNER).open("rb") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return  # no owner file, or its gateway lives


def _lock(folder: Path) -> BinaryIO:
    """The open owner file of `folder`. It gets its name when it is locked, so that no sweep ever finds it unlocked."""
    unnamed = folder / f".{_OWNER}"
    owner = unnamed.open("wb")
    fcntl.flock(owner, fcntl.LOCK_EX)
    unnamed.rename(folder / _OWNER)
    return owner


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    if len(bytes(folder)) + len("/1000000") <= MAX_SOCKET_PATH_BYTES:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))
