"""API keys: minted, shown once, kept as a hash, found again by it."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence

import msgspec

from mlx_manager.catalog import ApiKey, KeyLimits, Scope, User
from mlx_manager.errors import Conflict, InvalidRequest, NotFound, NotPermitted
from mlx_manager.storage import keys as stored
from mlx_manager.storage.configuration import KEY_CREATED, OPENED
from mlx_manager.storage.store import Change, Store

KEY_PREFIX = "mlxm_"
_LAST_EXPIRY_UNIX_S = 253_402_300_799
"""The end of the year 9999, after which nothing can write a date."""
_MOST = 10**15


class MintedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key and, this once, its text."""

    key: ApiKey
    secret: str


class KeyChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be different about a key."""

    name: str | None = None
    scopes: tuple[Scope, ...] | None = None
    limits: KeyLimits | None = None
    expires_unix_s: int | msgspec.UnsetType | None = msgspec.UNSET


class Keys:
    """What can be done with API keys."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> Sequence[ApiKey]:
        """Every key."""
        return self._store.current.keys

    def of(self, user_id: int) -> Sequence[ApiKey]:
        """The keys of one account."""
        return [key for key in self.all() if key.user_id == user_id]

    def find(self, key_id: int, *, user_id: int | None = None) -> ApiKey:
        """One key, among those of an account where one is given. Raises `NotFound`."""
        key = self._store.current.keys_by_id.get(key_id)
        if key is None or user_id not in (None, key.user_id):
            raise NotFound(f"There is no API key with the number {key_id}.")
        return key

    def recognize(self, secret: str) -> ApiKey | None:
        """The key that `secret` is, or was: it may have expired."""
        key_id = self._store.current.digests.get(digest_of(secret))
        return None if key_id is None else self._store.current.keys_by_id.get(key_id)

    async def mint(
        self,
        user: User,
        name: str,
        *,
        scopes: tuple[Scope, ...] = (Scope.INFERENCE,),
        limits: KeyLimits = KeyLimits(),  # noqa: B008
        expires_unix_s: int | None = None,
        actor: str,
    ) -> MintedKey:
        """A new key of `user`. Raises `InvalidRequest`, `NotPermitted` and `Conflict`."""
        secret = f"{KEY_PREFIX}{secrets.token_urlsafe(32)}"
        key = ApiKey(
            id=0,
            user_id=user.id,
            name=name.strip(),
            hint=secret[-4:],
            scopes=scopes,
            limits=limits,
            created_unix_s=int(time.time()),
            expires_unix_s=expires_unix_s,
        )
        _check(key, user)
        detail = {"name": key.name, "scopes": list(scopes), "limits": msgspec.to_builtins(limits)}
        async with self._store.changing(
            Change(actor=actor, action=KEY_CREATED, subject=user.name, detail=detail)
        ) as session:
            minted = await stored.insert(session, key, digest_of(secret))
        return MintedKey(key=minted, secret=secret)

    async def change(self, key: ApiKey, changes: KeyChanges, *, actor: str) -> ApiKey:
        """Change what a key may; it stays the same key. Raises as `mint` does."""
        said = {
            name: value
            for name, value in msgspec.structs.asdict(changes).items()
            if value is not msgspec.UNSET and (value is not None or name == "expires_unix_s")
        }
        changed = msgspec.structs.replace(key, **said)
        owner = self._store.current.users_by_id[key.user_id]
        _check(changed, owner)
        detail = {"key": key.name, **msgspec.to_builtins(said)}
        async with self._store.changing(
            Change(actor=actor, action="key.change", subject=owner.name, detail=detail)
        ) as session:
            await stored.change(session, changed)
        return changed

    async def revoke(self, key: ApiKey, *, actor: str) -> None:
        """Delete a key: it is good no longer."""
        owner = self._store.current.users_by_id[key.user_id]
        detail = {"key": key.name, "hint": key.hint}
        async with self._store.changing(
            Change(actor=actor, action="key.delete", subject=owner.name, detail=detail)
        ) as session:
            await stored.remove(session, key.id)

    async def reopen(self, *, actor: str) -> None:
        """Let /v1 of a server on loopback answer everybody there again. Raises `Conflict` while there is a key."""
        if self.all():
            raise Conflict("There are API keys: delete them first, or everybody would be let in beside them.")
        async with self._store.changing(Change(actor=actor, action=OPENED, subject="/v1")):
            pass


def digest_of(secret: str) -> str:
    """What is kept of a key. It has 256 random bits, so that a fast hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _check(key: ApiKey, owner: User) -> None:
    if not 1 <= len(key.name) <= 64 or not key.name.isprintable():
        raise InvalidRequest("A key's name has 1 to 64 printable characters.", param="name")
    if not key.scopes:
        raise InvalidRequest("A key needs a scope: inference, admin, or both.", param="scopes")
    if Scope.ADMIN in key.scopes and not owner.is_admin:
        raise NotPermitted(f"{owner.name} is no admin, and so cannot have a key with the scope admin.")
    if key.expires_unix_s is not None and key.expires_unix_s <= time.time():
        raise InvalidRequest("The expiry lies in the past.", param="expires_unix_s")
    if key.expires_unix_s is not None and key.expires_unix_s > _LAST_EXPIRY_UNIX_S:
        raise InvalidRequest("The expiry lies behind the year 9999; null is none.", param="expires_unix_s")
    check_limits(key.limits)


def check_limits(limits: KeyLimits) -> None:
    """Raises `InvalidRequest` for limits that no key or account can have."""
    for name in ("requests_per_minute", "tokens_per_day", "budget_usd_per_month"):
        value = getattr(limits, name)
        if value is not None and not 0 < value <= _MOST:
            raise InvalidRequest(f"{name} has to be more than 0, to {_MOST}; null is no limit.", param=f"limits.{name}")
