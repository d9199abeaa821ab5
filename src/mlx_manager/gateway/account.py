"""The account of one request: what was asked, how it went and what it cost, as one structured log line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from mlx_manager.errors import MlxManagerError, ShuttingDown
from mlx_manager.ir import (
    Call,
    ChoiceEnd,
    Event,
    Finished,
    GenerationRequest,
    Origin,
    PartDelta,
    PromptReady,
    RequestRecord,
    Timings,
    Usage,
    current_origin,
    enter_call,
    estimate_tokens,
    printable,
)
from mlx_manager.observability.spans import Attempt, Planning, RequestTrace

Price = Callable[[Usage], float | None]
CLIENT_CLOSED_STATUS = 499
"""Not sent to anybody: the client had gone."""


def log_record(record: RequestRecord) -> None:
    """Write `record` as one JSON line to the log `mlx_manager.requests`."""
    _logger.info("%s", msgspec.json.encode(record).decode())


_logger = logging.getLogger("mlx_manager.requests")


class Attempts:
    """The backends that one request was handed to, and why it was handed on."""

    def __init__(self) -> None:
        self.target: str | None = None
        """The last one."""
        self.target_kind: str | None = None
        self.target_model: str | None = None
        self.route: str | None = None
        """The route by which they were found; written before the first."""
        self.fallback_reason: str | None = None
        self.cost_usd: float | None = None
        """What the answer cost, where a provider gave it and its price is known."""
        self.planning: Planning | None = None
        """How they were found; written by the gateway."""
        self._call = Call()
        self._price: Price | None = None
        self._given_up: list[Attempt] = []
        self._started_s = 0.0

    @property
    def num_attempts(self) -> int:
        """Backends that were asked."""
        return len(self._given_up) + (self.target is not None)

    def begin(self, target: str, kind: str, model: str, price: Price | None) -> None:
        """`target` is asked for `model` now; `price` is what an answer of it costs, where it costs anything."""
        self.target, self.target_kind, self.target_model = target, kind, printable(model)
        self._price = price
        self._started_s = time.monotonic()
        self._call = Call(trace_id=current_origin().trace_id)
        enter_call(self._call)

    @property
    def is_paid(self) -> bool:
        """Whether the last one is a provider, which charges for what it has begun."""
        return self.target is not None and self._price is not None

    def charge(self, usage: Usage) -> None:
        """The last one answered with that."""
        self.cost_usd = None if self._price is None else self._price(usage)

    def give_up(self, error: MlxManagerError) -> None:
        """The last one failed with `error`, and another is asked."""
        self.fallback_reason = self.fallback_reason or error.code
        self._given_up.append(self._last(time.monotonic(), error.code))
        self.target = self.target_kind = self.target_model = None

    def fields(self) -> dict[str, Any]:
        """What a record says about them."""
        return {
            "target": self.target,
            "target_kind": self.target_kind,
            "target_model": self.target_model,
            "route": self.route,
            "num_attempts": self.num_attempts,
            "fallback_reason": self.fallback_reason,
            "cost_usd": self.cost_usd,
        }

    def ended(self, ended_s: float, error_code: str | None) -> tuple[Attempt, ...]:
        """All of them; the last one ended with the request."""
        if self.target is None:
            return tuple(self._given_up)
        return (*self._given_up, self._last(ended_s, error_code))

    def _last(self, ended_s: float, error_code: str | None) -> Attempt:
        assert self.target is not None
        return Attempt(
            target=self.target,
            model=self.target_model or "",
            started_s=self._started_s,
            ended_s=ended_s,
            error_code=error_code,
            call=self._call,
        )


class Stopwatch:
    """Collects the account of one request while its events pass by.

    `is_cut_off` says, when neither an answer nor an error ended the request, whether it was the server that ended it.
    With `with_content` the text of the answer is kept for its trace.
    """

    def __init__(
        self,
        request: GenerationRequest,
        http_request_id: str,
        is_cut_off: Callable[[], bool],
        *,
        with_content: bool = False,
    ) -> None:
        self._request = request
        self._is_cut_off = is_cut_off
        self._http_request_id = http_request_id
        self._origin = current_origin()
        self._arrived_s = time.monotonic()
        self._arrived_unix_s = time.time()
        self._queue_s: float | None = None
        self._ttft_s: float | None = None
        self._last_text_s: float | None = None
        """On the monotonic clock."""
        self._prompt: PromptReady | None = None
        self._finished: Finished | None = None
        self._finish_reasons: list[str] = []
        self._num_deltas = self._num_characters = 0
        self._texts: list[str] | None = [] if with_content else None
        self.attempts = Attempts()
        """Written by the gateway."""

    def see(self, event: Event) -> None:
        """Note what `event` says about time and cost."""
        match event:
            case PartDelta():
                self._last_text_s = time.monotonic()
                if self._ttft_s is None:
                    self._ttft_s = self._elapsed_s()
                self._num_deltas += 1
                self._num_characters += len(event.text)
                if self._texts is not None:
                    self._texts.append(event.text)
            case PromptReady():
                self._queue_s = self._elapsed_s()
                self._prompt = event
            case ChoiceEnd():
                self._finish_reasons.append(event.reason.value)
            case Finished():
                self._finished = event
            case _:
                pass

    def record(self, error: BaseException | None) -> RequestRecord:
        """The finished account. `error` is what ended the request early; anything but an error of ours counts as
        an internal one, and neither an error nor a finished answer means that somebody closed the stream."""
        status, code = self._outcome(error)
        usage = self._finished.usage if self._finished else self._estimate(error)
        if usage is not None:
            self.attempts.charge(usage)
        prompt = self._prompt
        prefix = prompt.prefix if prompt else None
        return RequestRecord(
            request_id=self._http_request_id,
            answer_id=self._request.request_id,
            **origin_fields(self._origin),
            arrived_unix_s=self._arrived_unix_s,
            model=printable(self._request.model),
            **self.attempts.fields(),
            status=status,
            error_code=code,
            priority=self._request.priority.value,
            num_choices=self._request.num_choices,
            queue_s=self._queue_s,
            ttft_s=self._ttft_s,
            duration_s=self._elapsed_s(),
            num_prompt_tokens=usage.num_prompt_tokens if usage else prompt.num_prompt_tokens if prompt else None,
            num_cached_tokens=usage.num_cached_tokens if usage else prefix.num_matched_tokens if prefix else None,
            num_completion_tokens=usage.num_completion_tokens if usage else None,
            num_reasoning_tokens=self._finished.usage.num_reasoning_tokens if self._finished else None,
            prefix_reason=prefix.reason if prefix else None,
            num_agreed_tokens=prefix.num_agreed_tokens if prefix else None,
        )

    def trace(self, record: RequestRecord) -> RequestTrace:
        """What spans are made of; `record` is the finished account."""
        ended_s = self._arrived_s + (record.duration_s or 0.0)
        return RequestTrace(
            record=record,
            origin=self._origin,
            request=self._request,
            arrived_s=self._arrived_s,
            ended_s=ended_s,
            attempts=self.attempts.ended(ended_s, record.error_code),
            timings=self._finished.timings if self._finished else self._timings_so_far(),
            planning=self.attempts.planning,
            finish_reasons=tuple(self._finish_reasons),
            answer=None if self._texts is None else "".join(self._texts),
        )

    def _timings_so_far(self) -> Timings | None:
        """Of an answer that did not come to its end: what the worker had told, and when text came from it."""
        so_far = self._prompt.timings if self._prompt else None
        if so_far is None or self._ttft_s is None:
            return so_far
        first_s = self._arrived_s + self._ttft_s
        return msgspec.structs.replace(so_far, first_token_s=first_s, last_token_s=self._last_text_s)

    def _estimate(self, error: BaseException | None) -> Usage | None:
        """What was used by an answer that ended before it told: it was computed, and is paid for, all the same.

        None where nothing of it is known to have begun. A provider that is left before its first token has read the
        prompt.
        """
        was_left = not isinstance(error, Exception)
        if self.attempts.target is None or not (self._num_deltas or (was_left and self.attempts.is_paid)):
            return None
        num_prompt_tokens = self._prompt.num_prompt_tokens if self._prompt else estimate_tokens(self._request.prompt)
        prefix = self._prompt.prefix if self._prompt else None
        return Usage(
            num_prompt_tokens=num_prompt_tokens,
            num_cached_tokens=prefix.num_matched_tokens if prefix else 0,
            # a piece is a token or more, and a token some four characters
            num_completion_tokens=max(self._num_deltas, self._num_characters // 4),
        )

    def _outcome(self, error: BaseException | None) -> tuple[int, str | None]:
        if self._finished:
            return 200, None
        return outcome_of(error, self._is_cut_off)

    def _elapsed_s(self) -> float:
        return round(time.monotonic() - self._arrived_s, 6)


def origin_fields(origin: Origin) -> dict[str, Any]:
    """What a record says about where its request came from."""
    return {
        "trace_id": origin.trace_id,
        "path": origin.path,
        "dialect": origin.dialect,
        "user": origin.user,
        "key": origin.key,
        "key_id": origin.key_id,
        "client_address": origin.client_address,
        "user_agent": origin.user_agent,
    }


def outcome_of(error: BaseException | None, is_cut_off: Callable[[], bool]) -> tuple[int, str]:
    """Status and code of a request that `error` ended, or that somebody closed."""
    if isinstance(error, MlxManagerError):
        return error.status, error.code
    if isinstance(error, Exception):
        return MlxManagerError.status, MlxManagerError.code
    if is_cut_off():
        return ShuttingDown.status, ShuttingDown.code
    return CLIENT_CLOSED_STATUS, "client_closed"
