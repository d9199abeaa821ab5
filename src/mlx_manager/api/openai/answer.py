"""How both generating routes answer: a parsed call to a stream of events, and those to SSE or to one body."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import Response

from mlx_manager.api.body import read_json_body
from mlx_manager.api.disconnect import UntilDisconnect
from mlx_manager.api.errors import internal_error
from mlx_manager.api.ignored_header import ignored_headers
from mlx_manager.api.prefix_header import PrefixNotes
from mlx_manager.api.sse import EventStream, Silence
from mlx_manager.api.state import GatewayDep, HttpOptions, HttpOptionsDep, ModelsDep, RequestIdDep
from mlx_manager.errors import MlxManagerError
from mlx_manager.gateway import Gateway, merge
from mlx_manager.ir import Answer, Event, fold
from mlx_manager.pool import ModelDirectory
from mlx_manager.protocols.field_names import FieldNames
from mlx_manager.protocols.openai import Call, Encoder, Envelope, encode_json, error_frame
from mlx_manager.protocols.openai.answers import Body

_logger = logging.getLogger("mlx_manager.api")


@dataclass(frozen=True)
class Dialect:
    """What makes one generating route different from the other."""

    id_prefix: str
    parse: Callable[..., Call]
    """(body, *, answer_id, priority_header, default_model) → `Call`."""
    encoder: Callable[..., Encoder]
    """(envelope, *, include_usage) → `Encoder`."""
    render: Callable[[Answer, Envelope], Body]


@dataclass(frozen=True)
class Exchange:
    """One HTTP request to a generating route, with what it is answered by."""

    request: Request
    gateway: Gateway
    models: ModelDirectory
    http: HttpOptions
    request_id: str

    async def answer(self, dialect: Dialect) -> Response:
        """Read, parse, generate, answer. Raises `MlxManagerError` for what fails before the answer has begun."""
        answer_id = f"{dialect.id_prefix}{secrets.token_hex(12)}"
        with self.gateway.refusals(http_request_id=self.request_id, answer_id=answer_id):
            body = await read_json_body(self.request, self.http.max_body_bytes)
            priority = self.request.headers.get("x-priority")
            call = dialect.parse(
                body, answer_id=answer_id, priority_header=priority, default_model=self.models.default_model
            )
        client = UntilDisconnect(self.request.receive)
        notes = PrefixNotes(self.request.headers.get("x-debug", ""))
        envelope = Envelope(answer_id, int(time.time()), call.model, self.http.fingerprint, call.has_functions)
        if call.stream:
            encoder = dialect.encoder(envelope, include_usage=call.include_usage)
            return self._streamed(call, client, notes, encoder)
        return await self._folded(call, client, notes, lambda folded: dialect.render(folded, envelope))

    def _streamed(self, call: Call, client: UntilDisconnect, notes: PrefixNotes, encoder: Encoder) -> Response:
        return EventStream(
            _encoded(self._events(call, client, notes), encoder),
            client=client,
            error_frame=self._error_frame,
            silence=Silence(self.http.keepalive_s, self.http.start_wait_s),
            late_headers=lambda: ignored_headers(call.ignored, self.gateway.told) | notes.headers(),
            waiting_for=lambda: self.models.progress(call.model),
        )

    async def _folded(
        self, call: Call, client: UntilDisconnect, notes: PrefixNotes, render: Callable[[Answer], Body]
    ) -> Response:
        async with client, aclosing(self._events(call, client, notes)) as events:
            folded = await fold(events, call.num_choices * len(call.requests))
            headers = ignored_headers(call.ignored, self.gateway.told) | notes.headers()
            return Response(encode_json(render(folded)), media_type="application/json", headers=headers)
        return Response(status_code=499)  # nobody is there to read it

    def _events(self, call: Call, client: UntilDisconnect, notes: PrefixNotes) -> AsyncGenerator[Event, None]:
        streams = [
            notes.noted(
                index,
                self.gateway.generate(
                    request, http_request_id=self.request_id, is_cut_off=lambda: client.is_cut_off_by_us
                ),
            )
            for index, request in enumerate(call.requests)
        ]
        return named(merge(streams, call.num_choices), call.names)

    def _error_frame(self, error: Exception) -> bytes:
        return error_frame(visible_error(error, self.request_id))


async def _exchange(
    request: Request, gateway: GatewayDep, models: ModelsDep, http: HttpOptionsDep, request_id: RequestIdDep
) -> Exchange:
    return Exchange(request, gateway, models, http, request_id)


ExchangeDep = Annotated[Exchange, Depends(_exchange)]


def visible_error(error: Exception, request_id: str) -> MlxManagerError:
    """What a client is told about an error in the middle of its stream; one that nobody expected is logged."""
    if isinstance(error, MlxManagerError):
        return error
    _logger.error("request %s failed in the middle of its stream", request_id, exc_info=error)
    return internal_error(request_id)


async def named(events: AsyncGenerator[Event, None], names: FieldNames) -> AsyncGenerator[Event, None]:
    """`events`, whose errors name the fields as they were sent."""
    try:
        async with aclosing(events):
            async for event in events:
                yield event
    except MlxManagerError as error:
        raise names.told(error) from error.__cause__


async def _encoded(events: AsyncGenerator[Event, None], encoder: Encoder) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield encoder.encode(event)
