"""Who may, as parameter types of routes: one without any of them is open to anybody, and a test finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from mlx_manager.api.cross_site import refuse_other_sites
from mlx_manager.api.dialect import speaks_anthropic
from mlx_manager.auth import Credentials, Door, Keys, People
from mlx_manager.ir import Caller, CallerKind, current_origin
from mlx_manager.storage.store import Store

SESSION_COOKIE = "mlx_manager_session"
ANSWER_HEADERS_KEY = "mlx_manager.answer_headers"
"""In the ASGI scope: a dict of headers that `RequestEdge` adds to the answer, whoever answers."""


@dataclass(frozen=True)
class Access:
    """Who may, and what is kept about it."""

    store: Store
    door: Door
    people: People
    keys: Keys


async def _access(request: Request) -> Access:
    return cast(Access, request.state.access)


AccessDep = Annotated[Access, Depends(_access)]


async def admit_anybody() -> None:
    """For what has to be known before anybody can say who they are."""


async def admit_inference(request: Request, access: AccessDep) -> Caller:
    """Whoever may ask models; the answer's headers say what is left of a key's limits."""
    caller, allowance = await access.door.admit_inference(credentials_of(request))
    _note_caller(caller)
    if caller.kind is CallerKind.SESSION:
        await refuse_other_sites(request)
    is_anthropic = speaks_anthropic(request.scope)
    left = allowance.anthropic_headers() if is_anthropic else allowance.openai_headers()
    answer_headers_of(request).update(left)
    if allowance.refusal is not None:
        raise allowance.refusal
    return caller


async def admit_admin(request: Request, access: AccessDep) -> Caller:
    """Whoever administers."""
    await refuse_other_sites(request)
    caller = await access.door.admit_admin(credentials_of(request))
    _note_caller(caller)
    return caller


async def admit_person(request: Request, access: AccessDep) -> Caller:
    """Whoever is logged in."""
    await refuse_other_sites(request)
    return await access.door.admit_person(credentials_of(request))


PublicDep = Annotated[None, Depends(admit_anybody)]
CallerDep = Annotated[Caller, Depends(admit_inference)]
AdminDep = Annotated[Caller, Depends(admit_admin)]
PersonDep = Annotated[Caller, Depends(admit_person)]


def _note_caller(caller: Caller) -> None:
    """For the account of the request."""
    origin = current_origin()
    origin.user, origin.key, origin.key_id = caller.user_name, caller.key_name, caller.key_id


def credentials_of(request: Request) -> Credentials:
    """What the request shows of who asks."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else None
    return Credentials(
        token=bearer or request.headers.get("x-api-key") or None, session=request.cookies.get(SESSION_COOKIE)
    )


def answer_headers_of(request: Request) -> dict[str, str]:
    """Headers that go out with the answer, as far as they are known when it begins."""
    return cast("dict[str, str]", request.scope[ANSWER_HEADERS_KEY])


def address_of(request: Request) -> str:
    """Where the connection comes from."""
    return request.client.host if request.client else "unknown"
