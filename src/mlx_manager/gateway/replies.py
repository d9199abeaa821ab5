"""The account of one request that is answered in one piece: for vectors, scores or tokens."""

from __future__ import annotations

import time
from collections.abc import Callable

from mlx_manager.gateway.account import Attempts, origin_fields, outcome_of
from mlx_manager.ir import (
    DetokenizeRequest,
    EmbeddingRequest,
    RequestRecord,
    RerankRequest,
    TokenizeRequest,
    Tokens,
    Vectors,
    current_origin,
    printable,
)
from mlx_manager.observability.spans import RequestTrace

ReplyRequest = EmbeddingRequest | RerankRequest | TokenizeRequest | DetokenizeRequest


class ReplyWatch:
    """Takes the time of one request. `is_cut_off` as `Stopwatch` has it."""

    def __init__(self, request: ReplyRequest, http_request_id: str, is_cut_off: Callable[[], bool]) -> None:
        self.request = request
        self._http_request_id = http_request_id
        self._is_cut_off = is_cut_off
        self._arrived_s = time.monotonic()
        self._arrived_unix_s = time.time()
        self._origin = current_origin()
        self.attempts = Attempts()
        """Written by the gateway."""

    def record(self, reply: Vectors | Tokens | None, error: BaseException | None) -> RequestRecord:
        """The finished account: the `reply`, or the `error` that ended the request."""
        status, code = (200, None) if reply else outcome_of(error, self._is_cut_off)
        return RequestRecord(
            request_id=self._http_request_id,
            answer_id=self.request.request_id,
            **origin_fields(self._origin),
            arrived_unix_s=self._arrived_unix_s,
            model=printable(self.request.model),
            **self.attempts.fields(),
            status=status,
            error_code=code,
            duration_s=round(time.monotonic() - self._arrived_s, 6),
            num_prompt_tokens=_num_tokens(reply),
        )

    def trace(self, record: RequestRecord) -> RequestTrace:
        """What spans are made of; `record` is the finished account."""
        ended_s = self._arrived_s + (record.duration_s or 0.0)
        return RequestTrace(
            record=record,
            origin=self._origin,
            request=self.request,
            arrived_s=self._arrived_s,
            ended_s=ended_s,
            attempts=self.attempts.ended(ended_s, record.error_code),
            planning=self.attempts.planning,
        )


def _num_tokens(reply: Vectors | Tokens | None) -> int | None:
    if isinstance(reply, Vectors):
        return reply.num_prompt_tokens
    return None if reply is None else reply.num_tokens
