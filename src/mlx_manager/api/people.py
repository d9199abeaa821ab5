"""Accounts and API keys under /admin, and what has changed and by whom."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from mlx_manager.api.body import read_struct
from mlx_manager.api.json_answer import unkept_answer
from mlx_manager.api.paging import BeforeQuery
from mlx_manager.api.state import HttpOptionsDep
from mlx_manager.api.who import AccessDep, AdminDep
from mlx_manager.auth.keys import KeyChanges
from mlx_manager.catalog import ApiKey, KeyLimits, Scope, User, UserRole, UserState
from mlx_manager.errors import NotFound
from mlx_manager.storage.store import RecordedChange

router = APIRouter(prefix="/admin", tags=["people"])


class UserObject(msgspec.Struct, frozen=True, kw_only=True):
    """One account."""

    id: int
    name: str
    role: UserRole
    state: UserState
    created_unix_s: int
    limits: KeyLimits
    """Of all its keys and sessions together."""


class UserList(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/users."""

    users: list[UserObject]


class NewUser(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /admin/users."""

    name: str
    password: str
    role: UserRole = UserRole.USER


class UserChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of PATCH /admin/users/{name}; `limits` replaces all of them."""

    role: UserRole | None = None
    state: UserState | None = None
    password: str | None = None
    limits: KeyLimits | None = None


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a new key."""

    name: str
    user: str | None = None
    """Whose key it is to be; only admins make keys for others."""
    scopes: tuple[Scope, ...] = (Scope.INFERENCE,)
    limits: KeyLimits = KeyLimits()
    expires_unix_s: int | None = None


class KeyChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of PATCH /admin/keys/{key_id}; `limits` replaces all of them."""

    name: str | None = None
    scopes: tuple[Scope, ...] | None = None
    limits: KeyLimits | None = None
    expires_unix_s: int | msgspec.UnsetType | None = msgspec.UNSET


class KeyObject(msgspec.Struct, frozen=True, kw_only=True):
    """One API key, without its text."""

    id: int
    user: str
    name: str
    hint: str
    scopes: tuple[Scope, ...]
    limits: KeyLimits
    created_unix_s: int
    expires_unix_s: int | None
    last_used_unix_s: int | None


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a list of keys."""

    keys: list[KeyObject]


class KeyCreated(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a new key."""

    key: KeyObject
    secret: str
    """Shown this once."""


class ChangeList(msgspec.Struct, frozen=True, kw_only=True):
    """The body of GET /admin/changes, the last first."""

    changes: list[RecordedChange]


@router.get("/users")
async def list_users(access: AccessDep, _: AdminDep) -> Response:
    """Every account."""
    return unkept_answer(UserList(users=[render_user(user) for user in access.people.all()]))


@router.post("/users")
async def create_user(request: Request, access: AccessDep, http: HttpOptionsDep, admin: AdminDep) -> Response:
    """Make an account that can be used at once; the first one is an admin's."""
    body = await read_struct(request, http.max_body_bytes, NewUser)
    user = await access.people.create(body.name, body.password, role=body.role, actor=admin.label)
    return unkept_answer(render_user(user), 201)


@router.patch("/users/{name}")
async def change_user(
    name: str, request: Request, access: AccessDep, http: HttpOptionsDep, admin: AdminDep
) -> Response:
    """Approve, disable, promote, limit, or set a new password."""
    body = await read_struct(request, http.max_body_bytes, UserChange)
    user = access.people.find(name)
    if body.password is not None:
        await access.people.reset_password(user, body.password, actor=admin.label)
    user = await access.people.change(user, role=body.role, state=body.state, limits=body.limits, actor=admin.label)
    return unkept_answer(render_user(user))


@router.delete("/users/{name}")
async def delete_user(name: str, access: AccessDep, admin: AdminDep) -> Response:
    """Delete an account with its sessions and API keys; the last admin's cannot be."""
    await access.people.remove(access.people.find(name), actor=admin.label)
    return Response(status_code=204)


@router.get("/keys")
async def list_keys(access: AccessDep, _: AdminDep) -> Response:
    """Every API key, without its text."""
    owners = access.store.current.users_by_id
    return unkept_answer(KeyList(keys=[render_key(key, owners[key.user_id]) for key in access.keys.all()]))


@router.post("/keys")
async def mint_key(request: Request, access: AccessDep, http: HttpOptionsDep, admin: AdminDep) -> Response:
    """Make an API key for an account; its text is in this answer and nowhere else."""
    body = await read_struct(request, http.max_body_bytes, NewKey)
    name = body.user or admin.user_name
    if name is None:
        raise NotFound("Say whose key it is to be: user.", param="user")
    user = access.people.find(name)
    minted = await access.keys.mint(
        user,
        body.name,
        scopes=body.scopes,
        limits=body.limits,
        expires_unix_s=body.expires_unix_s,
        actor=admin.label,
    )
    return unkept_answer(KeyCreated(key=render_key(minted.key, user), secret=minted.secret), 201)


@router.patch("/keys/{key_id}")
async def change_key(
    key_id: int, request: Request, access: AccessDep, http: HttpOptionsDep, admin: AdminDep
) -> Response:
    """Change what a key may; it stays the same key."""
    body = await read_struct(request, http.max_body_bytes, KeyChange)
    changes = KeyChanges(name=body.name, scopes=body.scopes, limits=body.limits, expires_unix_s=body.expires_unix_s)
    key = await access.keys.change(access.keys.find(key_id), changes, actor=admin.label)
    return unkept_answer(render_key(key, access.store.current.users_by_id[key.user_id]))


@router.delete("/keys/{key_id}")
async def revoke_key(key_id: int, access: AccessDep, admin: AdminDep) -> Response:
    """Delete an API key: it is good no longer."""
    await access.keys.revoke(access.keys.find(key_id), actor=admin.label)
    return Response(status_code=204)


@router.get("/changes")
async def list_changes(
    access: AccessDep,
    _: AdminDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: BeforeQuery = None,
) -> Response:
    """What was changed, and by whom: the last change first."""
    return unkept_answer(ChangeList(changes=list(await access.store.changes(limit=limit, before=before))))


def render_user(user: User) -> UserObject:
    """An account for an answer."""
    return UserObject(
        id=user.id,
        name=user.name,
        role=user.role,
        state=user.state,
        created_unix_s=user.created_unix_s,
        limits=user.limits,
    )


def render_key(key: ApiKey, owner: User) -> KeyObject:
    """A key for an answer."""
    return KeyObject(
        id=key.id,
        user=owner.name,
        name=key.name,
        hint=key.hint,
        scopes=key.scopes,
        limits=key.limits,
        created_unix_s=key.created_unix_s,
        expires_unix_s=key.expires_unix_s,
        last_used_unix_s=key.last_used_unix_s,
    )
