"""The way of every request: admit, plan, attempt the targets in order until one begins to answer, account."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, aclosing, contextmanager, nullcontext
from dataclasses import replace
from typing import TypeVar

import msgspec

from mlx_manager.backends import Backend
from mlx_manager.catalog import PrefixIsolation
from mlx_manager.errors import GenerationFailed, MlxManagerError, ModelNotFound, ShuttingDown
from mlx_manager.gateway.account import Attempts, Stopwatch, log_record, origin_fields
from mlx_manager.gateway.asker import Asker
from mlx_manager.gateway.attempt import PlanRunner
from mlx_manager.gateway.breaker import Breakers, BreakerState
from mlx_manager.gateway.budget import Budgets
from mlx_manager.gateway.limits import PromptLimits
from mlx_manager.gateway.replies import ReplyRequest, ReplyWatch
from mlx_manager.gateway.router import Plan, Router, Target
from mlx_manager.gateway.traits import Traits, traits_of
from mlx_manager.ir import (
    DetokenizeRequest,
    EmbeddingRequest,
    Event,
    Finished,
    GenerationRequest,
    Origin,
    RequestRecord,
    RerankRequest,
    TokenizeRequest,
    Tokens,
    Usage,
    Vectors,
    current_origin,
    estimate_tokens,
)
from mlx_manager.observability.spans import Attempt, HttpTrace, Planning
from mlx_manager.observability.tracer import Tracer

_Reply = TypeVar("_Reply", Vectors, Tokens)
_EXPECTED_TOKENS, _MOST_HELD_TOKENS = 1_000, 4_000
"""What is set aside for an answer that does not say how long it may be, and at most for one that does."""


async def _has_room() -> None:
    """Where nobody keeps accounts, there always is."""


class Gateway:
    """Answers requests through its backends. Every request is accounted for once, whatever becomes of it.

    Everyone of `account` is told the record of each request when it is over, and `watch_attempts` which backends were
    asked for it; they must be quick and raise nothing. `limits` is asked with each request. `make_room` is awaited
    before a request is worked on: it waits, or raises, while its account could not be kept.
    """

    def __init__(
        self,
        router: Router | Sequence[Backend],
        *,
        account: Sequence[Callable[[RequestRecord], None]] = (log_record,),
        tracer: Tracer | None = None,
        make_room: Callable[[], Awaitable[None]] = _has_room,
        watch_attempts: Callable[[Sequence[Attempt]], None] = lambda _: None,
        budgets: Budgets | None = None,
        limits: Callable[[], PromptLimits] = PromptLimits,
        isolation: PrefixIsolation = PrefixIsolation.NONE,
    ) -> None:
        self._router = router if isinstance(router, Router) else Router(router)
        self._breakers = Breakers()
        self._budgets = budgets
        self._limits = limits
        self._isolation = isolation
        self._account = tuple(account)
        self._tracer = tracer
        self._watch_attempts = watch_attempts
        self._make_room = make_room
        self._asker = Asker()
        self._closing = asyncio.Event()

    def on_behalf_of(self, asker: Asker) -> Gateway:
        """This gateway, for the requests of `asker`."""
        bound = copy.copy(self)
        bound._asker = asker
        return bound

    @property
    def told(self) -> frozenset[str]:
        """Parameters without effect here that whoever answers has been told, by name."""
        return frozenset(self._asker.told)

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
        holding = ExitStack()
        try:
            self.admit(request.model)
            self._limits().check(request.prompt)
            await self._make_room()
            attempt = self._attempt(request, stopwatch.attempts)
            # nothing else may run between the plan and this
            holding.enter_context(self._holding(request, attempt.plan))
            async with aclosing(attempt.generate(self._isolated(request))) as events:
                async for event in events:
                    stopwatch.see(event)
                    yield event
                    if isinstance(event, Finished):
                        return
            raise GenerationFailed("The answer broke off before its end. Send the request again.")
        except ModelNotFound as error:
            ended_by = error
            raise self._router.not_found(error, request.model) from None
        except BaseException as error:
            ended_by = error
            raise
        finally:
            self._keep(stopwatch.record(ended_by), stopwatch)
            holding.close()

    async def embed(
        self,
        request: EmbeddingRequest | RerankRequest,
        *,
        http_request_id: str,
        is_cut_off: Callable[[], bool] = lambda: False,
    ) -> Vectors:
        """The vectors or scores of `request`, from the first backend that has them. Raises `MlxManagerError`."""
        watch = ReplyWatch(request, http_request_id, is_cut_off)
        return await self._reply(watch, lambda target: target.backend.embed(_for(target, request)))

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
        return await self._reply(watch, lambda target: target.backend.tokenize(_for(target, request)))

    def admit(self, model: str) -> None:
        """Raises `ShuttingDown` when no new request may begin, and `NotPermitted` for a model that is not theirs."""
        if self._closing.is_set():
            raise ShuttingDown("The server is stopping. Send the request again when it is back.", retry_after_s=5)
        self._asker.caller.check_model(model)

    def explain(self, model: str, traits: Traits) -> tuple[Plan, dict[str, BreakerState]]:
        """What would become of a request, without asking anybody; and how the targets' breakers stand.

        Raises what the request would be refused with.
        """
        self._asker.caller.check_model(model)
        plan = self._router.plan(model, traits, self._asker)
        missing = [
            f"this machine has no model {name!r}.{self._router.hint(name)}" for name in self._router.missing(plan)
        ]
        plan = replace(plan, steps=(*plan.steps, *missing))
        return plan, {target.label: self._breakers.state(target.backend, target.model) for target in plan.targets}

    def missing(self, plan: Plan) -> list[str]:
        """The models that `plan` would ask this machine for, and that it does not have."""
        return self._router.missing(plan)

    def targets_left_alone(self) -> dict[str, int]:
        """How many targets of each backend failed so often that they are not asked for now."""
        return self._breakers.num_open()

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
        if watch is not None:
            trace = watch.trace(record)
            self._watch_attempts(trace.attempts)
            if self._tracer is not None:
                self._tracer.put(trace)
        for take in self._account:
            take(record)

    def _isolated(self, request: GenerationRequest) -> GenerationRequest:
        caller = self._asker.caller
        match self._isolation:
            case PrefixIsolation.NONE:
                return request
            case PrefixIsolation.USER:
                return msgspec.structs.replace(request, cache_salt=caller.user_salt)
            case PrefixIsolation.KEY:
                return msgspec.structs.replace(request, cache_salt=caller.key_salt)

    def _attempt(self, request: GenerationRequest | ReplyRequest, attempts: Attempts) -> PlanRunner:
        asker = self._asker
        started_s = time.monotonic()
        plan = self._router.plan(request.model, traits_of(request, asker.caller), asker)
        attempts.planning = Planning(started_s, time.monotonic(), plan.steps)
        if self._budgets is not None and any(target.remote is not None for target in plan.targets):
            self._budgets.warn(asker)
        return PlanRunner(plan, self._asker, attempts, self._breakers, self._router.queues)

    def _holding(self, request: GenerationRequest, plan: Plan) -> AbstractContextManager[None]:
        """Sets aside what `request` may use at most, as far as that can be told, while it runs."""
        caller = self._asker.caller
        if self._budgets is None or not self._budgets.are_set(caller):
            return nullcontext()
        num_tokens = min(request.sampling.max_tokens or _EXPECTED_TOKENS, _MOST_HELD_TOKENS)
        usage = Usage(
            num_prompt_tokens=estimate_tokens(request.prompt),
            num_cached_tokens=0,
            num_completion_tokens=num_tokens * request.num_choices,
        )
        remotes = [(target.remote, target.model) for target in plan.targets if target.remote is not None]
        costs = [remote.cost_usd(model, usage) or 0.0 for remote, model in remotes]
        return self._budgets.holding(
            caller, usage.num_prompt_tokens + usage.num_completion_tokens, max(costs, default=0.0)
        )

    async def _reply(self, watch: ReplyWatch, ask: Callable[[Target], Awaitable[_Reply]]) -> _Reply:
        reply: _Reply | None = None
        ended_by: BaseException | None = None
        try:
            self.admit(watch.request.model)
            await self._make_room()
            reply = await self._attempt(watch.request, watch.attempts).ask(ask)
            return reply
        except ModelNotFound as error:
            ended_by = error
            raise self._router.not_found(error, watch.request.model) from None
        except BaseException as error:
            ended_by = error
            raise
        finally:
            self._keep(watch.record(reply, ended_by), watch)


_Request = TypeVar("_Request", bound=ReplyRequest)


def _for(target: Target, request: _Request) -> _Request:
    """`request` by the name that the target knows its model by."""
    return request if request.model == target.model else msgspec.structs.replace(request, model=target.model)
