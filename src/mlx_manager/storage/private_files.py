"""Files that only this machine's user can read, and the one through which commands show that they are that user's."""

from __future__ import annotations

import os
import secrets as random
from contextlib import suppress
from pathlib import Path

from mlx_manager.errors import StorageUnavailable

FOLDER = "secrets"
LOCAL_TOKEN_FILE = "local-token"


def ensure_local_token(home: Path) -> str:
    """The secret of this machine's commands, made where there is none: only its user can read it.

    Raises `StorageUnavailable`.
    """
    file = home / FOLDER / LOCAL_TOKEN_FILE
    if read_local_token(home) is None:
        write_private(file, f"mlxm_local_{random.token_urlsafe(32)}".encode(), is_new=True)
    token = read_local_token(home)
    if token is None:
        raise StorageUnavailable(f"{file} cannot be read: remove it.")
    return token


def read_local_token(home: Path) -> str | None:
    """The secret of this machine's commands; None where there is none, or it may not be read."""
    try:
        return (home / FOLDER / LOCAL_TOKEN_FILE).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def write_private(file: Path, content: bytes, *, is_new: bool = False) -> None:
    """Write `file` whole or not at all, for its user alone. With `is_new`, one that is there already stays as it is.

    Raises `StorageUnavailable`.
    """
    fresh = file.with_name(f"{file.name}.{random.token_hex(6)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        if is_new:
            # two servers may begin at once: one of them makes the file
            with suppress(FileExistsError):
                os.link(fresh, file)
            fresh.unlink()
        else:
            os.replace(fresh, file)
    except OSError as error:
        raise StorageUnavailable(f"{file} cannot be written: {error.strerror}.") from None
