"""Calls written as JSON objects, `{"name": …, "arguments": {…}}`: the arguments go on while they are being written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from mlx_manager.parsing.cursor import Cursor, Malformed, Reading
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.json_text import collect_string, collect_value, read_value, skip_space

_ID_KEYS = frozenset({"id", "call_id", "tool_call_id"})


@dataclass(frozen=True)
class JsonCallKeys:
    """Under which keys an object has its call."""

    name: frozenset[str] = frozenset({"name"})
    arguments: frozenset[str] = frozenset({"arguments", "parameters"})


def any_name(name: str) -> bool:
    """Accepts every name: what a marker says is a call is one, and the client knows its tools."""
    return bool(name)


def read_calls_json(
    cursor: Cursor, out: Emitter, keys: JsonCallKeys, is_name: Callable[[str], bool] = any_name
) -> Reading[None]:
    """Read one call, or a list of calls. Raises `Malformed`."""
    if not (yield from cursor.literal("[")):
        yield from read_call_json(cursor, out, keys, is_name)
        return
    yield from skip_space(cursor)
    if (yield from cursor.literal("]")):
        return
    while True:
        yield from read_call_json(cursor, out, keys, is_name)
        yield from skip_space(cursor)
        if not (yield from cursor.literal(",")):
            break
        yield from skip_space(cursor)
    yield from cursor.end_marker("]")


def read_call_json(
    cursor: Cursor, out: Emitter, keys: JsonCallKeys, is_name: Callable[[str], bool] = any_name
) -> Reading[None]:
    """Read one call. Once its arguments are complete a missing closing brace is forgiven. Raises `Malformed`."""
    yield from cursor.expect("{")
    call = _Call(cursor, out, is_name)
    while True:
        yield from skip_space(cursor)
        key = yield from collect_string(cursor)
        yield from skip_space(cursor)
        yield from cursor.expect(":")
        yield from skip_space(cursor)
        if key in keys.name:
            yield from call.read_name()
        elif key in keys.arguments:
            yield from call.read_arguments()
        elif key in _ID_KEYS and (yield from cursor.peek()) == '"':
            call.call_id = yield from collect_string(cursor)
        else:
            yield from collect_value(cursor)
        yield from skip_space(cursor)
        if (yield from cursor.literal(",")):
            continue
        if not (yield from cursor.literal("}")) and not call.is_complete:
            raise Malformed
        call.end()
        return


class _Call:
    def __init__(self, cursor: Cursor, out: Emitter, is_name: Callable[[str], bool]) -> None:
        self.call_id: str | None = None
        self.is_complete = False
        self._cursor = cursor
        self._out = out
        self._is_name = is_name
        self._name = ""
        self._early_arguments = ""

    def read_name(self) -> Reading[None]:
        if self._name:
            raise Malformed
        self._name = yield from collect_string(self._cursor)
        if not self._is_name(self._name):
            raise Malformed

    def read_arguments(self) -> Reading[None]:
        if self.is_complete or self._early_arguments:
            raise Malformed
        if self._name and (yield from self._cursor.peek()) == "{":
            self._out.start_call(self._name, self.call_id)
            yield from read_value(self._cursor, self._out.arguments)
            self.is_complete = True
        else:
            self._early_arguments = as_object((yield from collect_value(self._cursor)))

    def end(self) -> None:
        if not self._name:
            raise Malformed
        if not self.is_complete:
            self._out.start_call(self._name, self.call_id)
            self._out.arguments(self._early_arguments or "{}")
        self._out.end_call()


def as_object(text: str) -> str:
    """The JSON object that `text` spells, itself or inside a string; nothing at all is the empty object."""
    value = json.loads(text)
    if isinstance(value, str):
        try:
            text, value = value, json.loads(value or "{}")
        except ValueError:
            raise Malformed from None
    if value is None or text == "":
        return "{}"
    if not isinstance(value, dict):
        raise Malformed
    return text
