"""POST /v1/messages and POST /v1/messages/count_tokens."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from mlx_manager.api.body import read_json_body
from mlx_manager.api.disconnect import UntilDisconnect
from mlx_manager.api.errors import internal_error
from mlx_manager.api.ignored_header import ignored_headers
from mlx_manager.api.openai.replies import ReplyDialect, ReplyExchangeDep
from mlx_manager.api.prefix_header import PrefixNotes
from mlx_manager.api.sse import EventStream, Silence
from mlx_manager.api.state import GatewayDep, HttpOptions, HttpOptionsDep, ModelsDep, RequestIdDep
from mlx_manager.api.who import admit_inference
from mlx_manager.errors import MlxManagerError
from mlx_manager.gateway import Gateway
from mlx_manager.ir import Event, fold
from mlx_manager.pool import ModelDirectory
from mlx_manager.protocols.anthropic import (
    PING_FRAME,
    MessageEncoder,
    MessagesCall,
    TokenCount,
    encode_json,
    error_body,
    frame,
    parse_count,
    parse_messages,
    render_message,
)

router = APIRouter(prefix="/v1", dependencies=[Depends(admit_inference)])
_COUNT = ReplyDialect("count_", parse_count, lambda call, tokens: TokenCount(tokens.num_tokens), Gateway.tokenize)
_logger = logging.getLogger("mlx_manager.api")


@dataclass(frozen=True)
class Exchange:
    """One HTTP request in this dialect, with what it is answered by."""

    request: Request
    gateway: Gateway
    models: ModelDirectory
    http: HttpOptions
    request_id: str

    async def answer(self) -> Response:
        """Answer a conversation. Raises `MlxManagerError` for what fails before the answer has begun."""
        answer_id = f"msg_{secrets.token_hex(12)}"
        with self.gateway.refusals(http_request_id=self.request_id, answer_id=answer_id):
            body = await read_json_body(self.request, self.http.max_body_bytes)
            priority = self.request.headers.get("x-priority")
            betas = ",".join(self.request.headers.getlist("anthropic-beta"))
            call = parse_messages(body, answer_id=answer_id, priority_header=priority, beta_header=betas)
        client = UntilDisconnect(self.request.receive)
        notes = PrefixNotes(self.request.headers.get("x-debug", ""))
        if call.stream:
            return self._streamed(call, client, notes)
        async with client, aclosing(self._events(call, client, notes)) as events:
            message = render_message(await fold(events, 1), call.form)
            headers = ignored_headers(call.ignored, self.gateway.told) | notes.headers()
            return Response(encode_json(message), media_type="application/json", headers=headers)
        return Response(status_code=499)  # nobody is there to read it

    def _streamed(self, call: MessagesCall, client: UntilDisconnect, notes: PrefixNotes) -> Response:
        return EventStream(
            _encoded(self._events(call, client, notes), MessageEncoder(call.form)),
            client=client,
            error_frame=self._error_frame,
            # clients of this dialect watch for events, and comments are none
            silence=Silence(self.http.keepalive_s, self.http.start_wait_s, PING_FRAME),
            late_headers=lambda: ignored_headers(call.ignored, self.gateway.told) | notes.headers(),
            waiting_for=lambda: self.models.progress(call.request.model),
        )

    def _events(self, call: MessagesCall, client: UntilDisconnect, notes: PrefixNotes) -> AsyncGenerator[Event, None]:
        events = self.gateway.generate(
            call.request, http_request_id=self.request_id, is_cut_off=lambda: client.is_cut_off_by_us
        )
        return notes.noted(0, events)

    def _error_frame(self, error: Exception) -> bytes:
        if not isinstance(error, MlxManagerError):
            _logger.error("request %s failed in the middle of its stream", self.request_id, exc_info=error)
            error = internal_error(self.request_id)
        return frame(error_body(error, self.request_id))


async def _exchange(
    request: Request, gateway: GatewayDep, models: ModelsDep, http: HttpOptionsDep, request_id: RequestIdDep
) -> Exchange:
    return Exchange(request, gateway, models, http, request_id)


ExchangeDep = Annotated[Exchange, Depends(_exchange)]


@router.post("/messages")
async def create_message(exchange: ExchangeDep) -> Response:
    """Answer a conversation, in Anthropic's dialect."""
    return await exchange.answer()


@router.post("/messages/count_tokens")
async def count_message_tokens(exchange: ReplyExchangeDep) -> Response:
    """Count the tokens of a conversation as the model's own template renders it."""
    return await exchange.answer(_COUNT)


async def _encoded(events: AsyncGenerator[Event, None], encoder: MessageEncoder) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield encoder.encode(event)
