"""The keys of this server, in a file that only its user can read, or in the system's keychain: one encrypts what has to
be read again (JWE), one signs sessions (JWT). Passwords and API keys are hashed: nobody has to read them again."""

from __future__ import annotations

import json
import secrets as random
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc import jwe, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from mlx_manager.errors import StorageUnavailable
from mlx_manager.storage.keychain import forget_in_keychain, read_keychain, write_keychain
from mlx_manager.storage.private_files import FOLDER, write_private

KEY_FILE = "master.json"
_ENCRYPTION = {"alg": "dir", "enc": "A256GCM"}
_SIGNATURE = "HS256"


class BrokenSecret(StorageUnavailable):
    """What was encrypted cannot be read with the keys that are there."""

    code = "broken_secret"


@dataclass(frozen=True)
class _Keys:
    """The first of each kind is used; the others can still read what was written before a rotation."""

    encryption: tuple[OctKey, ...]
    signing: OctKey


class Secrets:
    """Reads the key file anew whenever it has changed, so that a rotation reaches a running server.

    Where the keys are in the keychain, the file says so, and is written with every change of them, too.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / KEY_FILE
        self._account: str | None = None
        """Of the keychain, where the keys are in it."""
        self._state: tuple[int, int] | None = None
        self._loaded: _Keys | None = None

    @classmethod
    def open(cls, home: Path) -> Secrets:
        """The keys in `home`, made when there are none. Raises `StorageUnavailable`."""
        opened = cls(home / FOLDER)
        if not opened._file.exists():
            write_private(opened._file, _render(_Keys((_new_key(),), _new_key())), is_new=True)
        opened._keys()
        return opened

    def seal(self, plain: bytes) -> str:
        """`plain` encrypted, as a compact JWE."""
        key = self._keys().encryption[0]
        return jwe.encrypt_compact(_ENCRYPTION | {"kid": key.kid}, plain, key, algorithms=list(_ENCRYPTION.values()))

    def unseal(self, sealed: str) -> bytes:
        """What `seal` was given. Raises `BrokenSecret`."""
        for key in self._keys().encryption:
            try:
                opened = jwe.decrypt_compact(sealed, key, algorithms=list(_ENCRYPTION.values()))
            except (JoseError, ValueError):
                continue
            assert opened.plaintext is not None
            return opened.plaintext
        raise BrokenSecret(
            f"A secret in the database cannot be read with the keys in {self._file}: they are not those it was written "
            "with. Put that file back, or enter the secret again."
        )

    def sign(self, claims: dict[str, str | int]) -> str:
        """`claims` as a signed JWT."""
        return jwt.encode({"alg": _SIGNATURE}, claims, self._keys().signing, algorithms=[_SIGNATURE])

    def verify(self, token: str) -> dict[str, object] | None:
        """The claims of a JWT that `sign` made and whose time is not over; None for any other text."""
        try:
            decoded = jwt.decode(token, self._keys().signing, algorithms=[_SIGNATURE])
            jwt.JWTClaimsRegistry(exp={"essential": True}, sub={"essential": True}).validate(decoded.claims)
        except (JoseError, ValueError):
            return None
        return dict(decoded.claims)

    def begin_rotation(self) -> None:
        """Use new keys from now on; the old ones can still read. Every session ends."""
        keys = self._keys()
        self._write(_Keys((_new_key(), *keys.encryption), _new_key()), self._account)

    def end_rotation(self) -> None:
        """Forget the old keys: everything has been sealed with the new one."""
        keys = self._keys()
        self._write(_Keys(keys.encryption[:1], keys.signing), self._account)

    @property
    def is_in_keychain(self) -> bool:
        """Whether the system's keychain has the keys, and the file does not."""
        self._keys()
        return self._account is not None

    def move_to_keychain(self) -> None:
        """From the file. Raises `StorageUnavailable`, and then everything is as it was."""
        keys = self._keys()
        self._write(keys, self._account or str(self._file.parent.parent.resolve()))

    def move_to_file(self) -> None:
        """From the keychain. Raises `StorageUnavailable`; the file has the keys before the keychain forgets them."""
        keys, account = self._keys(), self._account
        if account is not None:
            self._write(keys, None)
            forget_in_keychain(account)

    def _keys(self) -> _Keys:
        try:
            status = self._file.stat()
            state = (status.st_mtime_ns, status.st_ino)
            if self._loaded is None or state != self._state:
                if stat.S_IMODE(status.st_mode) & 0o077:
                    self._file.chmod(0o600)
                self._account, self._loaded = _read(self._file.read_bytes())
                self._state = state
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageUnavailable(f"The keys in {self._file} cannot be read: {error}. Put the file back.") from None
        return self._loaded

    def _write(self, keys: _Keys, account: str | None) -> None:
        if account is None:
            write_private(self._file, _render(keys))
            return
        # a new file has all processes read the keychain anew
        write_keychain(account, _render(keys).decode())
        write_private(self._file, json.dumps({"keychain": account}).encode())


def _new_key() -> OctKey:
    return OctKey.generate_key(256, {"kid": random.token_hex(8)})


def _render(keys: _Keys) -> bytes:
    return json.dumps(
        {"encryption": [key.as_dict() for key in keys.encryption], "signing": keys.signing.as_dict()}
    ).encode()


def _read(content: bytes) -> tuple[str | None, _Keys]:
    """The account of the keychain that has the keys, and the keys."""
    stored = json.loads(content)
    if "keychain" not in stored:
        return None, _parse(stored)
    account = str(stored["keychain"])
    kept = read_keychain(account)
    if kept is None:
        raise ValueError(f"they are in the system's keychain, which has none for {account}")
    return account, _parse(json.loads(kept))


def _parse(stored: dict[str, Any]) -> _Keys:
    encryption = tuple(OctKey.import_key(key) for key in stored["encryption"])
    if not encryption:
        raise ValueError("it holds no key for encryption")
    return _Keys(encryption, OctKey.import_key(stored["signing"]))
