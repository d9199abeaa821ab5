"""Accounts: registering, logging in and out, approving, and what keeps the last admin in place."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from mlx_manager.auth.attempts import Attempts
from mlx_manager.auth.keys import check_limits
from mlx_manager.auth.passwords import Passwords
from mlx_manager.catalog import KeyLimits, User, UserRole, UserState
from mlx_manager.errors import Conflict, InvalidRequest, NotAuthenticated, NotFound, NotPermitted
from mlx_manager.ir import current_origin
from mlx_manager.storage import users
from mlx_manager.storage.store import Change, Store
from mlx_manager.storage.users import StoredSession

SESSION_S = 7 * 24 * 3600
_logger = logging.getLogger("mlx_manager.auth")
_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}", re.ASCII)
_MOST_PER_NAME_AND_ADDRESS, _MOST_PER_NAME, _MOST_PER_ADDRESS = 5, 50, 30


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody logged in: `token` is the session's JWT."""

    user: User
    token: str


class People:
    """What can be done with accounts. `actor` is who does it, for the audit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._passwords = Passwords()
        # whoever fails on purpose keeps out others of their own address, and the owner only after many more failures
        self._by_both = Attempts(most=_MOST_PER_NAME_AND_ADDRESS)
        self._by_name = Attempts(most=_MOST_PER_NAME)
        self._by_address = Attempts(most=_MOST_PER_ADDRESS)

    @property
    def is_empty(self) -> bool:
        """Whether there is no account yet: the first becomes the admin."""
        return not self._store.current.users

    def all(self) -> Sequence[User]:
        """Every account."""
        return self._store.current.users

    def find(self, name: str) -> User:
        """The account of that name. Raises `NotFound`."""
        for user in self._store.current.users:
            if user.name == name.strip().lower():
                return user
        raise NotFound(f"There is no account {name!r}.", param="name")

    async def register(self, name: str, password: str, *, address: str) -> User | None:
        """The first account is an admin's and can be used at once; later ones wait for an admin.

        None for a name that is taken: whoever asks is told the same as of one that waits.
        """
        self._by_address.check(address)
        self._by_address.fail(address)
        account = _new_account(name)
        hashed = await self._passwords.hash(password)
        if any(user.name == account.name for user in self._store.current.users):
            # a row all the same: that the name is taken must not show in the time that it takes
            await self._store.note(Change(actor="registration", action="user.register", subject=account.name))
            return None
        try:
            return await self._add(account, hashed, actor="registration")
        except Conflict:
            return None

    async def create(self, name: str, password: str, *, role: UserRole, actor: str) -> User:
        """An account that can be used at once. Raises `Conflict` when the name is taken."""
        account = msgspec.structs.replace(_new_account(name), role=role, state=UserState.ACTIVE)
        return await self._add(account, await self._passwords.hash(password), actor=actor)

    async def log_in(self, name: str, password: str, *, address: str) -> Login:
        """Raises `NotAuthenticated`, the same for a wrong name as for a wrong password, and `RateLimited`."""
        name = name.strip().lower()[:64]
        return await self.open_session(await self._check(name, password, address), address=address)

    async def open_session(self, user: User, *, address: str) -> Login:
        """A session for somebody who has shown who they are."""
        now_unix_s = int(time.time())
        session_id = secrets.token_urlsafe(24)
        opened = StoredSession(
            id=session_id,
            user_id=user.id,
            created_unix_s=now_unix_s,
            expires_unix_s=now_unix_s + SESSION_S,
            address=address,
            client=current_origin().user_agent,
        )
        change = Change(actor=f"user:{user.name}", action="user.login", subject=user.name, detail={"address": address})
        async with self._store.changing(change) as session:
            await users.add_session(session, opened)
        claims: dict[str, str | int] = {
            "sub": str(user.id),
            "sid": session_id,
            "iat": now_unix_s,
            "exp": opened.expires_unix_s,
        }
        return Login(user=user, token=self._store.secrets.sign(claims))

    async def log_out(self, session_id: str) -> None:
        """End one session."""
        async with self._store.database.writing() as session:
            await users.end_session(session, session_id)

    async def sessions(self, user: User) -> Sequence[StoredSession]:
        """Where an account is logged in, the last login first."""
        async with self._store.database.reading() as session:
            return await users.sessions_of(session, user.id, time.time())

    async def end_session(self, user: User, session_id: str, *, actor: str) -> None:
        """Log an account out where that session is used. Raises `NotFound`, also for those of others."""
        change = Change(actor=actor, action="user.end_session", subject=user.name)
        async with self._store.changing(change) as session:
            if not await users.has_session(session, session_id, user.id):
                raise NotFound("There is no such session of this account.")
            await users.end_session(session, session_id)

    async def change_password(self, user: User, old: str, new: str, *, address: str) -> Login:
        """Every session of the account ends; the new one is for whoever changed it."""
        checked = await self._check(user.name, old, address)
        await self._set_password(checked, new, actor=f"user:{user.name}")
        return await self.open_session(checked, address=address)

    async def reset_password(self, user: User, new: str, *, actor: str) -> None:
        """Every session of the account ends."""
        await self._set_password(user, new, actor=actor)
        self._by_name.forget(user.name)
        self._by_both.forget_all(user.name)

    async def change(
        self,
        user: User,
        *,
        role: UserRole | None = None,
        state: UserState | None = None,
        limits: KeyLimits | None = None,
        actor: str,
    ) -> User:
        """Approve, disable, promote, or set all limits. Raises `Conflict` where no active admin would be left."""
        values: dict[str, Any] = {}
        if role is not None:
            values["role"] = role.value
        if state is UserState.PENDING:
            raise InvalidRequest("An account cannot be made to wait again: disable it.", param="state")
        if state is not None:
            values["state"] = state.value
        if limits is not None:
            check_limits(limits)
            values["limits"] = msgspec.to_builtins(limits)
        if not values:
            return user
        async with self._store.changing(
            Change(actor=actor, action="user.change", subject=user.name, detail=values)
        ) as session:
            changed = await users.update(session, user.id, values)
            await self._keep_an_admin(session, changed)
            if changed.state is not UserState.ACTIVE:
                await users.end_sessions(session, user.id)
        return changed

    async def remove(self, user: User, *, actor: str) -> None:
        """Delete an account with its sessions and API keys. Raises `Conflict` for the last admin's."""
        async with self._store.changing(Change(actor=actor, action="user.delete", subject=user.name)) as session:
            await users.remove(session, user.id)
            await self._keep_an_admin(session, None)

    async def _check(self, name: str, password: str, address: str) -> User:
        counted = ((self._by_both, f"{name} {address}"), (self._by_name, name), (self._by_address, address))
        for attempts, by in counted:
            attempts.check(by)
        # counted before they are checked, so that a hundred at once are not all let through
        for attempts, by in counted:
            attempts.fail(by)
        async with self._store.database.reading() as session:
            found = await users.find(session, name)
        if not await self._passwords.is_right(password, found[1] if found else None) or found is None:
            # to the log only: that a name is there must not show in the time that a row takes
            _logger.warning("A login as %r from %s failed: the name or the password is wrong", name, address)
            raise NotAuthenticated("The name or the password is wrong.")
        user = found[0]
        if user.state is UserState.PENDING:
            raise NotPermitted("This account waits for an admin's approval.")
        if user.state is UserState.DISABLED:
            raise NotPermitted("This account is disabled. An admin can enable it again.")
        self._by_both.forget(f"{name} {address}")
        self._by_name.forget(name)
        self._by_address.forgive(address)
        return user

    async def _add(self, account: User, hashed: str, *, actor: str) -> User:
        change = Change(actor=actor, action="user.create", subject=account.name, detail={"role": account.role.value})
        async with self._store.changing(change) as session:
            if await users.count(session) == 0:
                account = msgspec.structs.replace(account, role=UserRole.ADMIN, state=UserState.ACTIVE)
                change.detail["role"] = account.role.value
            if await users.find(session, account.name) is not None:
                raise Conflict(f"There is an account {account.name!r} already.")
            return await users.insert(session, account, hashed)

    async def _set_password(self, user: User, new: str, *, actor: str) -> None:
        hashed = await self._passwords.hash(new)
        async with self._store.changing(Change(actor=actor, action="user.password", subject=user.name)) as session:
            await users.update(session, user.id, {"password_hash": hashed})
            await users.end_sessions(session, user.id)

    async def _keep_an_admin(self, session: Any, changed: User | None) -> None:
        if (changed is None or not changed.is_admin) and await users.count_other_admins(session, 0) == 0:
            raise Conflict("This is the last admin: make another account one first.")


def _new_account(name: str) -> User:
    folded = name.strip().lower()
    if not _NAME.fullmatch(folded):
        raise InvalidRequest(
            "A name has 1 to 64 letters a to z, digits, or . _ @ + - and begins with a letter or a digit.",
            param="name",
        )
    return User(id=0, name=folded, role=UserRole.USER, state=UserState.PENDING, created_unix_s=int(time.time()))
