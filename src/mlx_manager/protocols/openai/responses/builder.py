"""From the events of an answer to the typed events of a response, and to the response itself, which they add up to."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from types import MappingProxyType

from msgspec.structs import replace

from mlx_manager.errors import ContextLengthExceeded, InvalidRequest, MlxManagerError, QueueFull
from mlx_manager.ir import ChoiceEnd, Event, Finished, FinishReason, PartDelta, PartEnd, PartStart, Usage
from mlx_manager.protocols.openai.answers import error_type
from mlx_manager.protocols.openai.responses.answers import (
    Completed,
    Created,
    ErrorEvent,
    Failed,
    Incomplete,
    IncompleteDetails,
    InProgress,
    InputDetails,
    OutputDetails,
    OutputItem,
    ResponseError,
    ResponseObject,
    ResponseUsage,
    StreamEvent,
)
from mlx_manager.protocols.openai.responses.parts import OpenPart, open_part
from mlx_manager.protocols.openai.responses.server import AnswerForm


class ResponseBuilder:
    """Builds one response. Keeps state: one per response.

    The end of an item is told with the event that follows it, because only that one says whether the item was cut. A
    call that turns out to be none gets no end: clients carry out the calls whose end they see.
    """

    def __init__(self, opening: ResponseObject, form: AnswerForm, *, clock: Callable[[], float] = time.time) -> None:
        self.response = opening
        """As it stands; complete once `is_over`."""
        self.is_over = False
        self._form = form
        self._clock = clock
        self._num_events = 0
        self._num_items = 0
        self._items: list[OutputItem] = []
        self._open: OpenPart | None = None
        self._reason = FinishReason.STOP

    def add(self, event: Event) -> list[StreamEvent]:
        """The events of the response that `event` adds."""
        added = self._begin()
        match event:
            case PartDelta(_, text, logprobs):
                if self._open is not None and (text or logprobs):
                    added += self._open.more(text, logprobs, self._next)
            case PartStart():
                added += self._end_item("completed")
                part = open_part(event, secrets.token_hex(24), self._num_items, self._form)
                self._open = part
                self._num_items += 1
                added += part.start(self._next)
            case PartEnd(_, is_withdrawn=True):
                self._open = None
            case ChoiceEnd(_, reason):
                self._reason = reason
                added += self._end_item("incomplete" if reason in _CUT else "completed")
            case Finished(usage):
                added.append(self._finish(usage))
            case _:
                pass
        return added

    def fail(self, error: MlxManagerError) -> list[StreamEvent]:
        """The events that end the response with `error`."""
        added = self._begin()
        self.is_over = True
        self.response = replace(
            self.response, status="failed", error=ResponseError(_failure_code(error), error.message), output=self._items
        )
        said = {"type": error_type(error.status), "code": error.code, "message": error.message, "param": error.param}
        added.append(
            ErrorEvent(
                sequence_number=self._next(), code=error.code, message=error.message, param=error.param, error=said
            )
        )
        added.append(Failed(sequence_number=self._next(), response=self.response))
        return added

    def cancel(self) -> None:
        """End the response as one that nobody wants any more; the item that was being written is cut."""
        self._end_item("incomplete")
        self.is_over = True
        self.response = replace(self.response, status="cancelled", output=self._items)

    def _begin(self) -> list[StreamEvent]:
        if self._num_events:
            return []
        self.response = replace(self.response, status="in_progress")
        return [
            Created(sequence_number=self._next(), response=self.response),
            InProgress(sequence_number=self._next(), response=self.response),
        ]

    def _end_item(self, status: str) -> list[StreamEvent]:
        if self._open is None:
            return []
        item, added = self._open.end(status, self._next)
        self._items.append(item)
        self._open = None
        return added

    def _finish(self, usage: Usage) -> StreamEvent:
        self.is_over = True
        cut_by = _CUT.get(self._reason)
        self.response = replace(
            self.response,
            status="completed" if cut_by is None else "incomplete",
            completed_at=int(self._clock()) if cut_by is None else None,
            incomplete_details=None if cut_by is None else IncompleteDetails(cut_by),
            output=self._items,
            usage=render_response_usage(usage),
        )
        last = Completed if cut_by is None else Incomplete
        return last(sequence_number=self._next(), response=self.response)

    def _next(self) -> int:
        self._num_events += 1
        return self._num_events - 1


_CUT = MappingProxyType({FinishReason.LENGTH: "max_output_tokens", FinishReason.CONTENT_FILTER: "content_filter"})
"""Why a response is incomplete, in the dialect's words."""


def render_response_usage(usage: Usage) -> ResponseUsage:
    """Usage in the dialect's form."""
    return ResponseUsage(
        input_tokens=usage.num_prompt_tokens,
        input_tokens_details=InputDetails(cached_tokens=usage.num_cached_tokens),
        output_tokens=usage.num_completion_tokens,
        output_tokens_details=OutputDetails(usage.num_reasoning_tokens),
        total_tokens=usage.num_prompt_tokens + usage.num_completion_tokens,
    )


def _failure_code(error: MlxManagerError) -> str:
    """The code by which clients decide whether to try again."""
    match error:
        case ContextLengthExceeded():
            return "context_length_exceeded"
        case InvalidRequest():
            return "invalid_prompt"
        case QueueFull():
            return "rate_limit_exceeded"
        case _:
            return "server_error"
