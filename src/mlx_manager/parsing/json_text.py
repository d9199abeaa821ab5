"""JSON read while it is still being written: every character is checked before it is passed on."""

from __future__ import annotations

import json
from collections.abc import Callable

from mlx_manager.parsing.cursor import Cursor, Malformed, Reading

_MOST_DEPTH = 64
_MOST_NUMBER_CHARACTERS = 400
_ESCAPES = frozenset('"\\/bfnrt')
_HEX = frozenset("0123456789abcdefABCDEF")
_SPACE = frozenset(" \t\n\r")
_NUMBER = frozenset("0123456789+-.eE")


def read_value(cursor: Cursor, emit: Callable[[str], None], depth: int = 0) -> Reading[None]:
    """Read one JSON value and hand its text to `emit` piece by piece. Raises `Malformed` where it is no JSON.

    Line breaks and tabs inside strings, which models write in code, are escaped; everything else passes as it came.
    """
    if depth > _MOST_DEPTH:
        raise Malformed
    first = yield from cursor.peek()
    if first == "{":
        yield from _read_members(cursor, emit, depth)
    elif first == "[":
        yield from _read_items(cursor, emit, depth)
    elif first == '"':
        yield from read_string(cursor, emit)
    elif first == "-" or first.isdigit():
        yield from read_number(cursor, emit)
    else:
        for word in ("true", "false", "null"):
            if (yield from cursor.literal(word)):
                emit(word)
                return
        raise Malformed


def collect_value(cursor: Cursor) -> Reading[str]:
    """Read one JSON value and return its text."""
    pieces: list[str] = []
    yield from read_value(cursor, pieces.append)
    return "".join(pieces)


def collect_string(cursor: Cursor) -> Reading[str]:
    """Read one JSON string and return what it means."""
    if (yield from cursor.peek()) != '"':
        raise Malformed
    text: str = json.loads((yield from collect_value(cursor)))
    return text


def read_string(cursor: Cursor, emit: Callable[[str], None]) -> Reading[None]:
    """Read one JSON string, quotes included, as `read_value` does."""
    yield from cursor.expect('"')
    emit('"')
    while True:
        run = cursor.take_run(_is_plain)
        if run:
            emit(run)
        character = yield from cursor.take()
        if character == '"':
            emit(character)
            return
        if character == "\\":
            emit((yield from _read_escape(cursor)))
        elif character < " ":
            emit(json.dumps(character)[1:-1])
        else:
            emit(character)


def skip_space(cursor: Cursor) -> Reading[None]:
    """Consume the white space that JSON knows."""
    while (yield from cursor.peek()) in _SPACE:
        cursor.take_run(_SPACE.__contains__)


def _is_plain(character: str) -> bool:
    return character not in '"\\' and character >= " "


def _read_escape(cursor: Cursor) -> Reading[str]:
    """What follows a backslash, and the backslash."""
    kind = yield from cursor.take()
    if kind in _ESCAPES:
        return "\\" + kind
    if kind != "u":
        raise Malformed
    digits = ""
    while len(digits) < 4:
        digit = yield from cursor.take()
        if digit not in _HEX:
            raise Malformed
        digits += digit
    return "\\u" + digits


def _read_members(cursor: Cursor, emit: Callable[[str], None], depth: int) -> Reading[None]:
    yield from cursor.expect("{")
    emit("{")
    yield from _pass_space(cursor, emit)
    if (yield from cursor.literal("}")):
        emit("}")
        return
    while True:
        yield from read_string(cursor, emit)
        yield from _pass_space(cursor, emit)
        yield from cursor.expect(":")
        emit(":")
        yield from _pass_space(cursor, emit)
        yield from read_value(cursor, emit, depth + 1)
        yield from _pass_space(cursor, emit)
        separator = yield from cursor.take()
        if separator not in ",}":
            raise Malformed
        emit(separator)
        if separator == "}":
            return
        yield from _pass_space(cursor, emit)


def _read_items(cursor: Cursor, emit: Callable[[str], None], depth: int) -> Reading[None]:
    yield from cursor.expect("[")
    emit("[")
    yield from _pass_space(cursor, emit)
    if (yield from cursor.literal("]")):
        emit("]")
        return
    while True:
        yield from read_value(cursor, emit, depth + 1)
        yield from _pass_space(cursor, emit)
        separator = yield from cursor.take()
        if separator not in ",]":
            raise Malformed
        emit(separator)
        if separator == "]":
            return
        yield from _pass_space(cursor, emit)


def read_number(cursor: Cursor, emit: Callable[[str], None]) -> Reading[None]:
    """A number goes out whole, because only its end shows that it is one."""
    spelled = ""
    while (yield from cursor.peek()) in _NUMBER and len(spelled) < _MOST_NUMBER_CHARACTERS:
        if not (run := cursor.take_run(_NUMBER.__contains__, _MOST_NUMBER_CHARACTERS - len(spelled))):
            break
        spelled += run
    try:
        json.loads(spelled)
    except ValueError:
        raise Malformed from None
    emit(spelled)


def _pass_space(cursor: Cursor, emit: Callable[[str], None]) -> Reading[None]:
    while (yield from cursor.peek()) in _SPACE:
        emit(cursor.take_run(_SPACE.__contains__))
