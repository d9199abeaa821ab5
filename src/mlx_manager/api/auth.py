"""Accounts by themselves: registering, logging in and out, passwords, and one's own API keys."""

from __future__ import annotations

import ipaddress
from typing import Literal

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from mlx_manager.api.body import read_struct
from mlx_manager.api.cross_site import refuse_other_sites
from mlx_manager.api.json_answer import unkept_answer
from mlx_manager.api.people import KeyCreated, KeyList, KeyObject, NewKey, UserObject, render_key, render_user
from mlx_manager.api.state import HttpOptionsDep
from mlx_manager.api.who import SESSION_COOKIE, Access, AccessDep, PersonDep, PublicDep, address_of, credentials_of
from mlx_manager.auth import Login
from mlx_manager.auth.people import SESSION_S
from mlx_manager.catalog import User
from mlx_manager.errors import NotPermitted
from mlx_manager.ir import Caller, CallerKind
from mlx_manager.storage.users import StoredSession

router = APIRouter(prefix="/auth", tags=["auth"])


class NamePassword(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a registration and of a login."""

    name: str
    password: str


class NewPassword(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /auth/password."""

    old_password: str
    new_password: str


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a registration. A name that is taken is answered as one that waits."""

    state: Literal["active", "pending"]
    message: str
    user: UserObject | None = None


class SessionObject(msgspec.Struct, frozen=True, kw_only=True):
    """One login of one's own. Its id opens nothing: that takes the signed cookie."""

    id: str
    created_unix_s: int
    expires_unix_s: int
    address: str | None
    client: str | None
    """The user agent."""
    is_this: bool
    """Whether it is the one that asks."""


class SessionList(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /auth/sessions."""

    sessions: list[SessionObject]


class AuthState(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /auth/state: what a login page has to know before anybody has logged in."""

    has_accounts: bool
    is_open: bool
    """Whether /v1 answers without a key."""


@router.get("/state")
async def show_state(access: AccessDep, _: PublicDep) -> Response:
    """Whether there is an account yet, and whether /v1 is open."""
    return unkept_answer(AuthState(has_accounts=not access.people.is_empty, is_open=access.door.is_open))


@router.post("/register")
async def register(request: Request, access: AccessDep, http: HttpOptionsDep, _: PublicDep) -> Response:
    """Ask for an account. The first one is the admin's and is logged in; later ones wait for approval."""
    await refuse_other_sites(request)
    body = await read_struct(request, http.max_body_bytes, NamePassword)
    if access.people.is_empty:
        await _check_first(request, access)
    user = await access.people.register(body.name, body.password, address=address_of(request))
    if user is not None and user.is_admin:
        login = await access.people.open_session(user, address=address_of(request))
        made = Registered(state="active", message="This account is the admin's.", user=render_user(user))
        return _logged_in(request, login, unkept_answer(made, 201))
    return unkept_answer(
        Registered(state="pending", message="The account can be used once an admin has approved it."), 202
    )


@router.post("/login")
async def log_in(request: Request, access: AccessDep, http: HttpOptionsDep, _: PublicDep) -> Response:
    """Begin a session of seven days, in a cookie."""
    await refuse_other_sites(request)
    body = await read_struct(request, http.max_body_bytes, NamePassword)
    login = await access.people.log_in(body.name, body.password, address=address_of(request))
    return _logged_in(request, login, unkept_answer(render_user(login.user)))


@router.post("/logout")
async def log_out(access: AccessDep, person: PersonDep) -> Response:
    """End this session."""
    assert person.session_id is not None
    await access.people.log_out(person.session_id)
    response = Response(status_code=204)
    response.delete_cookie(SESSION_COOKIE)
    return response


@router.get("/me")
async def show_me(access: AccessDep, person: PersonDep) -> Response:
    """Who is logged in."""
    return unkept_answer(render_user(_user_of(access, person)))


@router.post("/password")
async def change_password(request: Request, access: AccessDep, http: HttpOptionsDep, person: PersonDep) -> Response:
    """Change one's own password; every other session of the account ends."""
    body = await read_struct(request, http.max_body_bytes, NewPassword)
    user = _user_of(access, person)
    login = await access.people.change_password(user, body.old_password, body.new_password, address=address_of(request))
    return _logged_in(request, login, unkept_answer(render_user(login.user)))


@router.get("/sessions")
async def list_own_sessions(access: AccessDep, person: PersonDep) -> Response:
    """Where one is logged in."""
    sessions = await access.people.sessions(_user_of(access, person))
    return unkept_answer(SessionList(sessions=[_render_session(each, person) for each in sessions]))


@router.delete("/sessions/{session_id}")
async def end_own_session(session_id: str, access: AccessDep, person: PersonDep) -> Response:
    """End one of one's own sessions: whoever uses it has to log in again."""
    await access.people.end_session(_user_of(access, person), session_id, actor=person.label)
    return Response(status_code=204)


@router.get("/keys")
async def list_own_keys(access: AccessDep, person: PersonDep) -> Response:
    """One's own API keys, without their text."""
    user = _user_of(access, person)
    return unkept_answer(KeyList(keys=[render_key(key, user) for key in access.keys.of(user.id)]))


@router.post("/keys")
async def mint_own_key(request: Request, access: AccessDep, http: HttpOptionsDep, person: PersonDep) -> Response:
    """Make an API key; its text is in this answer and nowhere else."""
    body = await read_struct(request, http.max_body_bytes, NewKey)
    user = _user_of(access, person)
    minted = await access.keys.mint(
        user,
        body.name,
        scopes=body.scopes,
        limits=body.limits,
        expires_unix_s=body.expires_unix_s,
        actor=person.label,
    )
    return unkept_answer(KeyCreated(key=render_key(minted.key, user), secret=minted.secret), 201)


@router.get("/keys/{key_id}")
async def show_own_key(key_id: int, access: AccessDep, person: PersonDep) -> Response:
    """One of one's own API keys."""
    user = _user_of(access, person)
    shown: KeyObject = render_key(access.keys.find(key_id, user_id=user.id), user)
    return unkept_answer(shown)


@router.delete("/keys/{key_id}")
async def revoke_own_key(key_id: int, access: AccessDep, person: PersonDep) -> Response:
    """Delete one of one's own API keys: it is good no longer."""
    await access.keys.revoke(access.keys.find(key_id, user_id=person.user_id), actor=person.label)
    return Response(status_code=204)


async def _check_first(request: Request, access: Access) -> None:
    """The first account is the admin's: from another machine nobody may just take it."""
    if access.door.is_loopback or _is_here(address_of(request)):
        return
    caller, _ = await access.door.identify(credentials_of(request))
    if caller is None or caller.kind is not CallerKind.LOCAL:
        raise NotPermitted("The first account is made on the server itself: mlx-manager user create NAME.")


def _is_here(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _is_https(request: Request) -> bool:
    """As far as a proxy in front is believed: whoever lies about it only makes their own cookie go over HTTPS alone."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))


def _user_of(access: Access, person: Caller) -> User:
    assert person.user_id is not None
    return access.store.current.users_by_id[person.user_id]


def _render_session(session: StoredSession, person: Caller) -> SessionObject:
    return SessionObject(
        id=session.id,
        created_unix_s=session.created_unix_s,
        expires_unix_s=session.expires_unix_s,
        address=session.address,
        client=session.client,
        is_this=session.id == person.session_id,
    )


def _logged_in(request: Request, login: Login, response: Response) -> Response:
    response.set_cookie(
        SESSION_COOKIE,
        login.token,
        max_age=SESSION_S,
        httponly=True,
        samesite="lax",
        secure=_is_https(request),
    )
    return response
