"""The system's keychain, through the optional library keyring: macOS's, or the Secret Service of a Linux desktop."""

from __future__ import annotations

import os
from types import ModuleType

from mlx_manager.errors import StorageUnavailable

SERVICE = "mlx-manager"
_CHOSEN = "PYTHON_KEYRING_BACKEND"
"""The library's own variable: who sets it knows which keychain they want."""
_LEAST_SAFE = 1
"""The library gives keychains that it recommends this priority or more; plain files, say, have less."""


def read_keychain(account: str) -> str | None:
    """What is kept under `account`; None for nothing. Raises `StorageUnavailable`."""
    keyring = _library()
    try:
        kept: str | None = keyring.get_password(SERVICE, account)
    except keyring.errors.KeyringError as error:
        raise _unavailable("read", error) from None
    return kept


def write_keychain(account: str, text: str) -> None:
    """Keep `text` under `account`, in place of what there was. Raises `StorageUnavailable`."""
    keyring = _library()
    try:
        keyring.set_password(SERVICE, account, text)
    except keyring.errors.KeyringError as error:
        raise _unavailable("written", error) from None
    if read_keychain(account) != text:
        raise StorageUnavailable("The system's keychain does not keep what it is given.")


def forget_in_keychain(account: str) -> None:
    """Keep nothing under `account`. Raises `StorageUnavailable`."""
    keyring = _library()
    try:
        keyring.delete_password(SERVICE, account)
    except keyring.errors.KeyringError as error:
        raise _unavailable("written", error) from None


def _library() -> ModuleType:
    try:
        # an extra, and half a second to import
        import keyring  # noqa: PLC0415
        import keyring.errors  # noqa: PLC0415
    except ModuleNotFoundError:
        raise StorageUnavailable(
            "The system's keychain needs the package keyring: pip install 'mlx-manager[keychain]'."
        ) from None
    if keyring.get_keyring().priority < _LEAST_SAFE and _CHOSEN not in os.environ:
        raise StorageUnavailable(
            f"This system has no keychain that can be used. The variable {_CHOSEN} names one that is not recommended."
        )
    return keyring


def _unavailable(what: str, error: Exception) -> StorageUnavailable:
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return StorageUnavailable(f"The system's keychain cannot be {what}: {said}")
