"""The server's own keys in a keychain of the library keyring: one that is a file, so that it can be looked into."""

from __future__ import annotations

import json
from pathlib import Path

import keyring
import keyring.core
import pytest

from mlx_manager.errors import StorageUnavailable
from mlx_manager.storage.keychain import SERVICE
from mlx_manager.storage.secrets import KEY_FILE, Secrets
from mlx_manager.storage.store import Store
from tests.storage.test_database import fill

FILE = "keyrings.alt.file.PlaintextKeyring"


def choose(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an operator chooses a keychain: by the library's own variable. One that is a file is made in `tmp_path`."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", backend)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    keyring.core.init_backend()


async def test_keys_move_into_a_keychain_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(FILE, tmp_path, monkeypatch)
    store = await Store.open(None, tmp_path)
    sealed = (await fill(store)).sealed["cloud"]
    assert sealed is not None
    running = Secrets.open(tmp_path)
    token = running.sign({"sub": "1", "exp": 4_000_000_000})
    await store.move_secrets(to_keychain=True, actor="test")
    file = tmp_path / "secrets" / KEY_FILE
    assert json.loads(file.read_text()) == {"keychain": str(tmp_path)}
    assert file.stat().st_mode & 0o077 == 0
    assert keyring.get_password(SERVICE, str(tmp_path)) is not None
    for reader in (running, Secrets.open(tmp_path)):
        assert reader.is_in_keychain
        assert reader.unseal(sealed) == b"sk-1"
        assert reader.verify(token) is not None, "nobody has to log in again"
    assert await store.rotate_secrets(actor="test") == 2
    rotated = store.current.sealed["cloud"]
    assert rotated is not None
    assert running.unseal(rotated) == b"sk-1"
    assert running.verify(token) is None
    await store.move_secrets(to_keychain=False, actor="test")
    assert "encryption" in json.loads(file.read_text())
    assert keyring.get_password(SERVICE, str(tmp_path)) is None
    assert Secrets.open(tmp_path).unseal(rotated) == b"sk-1"
    assert [row.action for row in await store.changes()][:3] == ["secrets.move", "secrets.rotate", "secrets.move"]
    await store.close()


async def test_keys_that_the_keychain_lost_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(FILE, tmp_path, monkeypatch)
    store = await Store.open(None, tmp_path)
    await store.move_secrets(to_keychain=True, actor="test")
    await store.close()
    keyring.delete_password(SERVICE, str(tmp_path))
    with pytest.raises(StorageUnavailable, match="in the system's keychain, which has none"):
        await Store.open(None, tmp_path)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("keyring.backends.fail.Keyring", "cannot be written: No recommended backend"),
        ("keyring.backends.null.Keyring", "does not keep what it is given"),
        (None, "has no keychain that can be used"),
    ],
)
async def test_a_keychain_that_keeps_nothing_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, message: str
) -> None:
    choose(chosen or FILE, tmp_path, monkeypatch)
    if chosen is None:
        # as where the library finds nothing better by itself
        monkeypatch.delenv("PYTHON_KEYRING_BACKEND")
    store = await Store.open(None, tmp_path)
    with pytest.raises(StorageUnavailable, match=message):
        await store.move_secrets(to_keychain=True, actor="test")
    assert not Secrets.open(tmp_path).is_in_keychain
    assert await store.rotate_secrets(actor="test") == 0
    await store.close()
