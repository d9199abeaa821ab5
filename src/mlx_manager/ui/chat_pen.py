"""Writes the events of an answer into the turn of a reply, and what it took."""

from __future__ import annotations

import time

from mlx_manager.ir import Finished, PartDelta, PartEnd, PartKind, PartStart
from mlx_manager.ui.conversation import ReplyFigures, Round, Turn


class Pen:
    """For one reply, from its first round to its last."""

    def __init__(self, reply: Turn) -> None:
        self._reply = reply
        self._kind = PartKind.TEXT
        self._began_s = time.monotonic()
        self._first_s: float | None = None
        self._thinking_from_s: float | None = None
        self._finished: Finished | None = None

    def take(self, event: object) -> None:
        """Write down what `event` says."""
        match event:
            case PartStart():
                self._kind = event.kind
                if event.kind is PartKind.REASONING:
                    self._thinking_from_s = time.monotonic()
            case PartDelta():
                if event.text and self._first_s is None:
                    self._first_s = time.monotonic()
                if self._kind is PartKind.REASONING:
                    self._round.reasoning += event.text
                else:
                    self._round.text += event.text
            case PartEnd():
                self._end_thinking()
            case Finished():
                self._finished = event
        self._reply.version += 1

    def finish(self) -> None:
        """Write down what it took."""
        self._end_thinking()
        usage = self._finished.usage if self._finished else None
        elapsed_s = time.monotonic() - self._first_s if self._first_s is not None else 0.0
        self._reply.figures = ReplyFigures(
            ttft_s=self._first_s - self._began_s if self._first_s is not None else None,
            tokens_per_s=usage.num_completion_tokens / elapsed_s if usage and elapsed_s > 0.01 else None,
            num_prompt_tokens=usage.num_prompt_tokens if usage else None,
            num_cached_tokens=usage.num_cached_tokens if usage else None,
            num_completion_tokens=usage.num_completion_tokens if usage else None,
        )
        self._reply.version += 1

    @property
    def _round(self) -> Round:
        return self._reply.rounds[-1]

    def _end_thinking(self) -> None:
        if self._thinking_from_s is not None:
            elapsed_s = time.monotonic() - self._thinking_from_s
            self._round.thinking_s = (self._round.thinking_s or 0.0) + elapsed_s
            self._thinking_from_s = None
