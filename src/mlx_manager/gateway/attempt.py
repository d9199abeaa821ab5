"""Asks the targets of a plan in order until one begins to answer: in time, and past those that keep failing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec

from mlx_manager.catalog import Timeouts
from mlx_manager.errors import (
    ContextLengthExceeded,
    GenerationFailed,
    MlxManagerError,
    ModelLoadFailed,
    ModelNotFound,
    ProviderBusy,
    QueueFull,
    QueueWait,
    TargetTimeout,
    Unavailable,
    UnsupportedParameter,
    WorkerDied,
)
from mlx_manager.gateway.account import Attempts
from mlx_manager.gateway.asker import BACKEND_NOTE, FALLBACK_NOTE, Asker
from mlx_manager.gateway.breaker import Breakers
from mlx_manager.gateway.queues import Queues
from mlx_manager.gateway.router import Plan, Target
from mlx_manager.ir import Event, GenerationRequest, PromptReady, Usage, Vectors

_Reply = TypeVar("_Reply")


@dataclass(frozen=True)
class PlanRunner:
    """One request on its way through its plan."""

    plan: Plan
    asker: Asker
    attempts: Attempts
    breakers: Breakers
    queues: Queues

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The events of the first target that begins to answer. Once one has begun, its failure is the answer's.

        A prompt that is ready is no beginning: nothing of it has gone out.
        """
        for target, is_last in self._in_turn():
            self.asker.told.clear()
            if target.remote is not None:
                self.asker.told.update(target.remote.told(request))
            has_begun = False
            with self._watched(target) as watch:
                try:
                    async with aclosing(self._timed(target, request, is_last=is_last)) as events:
                        async for event in events:
                            if not has_begun and not isinstance(event, PromptReady):
                                has_begun = True
                                watch.succeed()
                            yield event
                    return
                except MlxManagerError as error:
                    watch.fail(error)
                    if has_begun or is_last or not self._gives_way(error):
                        raise
                    self._give_up(error)

    async def ask(self, call: Callable[[Target], Awaitable[_Reply]]) -> _Reply:
        """The same for what is answered in one piece."""
        for target, is_last in self._in_turn():
            with self._watched(target) as watch:
                try:
                    async with _limit(target, target.timeouts.first_token_s):
                        reply = await call(target)
                    watch.succeed()
                    if isinstance(reply, Vectors):
                        self.attempts.charge(_usage_of(reply))
                    return reply
                except MlxManagerError as error:
                    watch.fail(error)
                    if is_last or not self._gives_way(error):
                        raise
                    self._give_up(error)
        raise AssertionError("a plan has a last target")

    def _in_turn(self) -> Iterator[tuple[Target, bool]]:
        """The targets that may be asked. Raises `ProviderBusy` where the last one may not.

        A last one on this machine is asked even so: nobody else can answer, and it may have come back.
        """
        targets = self.plan.targets
        self.attempts.route = self.plan.route.name if self.plan.route is not None else None
        if self.plan.skipped_for is not None:
            self._note_reason(self.plan.skipped_for)
        for index, target in enumerate(targets):
            is_last = index == len(targets) - 1
            breaker = self.breakers.find(target.backend, target.model)
            is_asked_anyway = is_last and target.remote is None
            if breaker is not None and not is_asked_anyway and not breaker.may_ask():
                error = ProviderBusy(
                    f"{target.label} failed several times in a row, and is left alone for a while.",
                    retry_after_s=max(breaker.retry_after_s, 1.0),
                )
                if is_last:
                    raise error
                self._note_reason(error.code)
                continue
            price = None if target.remote is None else partial(target.remote.cost_usd, target.model)
            self.attempts.begin(target.backend.name, target.kind, target.model, price)
            self.asker.notes[BACKEND_NOTE] = target.backend.name
            self.asker.answered_by[:] = [target.label]
            yield target, is_last

    @contextmanager
    def _watched(self, target: Target) -> Iterator[_Watch]:
        watch = _Watch(self.breakers, target)
        try:
            yield watch
        finally:
            watch.abandon()

    def _gives_way(self, error: MlxManagerError) -> bool:
        """Whether another target may do better: not where the request itself is at fault."""
        if isinstance(error, UnsupportedParameter):
            # what one cannot do, another may
            return self.plan.route is not None
        if isinstance(error, ContextLengthExceeded):
            return self.plan.route is not None and self.plan.route.spill.when_too_long
        if isinstance(error, ModelNotFound):
            return self.plan.route is not None
        return isinstance(error, Unavailable | QueueFull | GenerationFailed)

    def _give_up(self, error: MlxManagerError) -> None:
        self.attempts.give_up(error)
        self._note_reason(error.code)

    def _note_reason(self, code: str) -> None:
        self.attempts.fallback_reason = self.attempts.fallback_reason or code
        self.asker.notes[FALLBACK_NOTE] = self.attempts.fallback_reason

    async def _timed(self, target: Target, request: GenerationRequest, *, is_last: bool) -> AsyncGenerator[Event, None]:
        """The target's events, each in its time. Raises `TargetTimeout` and, where others can answer, `QueueWait`."""
        loop = asyncio.get_running_loop()
        timeouts = target.timeouts
        began_s = loop.time()
        first_s, ends_s = began_s + timeouts.first_token_s, began_s + timeouts.total_s
        spill = self.plan.route.spill.queue_wait_s if self.plan.route is not None else None
        queue_s = None if spill is None or is_last or target.remote is not None else began_s + spill
        asked = request if request.model == target.model else msgspec.structs.replace(request, model=target.model)
        is_first = True
        with self.queues.joined(target.model) as waiting:
            async with aclosing(target.backend.generate(asked)) as events:
                while True:
                    turn_s = first_s if is_first else loop.time() + timeouts.between_tokens_s
                    if queue_s is not None:
                        turn_s = min(turn_s, queue_s)
                    try:
                        async with asyncio.timeout_at(min(turn_s, ends_s)) as timer:
                            event = await anext(events)
                    except StopAsyncIteration:
                        return
                    except TimeoutError:
                        if not timer.expired():
                            raise
                        raise _too_late(target, is_queued=queue_s is not None, is_first=is_first) from None
                    waiting.admitted()
                    queue_s = None
                    is_first = is_first and isinstance(event, PromptReady)
                    yield event


def _usage_of(vectors: Vectors) -> Usage:
    return Usage(num_prompt_tokens=vectors.num_prompt_tokens, num_cached_tokens=0, num_completion_tokens=0)


_FAILURES_HERE = (TargetTimeout, ModelLoadFailed, WorkerDied, GenerationFailed)
"""Of a model on this machine. That there is no memory or a queue is full says nothing of the model."""


class _Watch:
    """Tells a target's breaker what came of one attempt, once."""

    def __init__(self, breakers: Breakers, target: Target) -> None:
        self._breakers = breakers
        self._of = (target.backend, target.model)
        self._failures = _FAILURES_HERE if target.remote is None else (Unavailable, GenerationFailed)
        self._is_over = False

    def succeed(self) -> None:
        if not self._is_over:
            self._breakers.succeed(*self._of)
            self._is_over = True

    def fail(self, error: MlxManagerError) -> None:
        """Its own failures count. That it refused a wrong request is a success, that it had no room is neither."""
        if isinstance(error, self._failures):
            if not self._is_over:
                self._breakers.fail(*self._of, error.retry_after_s)
                self._is_over = True
        elif isinstance(error, Unavailable | QueueFull):
            self.abandon()
        else:
            self.succeed()

    def abandon(self) -> None:
        if not self._is_over:
            self._breakers.abandon(*self._of)
            self._is_over = True


class _limit:  # noqa: N801 — used as asyncio.timeout is
    """Raises `TargetTimeout` when the code inside takes longer."""

    def __init__(self, target: Target, seconds: float) -> None:
        self._target = target
        self._timer = asyncio.timeout(min(seconds, target.timeouts.total_s))

    async def __aenter__(self) -> None:
        await self._timer.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self._timer.__aexit__(*exc)  # type: ignore[arg-type]
        except TimeoutError:
            raise _too_late(self._target, is_queued=False, is_first=True) from None


def _too_late(target: Target, *, is_queued: bool, is_first: bool) -> MlxManagerError:
    timeouts: Timeouts = target.timeouts
    if is_queued:
        return QueueWait(f"{target.label} would have let the request wait for longer than its route allows.")
    phase, limit_s = ("first token", timeouts.first_token_s) if is_first else ("next token", timeouts.between_tokens_s)
    limit_s = min(limit_s, timeouts.total_s)
    return TargetTimeout(f"{target.label} did not send its {phase} within {limit_s:g} s, or took too long in all.")
