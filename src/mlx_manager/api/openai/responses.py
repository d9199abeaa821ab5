"""POST /v1/responses, and the responses that are stored."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from mlx_manager.api.body import read_json_body
from mlx_manager.api.disconnect import UntilDisconnect
from mlx_manager.api.ignored_header import ignored_headers
from mlx_manager.api.openai.answer import named, visible_error
from mlx_manager.api.prefix_header import PrefixNotes
from mlx_manager.api.sse import EventStream, Silence
from mlx_manager.api.state import (
    BackgroundDep,
    GatewayDep,
    HttpOptions,
    HttpOptionsDep,
    ModelsDep,
    RequestIdDep,
    ResponsesDep,
)
from mlx_manager.errors import InvalidRequest, MlxManagerError
from mlx_manager.gateway import BackgroundWork, Gateway, OwnResponses, truncated
from mlx_manager.ir import Event, TokenizeRequest
from mlx_manager.pool import ModelDirectory
from mlx_manager.protocols.openai import encode_json
from mlx_manager.protocols.openai.responses import (
    FIELD_NAMES,
    ResponseBuilder,
    ResponseCall,
    encode_events,
    encode_response,
    parse_response,
    read_response_request,
    references_of,
    stored,
)

router = APIRouter(prefix="/responses")


@dataclass(frozen=True)
class ResponseExchange:
    """One HTTP request for a response, with what it is answered by."""

    request: Request
    gateway: Gateway
    models: ModelDirectory
    responses: OwnResponses
    background: BackgroundWork
    http: HttpOptions
    request_id: str

    async def answer(self) -> Response:
        """Read, parse, generate, store, answer. Raises `MlxManagerError` for what fails before there is an answer."""
        answer_id = f"resp_{secrets.token_hex(24)}"
        with self.gateway.refusals(http_request_id=self.request_id, answer_id=answer_id):
            call = await self._parse(await read_json_body(self.request, self.http.max_body_bytes), answer_id)
        if call.background:
            return await self._in_background(call)
        client = UntilDisconnect(self.request.receive)
        notes = PrefixNotes(self.request.headers.get("x-debug", ""))
        builder = ResponseBuilder(call.opening, call.form)
        events = notes.noted(0, self._events(call, lambda: client.is_cut_off_by_us))
        if call.stream:
            return self._streamed(call, client, notes, builder, events)
        async with client, aclosing(events):
            async for event in events:
                builder.add(event)
            await self._keep(call, builder)
            headers = ignored_headers(call.ignored, self.gateway.told) | notes.headers()
            return Response(encode_response(builder.response), media_type="application/json", headers=headers)
        return Response(status_code=499)  # nobody is there to read it

    async def count(self) -> Response:
        """Count the tokens of what would be asked. Raises `MlxManagerError`."""
        answer_id = f"count_{secrets.token_hex(12)}"
        with self.gateway.refusals(http_request_id=self.request_id, answer_id=answer_id):
            call = await self._parse(await read_json_body(self.request, self.http.max_body_bytes), answer_id)
        async with UntilDisconnect(self.request.receive) as client:
            asked: dict[str, Any] = {
                "http_request_id": self.request_id,
                "is_cut_off": lambda: client.is_cut_off_by_us,
            }
            request = call.request
            try:
                if call.truncates:
                    request, _ = await truncated(request, lambda prompt: self.gateway.tokenize(prompt, **asked))
                tokens = await self.gateway.tokenize(
                    TokenizeRequest(
                        request_id=answer_id, model=request.model, prompt=request.prompt, wants_count_only=True
                    ),
                    **asked,
                )
            except MlxManagerError as error:
                raise FIELD_NAMES.told(error) from error.__cause__
            body = {"object": "response.input_tokens", "input_tokens": tokens.num_tokens}
            return Response(encode_json(body), media_type="application/json", headers=ignored_headers(call.ignored))
        return Response(status_code=499)  # nobody is there to read it

    async def _parse(self, body: bytes, answer_id: str) -> ResponseCall:
        wire = read_response_request(body, self.models.default_model)
        found = {item_id: await self.responses.find_item(item_id) for item_id in references_of(wire)}
        return parse_response(
            wire,
            earlier=await self.responses.earlier_items(wire.previous_response_id),
            referenced={item_id: item for item_id, item in found.items() if item is not None},
            answer_id=answer_id,
            created_unix_s=int(time.time()),
            priority_header=self.request.headers.get("x-priority"),
        )

    async def _in_background(self, call: ResponseCall) -> Response:
        """Begin the work, and answer with the response as it stands."""
        builder = ResponseBuilder(call.opening, call.form)
        queued = builder.response
        await self._keep(call, builder)
        self.background.start(queued.id, self._work(call, builder))
        return Response(encode_response(queued), media_type="application/json", headers=ignored_headers(call.ignored))

    async def _work(self, call: ResponseCall, builder: ResponseBuilder) -> None:
        try:
            async with aclosing(self._events(call, lambda: False)) as events:
                async for event in events:
                    has_begun = builder.response.status != "queued"
                    builder.add(event)
                    if not has_begun:
                        await self._keep(call, builder)
        except asyncio.CancelledError:
            builder.cancel()
            raise
        except Exception as error:  # an edge: nobody is above it to be told
            builder.fail(visible_error(error, self.request_id))
        finally:
            await self._keep(call, builder)

    async def _events(self, call: ResponseCall, is_cut_off: Callable[[], bool]) -> AsyncGenerator[Event, None]:
        asked: dict[str, Any] = {"http_request_id": self.request_id, "is_cut_off": is_cut_off}
        request = call.request
        if call.truncates:
            request, _ = await truncated(request, lambda prompt: self.gateway.tokenize(prompt, **asked))
        async with aclosing(named(self.gateway.generate(request, **asked), FIELD_NAMES)) as events:
            async for event in events:
                yield event

    def _streamed(
        self,
        call: ResponseCall,
        client: UntilDisconnect,
        notes: PrefixNotes,
        builder: ResponseBuilder,
        events: AsyncGenerator[Event, None],
    ) -> Response:
        return EventStream(
            self._encoded(call, builder, events),
            client=client,
            error_frame=lambda error: encode_events(builder.fail(visible_error(error, self.request_id))),
            silence=Silence(self.http.keepalive_s, self.http.start_wait_s),
            late_headers=lambda: ignored_headers(call.ignored, self.gateway.told) | notes.headers(),
            waiting_for=lambda: self.models.progress(call.request.model),
        )

    async def _encoded(
        self, call: ResponseCall, builder: ResponseBuilder, events: AsyncGenerator[Event, None]
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(events):
            async for event in events:
                added = builder.add(event)
                if builder.is_over:
                    # before its end is told: whoever reads that may go on with it at once
                    await self._keep(call, builder)
                yield encode_events(added)

    async def _keep(self, call: ResponseCall, builder: ResponseBuilder) -> None:
        if call.store:
            await self.responses.store.put(stored(call, builder.response, self.responses.owner))


async def _exchange(
    request: Request,
    gateway: GatewayDep,
    models: ModelsDep,
    *,
    responses: ResponsesDep,
    background: BackgroundDep,
    http: HttpOptionsDep,
    request_id: RequestIdDep,
) -> ResponseExchange:
    return ResponseExchange(request, gateway, models, responses, background, http, request_id)


@router.post("")
async def create_response(exchange: Annotated[ResponseExchange, Depends(_exchange)]) -> Response:
    """Answer a text or the items of a conversation."""
    return await exchange.answer()


@router.post("/input_tokens")
async def count_input_tokens(exchange: Annotated[ResponseExchange, Depends(_exchange)]) -> Response:
    """Count the tokens of a text or of the items of a conversation as the model's own template renders them."""
    return await exchange.count()


@router.get("/{response_id}")
async def retrieve_response(response_id: str, responses: ResponsesDep, stream: bool = False) -> Response:
    """A stored response."""
    if stream:
        raise InvalidRequest("stream is not supported here: a stored response is sent as a whole.", param="stream")
    found = await responses.get(response_id, param="response_id")
    return Response(found.body, media_type="application/json")


@router.post("/{response_id}/cancel")
async def cancel_response(response_id: str, responses: ResponsesDep, background: BackgroundDep) -> Response:
    """End a response that is made in the background; one that is over stays as it is."""
    found = await responses.get(response_id, param="response_id")
    if not found.is_background:
        raise InvalidRequest(
            f"response_id names the response {response_id[:80]!r}, which is not made in the background: close its "
            "connection instead.",
            param="response_id",
        )
    await background.cancel(response_id)
    found = await responses.get(response_id, param="response_id")
    return Response(found.body, media_type="application/json")


@router.delete("/{response_id}")
async def delete_response(response_id: str, responses: ResponsesDep, background: BackgroundDep) -> Response:
    """Forget a stored response; conversations cannot go on from it any more."""
    found = await responses.get(response_id, param="response_id")
    await background.cancel(found.id)
    await responses.store.delete(found.id)
    return _json({"id": found.id, "object": "response", "deleted": True})


@router.get("/{response_id}/input_items")
async def list_input_items(
    response_id: str,
    responses: ResponsesDep,
    *,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> Response:
    """The items that a stored response was asked with, those of the conversation before it included."""
    found = await responses.get(response_id, param="response_id")
    items = [*await responses.earlier_items(found.previous_response_id), *found.inputs()]
    if order == "desc":
        items.reverse()
    ids = [item["id"] for item in items]
    if after is not None and after not in ids:
        raise InvalidRequest(f"after cannot be {after[:80]!r}: send the id of an item of the list.", param="after")
    start = ids.index(after) + 1 if after is not None else 0
    page = items[start : start + limit]
    return _json(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": start + limit < len(items),
        }
    )


def _json(body: dict[str, Any]) -> Response:
    return Response(encode_json(body), media_type="application/json")
