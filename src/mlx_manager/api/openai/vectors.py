"""How the routes that compute vectors and scores answer: read, parse, embed, render."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec
from fastapi import Depends, Request
from starlette.responses import Response

from mlx_manager.api.body import read_json_body
from mlx_manager.api.disconnect import UntilDisconnect
from mlx_manager.api.openai.answer import ignored_headers
from mlx_manager.api.state import GatewayDep, HttpOptions, HttpOptionsDep, RequestIdDep
from mlx_manager.gateway import Gateway
from mlx_manager.ir import EmbeddingRequest, RerankRequest, Vectors
from mlx_manager.protocols.openai import encode_json


class VectorCall(Protocol):
    """What both parsed calls have."""

    @property
    def request(self) -> EmbeddingRequest | RerankRequest: ...
    @property
    def ignored(self) -> tuple[str, ...]: ...


_Call = TypeVar("_Call", bound=VectorCall)


@dataclass(frozen=True)
class VectorDialect(Generic[_Call]):
    """What makes one of these routes different from the other."""

    id_prefix: str
    parse: Callable[..., _Call]
    """(body, *, answer_id) → the call."""
    render: Callable[[_Call, Vectors], msgspec.Struct]


@dataclass(frozen=True)
class VectorExchange:
    """One HTTP request to such a route, with what it is answered by."""

    request: Request
    gateway: Gateway
    http: HttpOptions
    request_id: str

    async def answer(self, dialect: VectorDialect[Any]) -> Response:
        """Answer it. Raises `MlxManagerError`."""
        answer_id = f"{dialect.id_prefix}{secrets.token_hex(12)}"
        with self.gateway.refusals(http_request_id=self.request_id, answer_id=answer_id):
            body = await read_json_body(self.request, self.http.max_body_bytes)
            call = dialect.parse(body, answer_id=answer_id)
        async with UntilDisconnect(self.request.receive) as client:
            vectors = await self.gateway.embed(
                call.request, http_request_id=self.request_id, is_cut_off=lambda: client.is_cut_off_by_us
            )
            rendered = encode_json(dialect.render(call, vectors))
            return Response(rendered, media_type="application/json", headers=ignored_headers(call.ignored))
        return Response(status_code=499)  # nobody is there to read it


async def _exchange(
    request: Request, gateway: GatewayDep, http: HttpOptionsDep, request_id: RequestIdDep
) -> VectorExchange:
    return VectorExchange(request, gateway, http, request_id)


VectorExchangeDep = Annotated[VectorExchange, Depends(_exchange)]
