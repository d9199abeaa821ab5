"""The text of one choice in, as it comes; the events of its parts out."""

from __future__ import annotations

from mlx_manager.ir import Event, Tool
from mlx_manager.parsing.cursor import Cursor
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.style import AnswerStyle


class AnswerParser:
    """Reads the answer of one choice.

    However the text is cut into pieces, the parts and their texts are the same. Nothing it is fed makes it raise.
    Without `tools` calls are not looked for: a marker of theirs is text then. `are_calls_enforced`: what begins as a
    call can only be one. `is_call_required`: nothing but thoughts can come before one.
    """

    def __init__(
        self,
        choice: int,
        style: AnswerStyle,
        tools: tuple[Tool, ...] = (),
        *,
        starts_in_reasoning: bool = False,
        are_calls_enforced: bool = False,
        is_call_required: bool = False,
    ) -> None:
        self._are_calls_enforced = are_calls_enforced
        self._is_call_required = is_call_required
        self._cursor = Cursor()
        self._out = Emitter(choice)
        self._reading = style.read(self._cursor, self._out, tools, starts_in_reasoning=starts_in_reasoning)
        next(self._reading, None)

    def feed(self, text: str) -> list[Event]:
        """Take more text: the part starts, deltas and ends that are certain now."""
        if not text:
            return []
        self._cursor.feed(text)
        next(self._reading, None)
        return self._out.take()

    def finish(self, *, is_cut: bool = False) -> list[Event]:
        """The answer has ended, or was cut off by its length: what was held back, and the end of the open part.

        Of a call that was cut off its beginning goes out where it is certain to be one; else it is text.
        """
        is_certain = is_cut and self._out.cut(is_enforced=self._are_calls_enforced, is_required=self._is_call_required)
        self._cursor.close(is_cut=is_certain)
        for _ in self._reading:
            pass
        self._out.finish()
        return self._out.take()
