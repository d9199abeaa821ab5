"""The parts of one choice, as ir events: opens and closes them and trims the white space around markers."""

from __future__ import annotations

from mlx_manager.ir import Event, PartDelta, PartEnd, PartKind, PartStart


class Emitter:
    """Takes what a parser has understood and makes events of it.

    White space before a part that begins after a marker, and before a marker, belongs to the markers and is dropped;
    so it is held back until something else follows. At the very end of the answer it is given out.
    """

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._events: list[Event] = []
        self._open: PartKind | None = None
        self._pending = ""
        self._space = ""
        self._is_after_marker = False
        self._num_calls = 0
        self._is_text_over = False
        self._are_calls_certain = False

    @property
    def is_at_beginning(self) -> bool:
        """Whether there has been no text since the answer began or since the last marker."""
        return self._open is None

    def take(self) -> list[Event]:
        """The events since the last time."""
        self._flush()
        events, self._events = self._events, []
        return events

    def text(self, text: str) -> None:
        """More of the answer's text."""
        if self._is_text_over and self._open is None:
            return
        self._write(PartKind.TEXT, text)

    def reasoning(self, text: str) -> None:
        """More of the reasoning."""
        self._write(PartKind.REASONING, text)

    def marker(self) -> None:
        """A marker was read: what it ends is complete."""
        self._close()
        self._space = ""
        self._is_after_marker = True

    def ignore_marker(self) -> None:
        """A marker was read that says nothing: it goes, with the white space before it."""
        self._space = ""
        self._is_after_marker = self._is_after_marker or self._open is None

    def start_call(self, name: str, call_id: str | None = None) -> None:
        """A tool call begins."""
        self.marker()
        self._open = PartKind.TOOL_CALL
        self._events.append(PartStart(self._choice, PartKind.TOOL_CALL, call_id, name))

    def arguments(self, text: str) -> None:
        """More of the arguments of the call that was started."""
        self._pending += text

    def end_call(self) -> None:
        """The call is complete, its arguments are a JSON object."""
        self._num_calls += 1
        self.marker()

    def cut(self, *, is_enforced: bool, is_required: bool) -> bool:
        """The answer was cut off by its length. Call it before what was held back is given out.

        What began as a call is one where nothing else could have come: calls are enforced, or some were made already.
        What may be the beginning of a marker is one where a call was required, or some were made already. Returns
        whether a call that was begun is certain to be one.
        """
        self._are_calls_certain = is_enforced or self._num_calls > 0
        self._is_text_over = is_required or self._num_calls > 0
        return self._are_calls_certain

    def hand_back(self, raw: str, kind: PartKind) -> None:
        """`raw` looked like a call and is none: a call that was started is withdrawn, and `raw` goes out as it came.

        After `cut` it is the beginning of one: it ends with the arguments it has, and where it has no name it goes.
        """
        if self._are_calls_certain:
            self.marker()
            return
        if self._open is PartKind.TOOL_CALL:
            self._flush()
            self._events.append(PartEnd(self._choice, is_withdrawn=True))
            self._open = None
        self._is_after_marker = False
        self._write(kind, raw)

    def finish(self) -> None:
        """The answer has ended."""
        if self._open is not None and self._space:
            self._pending += self._space
        elif self._space and not self._is_after_marker:
            self._open_part(PartKind.TEXT)
            self._pending = self._space
        self._close()
        self._space = ""

    def _write(self, kind: PartKind, text: str) -> None:
        if self._is_after_marker and self._open is None:
            text = text.lstrip()
        written = text.rstrip()
        if not written:
            self._space += text
            return
        if self._open is not kind:
            self._open_part(kind)
        self._pending += self._space + written
        self._space = text[len(written) :]

    def _open_part(self, kind: PartKind) -> None:
        self._close()
        self._open = kind
        self._is_after_marker = False
        self._events.append(PartStart(self._choice, kind))

    def _flush(self) -> None:
        if self._pending:
            self._events.append(PartDelta(self._choice, self._pending))
            self._pending = ""

    def _close(self) -> None:
        self._flush()
        if self._open is not None:
            self._events.append(PartEnd(self._choice))
            self._open = None
