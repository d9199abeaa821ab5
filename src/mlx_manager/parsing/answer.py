"""The text of one choice in, as it comes; the events of its parts out."""

from __future__ import annotations

from mlx_manager.ir import Event, Tool
from mlx_manager.parsing.cursor import Cursor
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.style import AnswerStyle


class AnswerParser:
    """Reads the answer of one choice.

    However the text is cut into pieces, the parts and their texts are the same. Nothing it is fed makes it raise.
    Without `tools` calls are not looked for: a marker of theirs is text then.
    """

    def __init__(
        self, choice: int, style: AnswerStyle, tools: tuple[Tool, ...] = (), *, starts_in_reasoning: bool = False
    ) -> None:
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

    def finish(self) -> list[Event]:
        """The answer has ended: what was held back, and the end of the open part."""
        self._cursor.close()
        for _ in self._reading:
            pass
        self._out.finish()
        return self._out.take()
