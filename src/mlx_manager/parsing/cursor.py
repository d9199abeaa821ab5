"""Reading a text that is still growing: parsers are generators that suspend here until more of it has come."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

_Read = TypeVar("_Read")
Reading = Generator[None, None, _Read]
"""A parser: yields whenever it needs more text, returns what it has read."""


class Malformed(Exception):
    """The text does not have the form that was expected of it. Never leaves `parsing`."""


class Cursor:
    """A position in a growing text. What it answers depends on the text alone, never on how it was cut into pieces."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._mark: int | None = None
        self._is_closed = False
        self._is_cut = False

    def feed(self, text: str) -> None:
        """Add to the end of the text."""
        if self._mark is None:
            self._text, self._at = self._text[self._at :] + text, 0
        else:
            self._text += text

    def close(self, *, is_cut: bool = False) -> None:
        """Nothing more will come. `is_cut`: behind the mark, what may be the beginning of a stop is one."""
        self._is_closed = True
        self._is_cut = is_cut

    def mark(self) -> None:
        """Remember this position."""
        self._mark = self._at

    def unmark(self) -> str:
        """Forget the marked position; the text read since."""
        marked = self._at if self._mark is None else self._mark
        self._mark = None
        return self._text[marked : self._at]

    def peek(self) -> Reading[str]:
        """The next character, "" at the end of the text. Not consumed."""
        while self._at >= len(self._text):
            if self._is_closed:
                return ""
            yield
        return self._text[self._at]

    def take(self) -> Reading[str]:
        """The next character, consumed. Raises `Malformed` at the end of the text."""
        character = yield from self.peek()
        if not character:
            raise Malformed
        self._at += 1
        return character

    def take_run(self, wanted: Callable[[str], bool], most: int = 1 << 30) -> str:
        """As many characters as are here and `wanted`, at most `most`, consumed; "" is no sign of the end."""
        start = self._at
        end = min(len(self._text), start + most)
        while self._at < end and wanted(self._text[self._at]):
            self._at += 1
        return self._text[start : self._at]

    def skip_whitespace(self) -> Reading[None]:
        """Consume white space."""
        while (yield from self.peek()).isspace():
            self._at += 1

    def skip_whitespace_into(self, emit: Callable[[str], None]) -> Reading[None]:
        """Hand white space to `emit`."""
        while (yield from self.peek()).isspace():
            emit(self.take_run(str.isspace))

    def literal(self, wanted: str) -> Reading[bool]:
        """Whether the text goes on with `wanted`, which is then consumed."""
        while not self._text.startswith(wanted, self._at):
            if self._is_closed or not wanted.startswith(self._text[self._at : self._at + len(wanted)]):
                return False
            yield
        self._at += len(wanted)
        return True

    def expect(self, wanted: str) -> Reading[None]:
        """Consume `wanted`. Raises `Malformed` when the text goes on otherwise."""
        if not (yield from self.literal(wanted)):
            raise Malformed

    def end_marker(self, wanted: str) -> Reading[bool]:
        """Consume `wanted` if it comes next, and what the end of the text has left of it. Whether it came whole."""
        if (yield from self.literal(wanted)):
            return True
        rest = self._text[self._at :]
        if self._is_closed and wanted.startswith(rest):
            self._at = len(self._text)
        return False

    def until(self, stops: tuple[str, ...], emit: Callable[[str], None]) -> Reading[str]:
        """Hand text to `emit` up to the first of `stops`, consume that and return it; "" when the text ends before.

        Of stops that begin at one place the longest counts. Text is held back only while it can be a stop's beginning.
        """
        while True:
            text = self._text
            found = [(text.find(stop, self._at), -len(stop), stop) for stop in stops]
            first = min((each for each in found if each[0] >= 0), default=None)
            is_whole = self._is_closed and not (self._is_cut and self._mark is not None)
            undecided = len(text) if is_whole else len(text) - self._num_undecided(stops)
            if first is not None and first[0] < undecided:
                self._emit(first[0], emit)
                self._at += len(first[2])
                return first[2]
            self._emit(undecided, emit)
            if self._is_closed:
                return ""
            yield

    def collect_until(self, stops: tuple[str, ...], most: int = 1 << 30) -> Reading[tuple[str, str]]:
        """The text up to the first of `stops`, and that stop.

        Raises `Malformed` at the end of the text and after `most` characters.
        """
        pieces: list[str] = []
        num_collected = 0

        def collect(text: str) -> None:
            nonlocal num_collected
            num_collected += len(text)
            pieces.append(text)

        reading = self.until(stops, collect)
        while True:
            try:
                next(reading)
            except StopIteration as end:
                if not end.value or num_collected > most:
                    raise Malformed from None
                return "".join(pieces), end.value
            if num_collected > most:
                raise Malformed
            yield

    def _emit(self, end: int, emit: Callable[[str], None]) -> None:
        if end > self._at:
            emit(self._text[self._at : end])
            self._at = end

    def _num_undecided(self, stops: tuple[str, ...]) -> int:
        """How many characters at the end may still become one of `stops`."""
        num_here = len(self._text) - self._at
        return max(
            (
                length
                for stop in stops
                for length in range(min(len(stop) - 1, num_here), 0, -1)
                if self._text.endswith(stop[:length])
            ),
            default=0,
        )
