"""From what a request shows to who asks: a session, an API key, a command of this machine, or nobody."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass

from mlx_manager.auth.keys import Keys
from mlx_manager.auth.limits import Allowance, KeyMeter
from mlx_manager.catalog import ApiKey, KeyLimits, Scope, User, UserState
from mlx_manager.errors import InvalidRequest, NotAuthenticated, NotFound, NotPermitted
from mlx_manager.ir import ANYONE, Caller, CallerKind, Purse, place_of_key, place_of_user
from mlx_manager.storage import users
from mlx_manager.storage.store import Store


@dataclass(frozen=True)
class Credentials:
    """What a request shows."""

    token: str | None = None
    """From `Authorization: Bearer` or `x-api-key`."""
    session: str | None = None
    """The cookie's JWT."""


class Door:
    """Decides who comes in. `is_loopback` says whether the server listens on this machine only.

    Everything but sessions is decided in memory, so that a database that is locked keeps nobody out.
    """

    def __init__(
        self, store: Store, keys: Keys, meter: KeyMeter, *, local_token: str | None, is_loopback: bool
    ) -> None:
        self._store = store
        self._keys = keys
        self._meter = meter
        self._local_token = local_token
        self.is_loopback = is_loopback

    @property
    def is_open(self) -> bool:
        """Whether models can be asked without a key: on this machine alone, and until there is one."""
        return self.is_loopback and not self._store.current.wants_keys

    async def identify(self, shown: Credentials) -> tuple[Caller | None, ApiKey | None]:
        """Who asks, and with which key; nobody where nothing is shown. Raises `NotAuthenticated` for what is wrong."""
        if shown.token is not None:
            return self._by_token(shown.token)
        if shown.session is None:
            return None, None
        caller = await self._by_session(shown.session)
        if caller is None:
            raise NotAuthenticated("The session is over: log in again.")
        return caller, None

    async def admit_inference(self, shown: Credentials) -> tuple[Caller, Allowance]:
        """Who asks for an answer of a model, and what their key allows: its refusal is to be raised.

        Raises `NotAuthenticated` and `NotPermitted`.
        """
        if self.is_open:
            anyone = await self._anyone(shown)
            return anyone, self._meter.admit(anyone)
        caller, _ = await self.identify(shown)
        if caller is None:
            raise NotAuthenticated(self._how_to_begin())
        if not caller.may_infer:
            raise NotPermitted("This API key has the scope admin only: it may not ask models.")
        return caller, self._meter.admit(caller)

    async def admit_admin(self, shown: Credentials) -> Caller:
        """Who administers. Until there is an account, on loopback, anybody may. Raises as `admit_inference`."""
        if self.is_loopback and not self._store.current.users:
            return ANYONE
        caller, key = await self.identify(shown)
        if caller is None:
            raise NotAuthenticated(
                "This is for admins: log in, or send an API key with the scope admin as Authorization: Bearer KEY."
            )
        if not caller.is_admin:
            raise NotPermitted("This is for admins.")
        refusal = None if key is None else self._meter.admit(caller).refusal
        if refusal is not None:
            raise refusal
        return caller

    async def admit_person(self, shown: Credentials) -> Caller:
        """Who manages their own account: a session, not a key. Raises `NotAuthenticated`."""
        caller = None if shown.session is None else await self._by_session(shown.session)
        if caller is None:
            raise NotAuthenticated("This needs a session: log in at POST /auth/login.")
        return caller

    def stand_in(self, user: str | None, key: str | None) -> Caller:
        """Who would ask with that key, USER/NAME or the name of one of `user`'s, or in a session of `user`.

        Raises `NotFound`, and `InvalidRequest` where they would not be let in.
        """
        if not (user or key):
            return ANYONE
        current = self._store.current
        if key:
            label = f"{user}/{key}" if user and not key.startswith(f"{user}/") else key
            user, _, name = label.partition("/")
        owner = next((one for one in current.users if one.name == user), None)
        if owner is None:
            raise NotFound(f"There is no account {user!r}.", param="user")
        if owner.state is not UserState.ACTIVE:
            raise InvalidRequest(f"The account {user!r} is {owner.state.value}: it is not let in.", param="user")
        if not key:
            return _caller_of_session(owner, None)
        found = next((one for one in current.keys if one.user_id == owner.id and one.name == name), None)
        if found is None:
            raise NotFound(f"{user} has no API key {name!r}. One is named as USER/NAME.", param="key")
        if found.is_expired(time.time()):
            raise InvalidRequest(f"The API key {name!r} has expired: it is not let in.", param="key")
        return _caller_of(found, owner)

    async def _anyone(self, shown: Credentials) -> Caller:
        """On an open server: whatever key a client sends, as some have to, it is not looked at."""
        caller = None if shown.session is None else await self._by_session(shown.session)
        return caller or ANYONE

    def _by_token(self, token: str) -> tuple[Caller, ApiKey | None]:
        if self._local_token is not None and hmac.compare_digest(token.encode(), self._local_token.encode()):
            return Caller(kind=CallerKind.LOCAL, is_admin=True), None
        key = self._keys.recognize(token)
        if key is None:
            raise NotAuthenticated("The API key is not one of this server.")
        if key.is_expired(time.time()):
            raise NotAuthenticated(f"The API key {key.name!r} has expired.")
        owner = self._store.current.users_by_id.get(key.user_id)
        if owner is None or owner.state is not UserState.ACTIVE:
            raise NotAuthenticated("The account of this API key cannot be used.")
        return _caller_of(key, owner), key

    async def _by_session(self, token: str) -> Caller | None:
        claims = self._store.secrets.verify(token)
        if claims is None:
            return None
        user = self._store.current.users_by_id.get(int(str(claims["sub"])))
        session_id = str(claims.get("sid"))
        if user is None or user.state is not UserState.ACTIVE:
            return None
        async with self._store.database.reading() as session:
            if not await users.has_session(session, session_id, user.id):
                return None
        return _caller_of_session(user, session_id)

    def _how_to_begin(self) -> str:
        if self._store.current.keys or self.is_loopback:
            return "An API key is needed: send it as Authorization: Bearer KEY or as x-api-key."
        return (
            "This server can be reached from other machines, and so needs an API key, but none has been minted. On the "
            "server: mlx-manager user create NAME, then mlx-manager key create."
        )


def _caller_of_session(user: User, session_id: str | None) -> Caller:
    return Caller(
        kind=CallerKind.SESSION,
        user_id=user.id,
        user_name=user.name,
        session_id=session_id,
        is_admin=user.is_admin,
        user_models=user.limits.models,
        is_local_only=user.limits.is_local_only,
        purses=(_purse_of(user),),
    )


def _caller_of(key: ApiKey, owner: User) -> Caller:
    return Caller(
        kind=CallerKind.KEY,
        user_id=owner.id,
        user_name=owner.name,
        key_id=key.id,
        key_name=key.name,
        is_admin=Scope.ADMIN in key.scopes and owner.is_admin,
        may_infer=Scope.INFERENCE in key.scopes,
        models=key.limits.models,
        user_models=owner.limits.models,
        is_local_only=key.limits.is_local_only or owner.limits.is_local_only,
        purses=(_purse(place_of_key(key.id), f"API key {key.name!r}", key.limits), _purse_of(owner)),
    )


def _purse_of(user: User) -> Purse:
    return _purse(place_of_user(user.id), f"account {user.name!r}", user.limits)


def _purse(place: str, whose: str, limits: KeyLimits) -> Purse:
    return Purse(
        place=place,
        whose=whose,
        requests_per_minute=limits.requests_per_minute,
        tokens_per_day=limits.tokens_per_day,
        budget_usd_per_month=limits.budget_usd_per_month,
    )
