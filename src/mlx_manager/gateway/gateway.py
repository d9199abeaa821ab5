"""The way of every request: admit, plan, attempt the targets in order until one begins to answer, account."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from mlx_manager.backends import Backend
from mlx_manager.errors import GenerationFailed, MlxManagerError, QueueFull, ShuttingDown, Unavailable
from mlx_manager.gateway.account import Stopwatch, log_record, origin_fields
from mlx_manager.gateway.asker import Asker
from mlx_manager.gateway.replies import ReplyWatch
from mlx_manager.ir import (
    DetokenizeRequest,
    EmbeddingRequest,
    Event,
    Finished,
    GenerationRequest,
    Origin,
    PromptReady,
    RequestRecord,
    RerankRequest,
    TokenizeRequest,
    Tokens,
    Vectors,
    current_origin,
)
from mlx_manager.observability.spans import HttpTrace
from mlx_manager.observability.tracer import Tracer

_Reply = TypeVar("_Reply", Vectors, Tokens)


@dataclass(frozen=True)
class Target:
    """Who is to answer, and which request to hand them."""

    backend: Backend
    request: GenerationRequest


async def _has_room() -> None:
    """Where nobody keeps accounts, there always is."""


class Gateway:
    """Answers requests through its backends. Every request is accounted for once, whatever becomes of it.

    Everyone of `account` is told the record of each request when it is over; they must be quick and raise nothing.
    `make_room` is awaited before a request is worked on: it waits, or raises, while its account could not be kept.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        account: Sequence[Callable[[RequestRecord], None]] = (log_record,),
        tracer: Tracer | None = None,
        make_room: Callable[[], Awaitable[None]] = _has_room,
    ) -> None:
        self._backends = tuple(backends)
        self._account = tuple(account)
        self._tracer = tracer
        self._make_room = make_room
        self._asker = Asker()
        self._closing = asyncio.Event()

    def on_behalf_of(self, asker: Asker) -> Gateway:
        """This gateway, for the requests of `asker`."""
        bound = copy.copy(self)
        bound._asker = asker
        return bound

    def close(self) -> None:
        """Take no new requests; those that run go on."""
        self._closing.set()

    async def generate(
        self, request: GenerationRequest, *, http_request_id: str, is_cut_off: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[Event, None]:
        """The events of the answer. Closing the stream early aborts the work. Raises `MlxManagerError`.

        `is_cut_off` tells a stream that the stopping server closed early from one whose client did.
        """
        with_content = self._tracer is not None and self._tracer.with_content
        stopwatch = Stopwatch(request, http_request_id, is_cut_off, with_content=with_content)
        ended_by: BaseException | None = None
        try:
            self.admit(request.model)
            await self._make_room()
            async with aclosing(self._attempt(self.plan(request), stopwatch)) as events:
                async for event in events:
                    stopwatch.see(event)
                    yield event
                    if isinstance(event, Finished):
                        return
            raise GenerationFailed("The answer broke off before its end. Send the request again.")
        except BaseException as error:
            ended_by = error
            raise
        finally:
            self._keep(stopwatch.record(ended_by), stopwatch)

    async def embed(
        self,
        request: EmbeddingRequest | RerankRequest,
        *,
        http_request_id: str,
        is_cut_off: Callable[[], bool] = lambda: False,
    ) -> Vectors:
        """The vectors or scores of `request`, from the first backend that has them. Raises `MlxManagerError`."""
        watch = ReplyWatch(request, http_request_id, is_cut_off)
        return await self._reply(watch, lambda backend: backend.embed(request))

    async def tokenize(
        self,
        request: TokenizeRequest | DetokenizeRequest,
        *,
        http_request_id: str,
        is_cut_off: Callable[[], bool] = lambda: False,
    ) -> Tokens:
        """The tokens of a prompt, or the text of tokens, from the first backend that has them.

        Raises `MlxManagerError`.
        """
        watch = ReplyWatch(request, http_request_id, is_cut_off)
        return await self._reply(watch, lambda backend: backend.tokenize(request))

    def admit(self, model: str) -> None:
        """Raises `ShuttingDown` when no new request may begin, and `NotPermitted` for a model that is not theirs."""
        if self._closing.is_set():
            raise ShuttingDown("The server is stopping. Send the request again when it is back.", retry_after_s=5)
        self._asker.caller.check_model(model)

    def plan(self, request: GenerationRequest) -> tuple[Target, ...]:
        """Who may answer `request`, best first; at least one."""
        return tuple(Target(backend, request) for backend in self._backends)

    @contextmanager
    def refusals(self, *, http_request_id: str, answer_id: str) -> Iterator[None]:
        """Account for a request that the code inside refuses before there is anything to generate."""
        try:
            yield
        except MlxManagerError as error:
            origin = current_origin()
            self._keep(
                RequestRecord(
                    request_id=http_request_id,
                    answer_id=answer_id,
                    **origin_fields(origin),
                    arrived_unix_s=origin.arrived_unix_s,
                    duration_s=origin.duration_s,
                    status=error.status,
                    error_code=error.code,
                )
            )
            raise

    def close_exchange(self, origin: Origin, status: int) -> None:
        """An HTTP request was answered with `status`. One that did not come to the gateway is accounted for now."""
        if self._tracer is not None:
            self._tracer.put(HttpTrace(origin, status, time.monotonic()))
        if origin.num_records:
            return
        self._keep(
            RequestRecord(
                request_id=origin.request_id,
                **origin_fields(origin),
                arrived_unix_s=origin.arrived_unix_s,
                duration_s=origin.duration_s,
                status=status,
                error_code=origin.error_code,
            )
        )

    def _keep(self, record: RequestRecord, watch: Stopwatch | ReplyWatch | None = None) -> None:
        current_origin().num_records += 1
        if self._tracer is not None and watch is not None:
            self._tracer.put(watch.trace(record))
        for take in self._account:
            take(record)

    async def _attempt(self, targets: tuple[Target, ...], stopwatch: Stopwatch) -> AsyncGenerator[Event, None]:
        """The events of the first target that begins to answer. Once one has begun, its failure is the answer's.

        A prompt that is ready is no beginning: nothing of it has gone out.
        """
        for index, target in enumerate(targets):
            stopwatch.attempts.begin(target.backend.name)
            has_begun = False
            try:
                async with aclosing(target.backend.generate(target.request)) as events:
                    async for event in events:
                        has_begun = has_begun or not isinstance(event, PromptReady)
                        yield event
                return
            except (Unavailable, QueueFull, GenerationFailed) as error:
                if has_begun or index == len(targets) - 1:
                    raise
                stopwatch.attempts.give_up(error)

    async def _reply(self, watch: ReplyWatch, ask: Callable[[Backend], Awaitable[_Reply]]) -> _Reply:
        reply: _Reply | None = None
        ended_by: BaseException | None = None
        try:
            self.admit(watch.model)
            await self._make_room()
            reply = await self._ask_in_turn(watch, ask)
            return reply
        except BaseException as error:
            ended_by = error
            raise
        finally:
            self._keep(watch.record(reply, ended_by), watch)

    async def _ask_in_turn(self, watch: ReplyWatch, ask: Callable[[Backend], Awaitable[_Reply]]) -> _Reply:
        for backend in self._backends[:-1]:
            watch.attempts.begin(backend.name)
            try:
                return await ask(backend)
            except (Unavailable, QueueFull, GenerationFailed) as error:
                watch.attempts.give_up(error)
        watch.attempts.begin(self._backends[-1].name)
        return await ask(self._backends[-1])
