"""Calls written as a Python list of calls, `[f(a="x"), g(b=[1, True])]`: LFM2, and Llama 4 without markers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_manager.ir import Tool
from mlx_manager.parsing.cursor import Cursor, Malformed, Reading
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.grammar import GrammarWriter, json_value, literal, parameters_of, with_definitions
from mlx_manager.parsing.json_text import read_number
from mlx_manager.parsing.style import MOST_NAME_CHARACTERS, Call, ToolFormat
from mlx_manager.parsing.tool_formats.json_calls import JsonCallKeys, any_name, read_calls_json
from mlx_manager.parsing.tool_formats.text_values import types_of

_MOST_DEPTH = 64
_COMMA = '", "'
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": "", "\\": "\\", "'": "'", '"': '"'}
_ESCAPE_LENGTHS = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True)
class PythonicCalls(ToolFormat):
    """A list of calls with keyword arguments; bare ones are calls only when the tools exist."""

    name: str  # type: ignore[misc]
    begins: tuple[str, ...] = ()
    end: str = ""
    begins_bare: str = ""  # type: ignore[misc]
    """Where there are any, the model writes its calls without markers."""

    @property
    def markers(self) -> tuple[str, ...]:
        """See `ToolFormat`."""
        return (*self.begins, self.end) if self.end else self.begins

    def read_calls(self, begin: str, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> Reading[None]:
        """See `ToolFormat`."""
        yield from cursor.skip_whitespace()
        names = frozenset(tool.name for tool in tools)
        if (yield from cursor.peek()) == "{":
            yield from read_calls_json(cursor, out, JsonCallKeys(), any_name if begin else names.__contains__)
        else:
            yield from self._read_list(cursor, out, None if begin else names)
        yield from cursor.skip_whitespace()
        if begin and self.end:
            yield from cursor.end_marker(self.end)

    def _read_list(self, cursor: Cursor, out: Emitter, names: frozenset[str] | None) -> Reading[None]:
        yield from cursor.expect("[")
        while True:
            yield from cursor.skip_whitespace()
            name = yield from _read_word(cursor)
            if names is not None and name not in names:
                raise Malformed
            yield from cursor.expect("(")
            yield from _read_call(cursor, out, name)
            yield from cursor.skip_whitespace()
            if not (yield from cursor.literal(",")):
                break
        yield from cursor.end_marker("]")

    def spell(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat`."""
        spelled = [
            f"{name}({', '.join(f'{key}={_spelled(value)}' for key, value in arguments.items())})"
            for name, arguments in calls
        ]
        begin = "" if self.begins_bare else self.begins[0]
        return f"{begin}[{', '.join(spelled)}]{'' if self.begins_bare else self.end}"

    def write_calls(self, writer: GrammarWriter, tools: tuple[Tool, ...], *, parallel: bool, required: bool) -> str:
        """See `ToolFormat`. Booleans are Python's; whatever is in lists and objects is written as JSON."""
        calls = []
        for index, tool in enumerate(tools):
            schema = parameters_of(tool)
            needed = [key for key in schema.get("properties", {}) if key in schema.get("required", [])]
            rest = [key for key in schema.get("properties", {}) if key not in needed]
            values = {
                key: f"{literal(key + '=')} {_value(value, schema)}"
                for key, value in schema.get("properties", {}).items()
                if isinstance(value, dict)
            }
            body = ' ", " '.join(values[key] for key in needed if key in values)
            for key in (key for key in rest if key in values):
                body += f' (", " {values[key]})?' if needed else f" ({values[key]})?"
                if not needed:
                    break  # one of several optional arguments: the first, since the comma depends on what came before
            calls.append(writer.rule(f"call_{index}", f'{literal(tool.name + "(")} {body} ")"'))
        writer.rule("any_call", " | ".join(calls))
        answer = f'"[" {writer.several("any_call", _COMMA, parallel=parallel)} "]"'
        if not self.begins_bare:
            return writer.after_text(self.begins[0], f"{answer} {writer.marker(self.end)}", required=required)
        if required:
            return answer
        writer.rule("TEXT", r"/([^\[{ \n\t](?s:.*))?/")
        return f"TEXT | {answer}"


def _value(schema: Any, root: dict[str, Any]) -> str:
    """What matches a value that `schema`, a part of `root`, allows."""
    if types_of(schema) == {"boolean"} and not {"enum", "const"} & set(schema):
        return '("True" | "False")'
    return json_value(with_definitions(schema, root))


def _spelled(value: object) -> str:
    """A value as Python writes it, strings in double quotes as the models do."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_spelled(key)}: {_spelled(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_spelled, value))}]"
    return repr(value)


def _read_call(cursor: Cursor, out: Emitter, name: str) -> Reading[None]:
    yield from cursor.skip_whitespace()
    out.start_call(name)
    out.arguments("{")
    is_first = True
    while not (yield from cursor.literal(")")):
        key = yield from _read_word(cursor)
        yield from cursor.skip_whitespace()
        yield from cursor.expect("=")
        yield from cursor.skip_whitespace()
        out.arguments(f"{'' if is_first else ', '}{json.dumps(key, ensure_ascii=False)}: ")
        yield from _read_value(cursor, out.arguments)
        is_first = False
        yield from cursor.skip_whitespace()
        if not (yield from cursor.literal(",")):
            yield from cursor.expect(")")
            break
        yield from cursor.skip_whitespace()
    out.arguments("}")
    out.end_call()


def _read_value(cursor: Cursor, emit: Callable[[str], None], depth: int = 0) -> Reading[None]:
    """One Python literal, handed on as JSON."""
    first = yield from cursor.peek()
    if depth > _MOST_DEPTH or not first:
        raise Malformed
    if first in "\"'":
        yield from _read_string(cursor, emit)
    elif first in "[(":
        yield from _read_items(cursor, emit, depth)
    elif first == "{":
        yield from _read_members(cursor, emit, depth)
    elif first == "-" or first.isdigit():
        yield from read_number(cursor, emit)
    else:
        word = yield from _read_word(cursor)
        if word not in _WORDS:
            raise Malformed
        emit(_WORDS[word])


def _read_string(cursor: Cursor, emit: Callable[[str], None]) -> Reading[None]:
    quote = yield from cursor.take()
    emit('"')
    while (character := (yield from cursor.take())) != quote:
        if character == "\\":
            character = yield from _read_escape(cursor)
        else:
            character += cursor.take_run(lambda each: each not in "\\\n" and each != quote)
        emit(json.dumps(character, ensure_ascii=False)[1:-1])
    emit('"')


def _read_escape(cursor: Cursor) -> Reading[str]:
    kind = yield from cursor.take()
    if kind not in _ESCAPE_LENGTHS:
        return _ESCAPES.get(kind, "\\" + kind)
    digits = ""
    while len(digits) < _ESCAPE_LENGTHS[kind]:
        digits += yield from cursor.take()
    try:
        return chr(int(digits, 16))
    except (ValueError, OverflowError):
        raise Malformed from None


def _read_items(cursor: Cursor, emit: Callable[[str], None], depth: int) -> Reading[None]:
    end = "]" if (yield from cursor.take()) == "[" else ")"
    emit("[")
    is_first = True
    while True:
        yield from cursor.skip_whitespace()
        if (yield from cursor.literal(end)):
            emit("]")
            return
        if not is_first:
            emit(", ")
        yield from _read_value(cursor, emit, depth + 1)
        is_first = False
        yield from _read_comma(cursor, end)


def _read_members(cursor: Cursor, emit: Callable[[str], None], depth: int) -> Reading[None]:
    yield from cursor.take()
    emit("{")
    is_first = True
    while True:
        yield from cursor.skip_whitespace()
        if (yield from cursor.literal("}")):
            emit("}")
            return
        if not is_first:
            emit(", ")
        if (yield from cursor.peek()) not in ('"', "'"):
            raise Malformed
        yield from _read_string(cursor, emit)
        yield from cursor.skip_whitespace()
        yield from cursor.expect(":")
        emit(": ")
        yield from cursor.skip_whitespace()
        yield from _read_value(cursor, emit, depth + 1)
        is_first = False
        yield from _read_comma(cursor, "}")


def _read_comma(cursor: Cursor, end: str) -> Reading[None]:
    """A comma, unless the container ends; that is left for its reader."""
    yield from cursor.skip_whitespace()
    if not (yield from cursor.literal(",")) and (yield from cursor.peek()) != end:
        raise Malformed


def _read_word(cursor: Cursor) -> Reading[str]:
    word = ""
    while _is_of_word((yield from cursor.peek())) and len(word) < MOST_NAME_CHARACTERS:
        word += cursor.take_run(_is_of_word, MOST_NAME_CHARACTERS - len(word))
    if not word:
        raise Malformed
    return word


def _is_of_word(character: str) -> bool:
    return character.isalnum() or (character != "" and character in "_.-")


LFM2 = PythonicCalls("lfm2", ("<|tool_call_start|>",), "<|tool_call_end|>")
LLAMA4 = PythonicCalls("llama4", ("<|python_start|>",), "<|python_end|>", begins_bare="[{")
