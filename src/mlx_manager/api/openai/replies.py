"""How the routes that answer in one piece do: those for vectors, scores and tokens. Read, parse, ask, render."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec
from fastapi import Depends, Request
from starlette.responses import Response

from mlx_manager.api.body import read_json_body
from mlx_manager.api.disconnect import UntilDisconnect
from mlx_manager.api.ignored_header import ignored_headers
from mlx_manager.api.state import GatewayDep, HttpOptions, HttpOptionsDep, RequestIdDep
from mlx_manager.gateway import Gateway
from mlx_manager.gateway.replies import ReplyRequest
from mlx_manager.ir import Tokens, Vectors
from mlx_manager.protocols.openai import encode_json


class ReplyCall(Protocol):
    """What all parsed calls have."""

    @property
    def request(self) -> ReplyRequest: ...
    @property
    def ignored(self) -> tuple[str, ...]: ...


_Call = TypeVar("_Call", bound=ReplyCall)


@dataclass(frozen=True)
class ReplyDialect(Generic[_Call]):
    """What makes one of these routes different from the other."""

    id_prefix: str
    parse: Callable[..., _Call]
    """(body, *, answer_id) → the call."""
    render: Callable[..., msgspec.Struct]
    """(call, reply) → the body."""
    ask: Callable[..., Awaitable[Vectors | Tokens]] = Gateway.embed


@dataclass(frozen=True)
class ReplyExchange:
    """One HTTP request to such a route, with what it is answered by."""

    request: Request
    gateway: Gateway
    http: HttpOptions
    request_id: str

    async def answer(self, dialect: ReplyDialect[Any]) -> Response:
        """Answer it. Raises `MlxManagerError`."""
        answer_id = f"{dialect.id_prefix}{secrets.token_hex(12)}"
        with self.gateway.refusals(http_request_id=self.request_id, answer_id=answer_id):
            body = await read_json_body(self.request, self.http.max_body_bytes)
            call = dialect.parse(body, answer_id=answer_id)
        async with UntilDisconnect(self.request.receive) as client:
            reply = await dialect.ask(
                self.gateway,
                call.request,
                http_request_id=self.request_id,
                is_cut_off=lambda: client.is_cut_off_by_us,
            )
            rendered = encode_json(dialect.render(call, reply))
            return Response(rendered, media_type="application/json", headers=ignored_headers(call.ignored))
        return Response(status_code=499)  # nobody is there to read it


async def _exchange(
    request: Request, gateway: GatewayDep, http: HttpOptionsDep, request_id: RequestIdDep
) -> ReplyExchange:
    return ReplyExchange(request, gateway, http, request_id)


ReplyExchangeDep = Annotated[ReplyExchange, Depends(_exchange)]
