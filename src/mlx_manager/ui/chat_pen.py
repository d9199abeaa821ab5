"""Writes the events of an answer into the turn of a reply, and what it took."""

from __future__ import annotations

import secrets
import time

from mlx_manager.ir import Finished, PartDelta, PartEnd, PartKind, PartStart
from mlx_manager.ui.conversation import ReplyFigures, Round, ToolUse, Turn


class Pen:
    """For one reply, from its first round to its last."""

    def __init__(self, reply: Turn) -> None:
        self._reply = reply
        self._kind = PartKind.TEXT
        self._began_s: float | None = None
        self._first_s: float | None = None
        self._first_of_round_s: float | None = None
        self._thinking_from_s: float | None = None
        self._finished: Finished | None = None
        self._writing_s = 0.0
        self._num_completion_tokens = 0

    def begin_round(self) -> None:
        """The model is asked again, with what its calls gave."""
        self._reply.rounds.append(Round())
        self._first_of_round_s = None
        self._reply.version += 1

    def note_asked(self) -> None:
        """The model is asked now: tools are ready by then."""
        if self._began_s is None:
            self._began_s = time.monotonic()

    def take(self, event: object) -> None:
        """Write down what `event` says."""
        match event:
            case PartStart():
                self._begin_part(event)
            case PartDelta():
                if event.text and self._first_of_round_s is None:
                    self._first_of_round_s = time.monotonic()
                    self._first_s = self._first_s or self._first_of_round_s
                self._write(event.text)
            case PartEnd():
                self._end_part(event)
            case Finished():
                self._finished = event
                self._num_completion_tokens += event.usage.num_completion_tokens
                if self._first_of_round_s is not None:
                    self._writing_s += time.monotonic() - self._first_of_round_s
        self._reply.version += 1

    def finish(self) -> None:
        """Write down what it took. The prompt is that of the last round; what was written is that of all."""
        self._end_thinking()
        usage = self._finished.usage if self._finished else None
        is_measured = usage is not None and self._writing_s > 0.01
        first_s, began_s = self._first_s, self._began_s
        self._reply.figures = ReplyFigures(
            ttft_s=first_s - began_s if first_s is not None and began_s is not None else None,
            tokens_per_s=self._num_completion_tokens / self._writing_s if is_measured else None,
            num_prompt_tokens=usage.num_prompt_tokens if usage else None,
            num_cached_tokens=usage.num_cached_tokens if usage else None,
            num_completion_tokens=self._num_completion_tokens if usage else None,
        )
        self._reply.version += 1

    @property
    def _round(self) -> Round:
        return self._reply.rounds[-1]

    def _begin_part(self, event: PartStart) -> None:
        self._kind = event.kind
        if event.kind is PartKind.REASONING:
            self._thinking_from_s = time.monotonic()
        elif event.kind is PartKind.TOOL_CALL:
            call_id = event.call_id or f"call_{secrets.token_hex(8)}"
            self._round.calls.append(ToolUse(call_id, event.tool_name or ""))

    def _write(self, text: str) -> None:
        match self._kind:
            case PartKind.REASONING:
                self._round.reasoning += text
            case PartKind.TOOL_CALL:
                self._round.calls[-1].arguments += text
            case PartKind.TEXT:
                self._round.text += text

    def _end_part(self, event: PartEnd) -> None:
        self._end_thinking()
        if self._kind is PartKind.REASONING:
            self._round.reasoning_signature = event.signature or self._round.reasoning_signature
        elif self._kind is PartKind.TOOL_CALL and event.is_withdrawn:
            self._round.calls.pop()

    def _end_thinking(self) -> None:
        if self._thinking_from_s is not None:
            elapsed_s = time.monotonic() - self._thinking_from_s
            self._round.thinking_s = (self._round.thinking_s or 0.0) + elapsed_s
            self._thinking_from_s = None
