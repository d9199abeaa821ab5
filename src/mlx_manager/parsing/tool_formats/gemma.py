"""Gemma's own notation, `call:name{key:<|"|>text<|"|>,other:1}`: bare keys, and strings in quotes of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_manager.ir import Tool
from mlx_manager.parsing.cursor import Cursor, Malformed, Reading
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.grammar import GrammarWriter, json_value, literal, parameters_of
from mlx_manager.parsing.json_text import read_number
from mlx_manager.parsing.style import Call, ToolFormat
from mlx_manager.parsing.tool_formats.text_values import types_of

_MOST_DEPTH = 64
_MOST_WORD_CHARACTERS = 512
_WORDS = frozenset({"true", "false", "null"})


@dataclass(frozen=True)
class GemmaCalls(ToolFormat):
    """`begin call:NAME{…} end` for each call."""

    name: str  # type: ignore[misc]
    begins: tuple[str, ...]
    end: str
    quote: str

    @property
    def markers(self) -> tuple[str, ...]:
        """See `ToolFormat`."""
        return (*self.begins, self.end, self.quote)

    def read_calls(self, begin: str, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> Reading[None]:
        """See `ToolFormat`."""
        yield from cursor.skip_whitespace()
        yield from cursor.expect("call:")
        name = yield from _read_word(cursor, "{")
        if not name or " " in name or "\n" in name or (yield from cursor.peek()) != "{":
            raise Malformed
        out.start_call(name)
        yield from self._read_value(cursor, out.arguments)
        out.end_call()
        yield from cursor.skip_whitespace()
        yield from cursor.end_marker(self.end)

    def _read_value(self, cursor: Cursor, emit: Callable[[str], None], depth: int = 0) -> Reading[None]:
        if depth > _MOST_DEPTH:
            raise Malformed
        first = yield from cursor.peek()
        if (yield from cursor.literal(self.quote)):
            emit('"')
            if not (yield from cursor.until((self.quote,), lambda text: emit(_escaped(text)))):
                raise Malformed
            emit('"')
        elif first == "{":
            yield from self._read_members(cursor, emit, depth)
        elif first == "[":
            yield from self._read_items(cursor, emit, depth)
        elif first == "-" or first.isdigit():
            yield from read_number(cursor, emit)
        else:
            word = (yield from _read_word(cursor, ",}]<")).strip()
            if not word:
                raise Malformed
            emit(word if word in _WORDS else json.dumps(word, ensure_ascii=False))

    def _read_members(self, cursor: Cursor, emit: Callable[[str], None], depth: int) -> Reading[None]:
        yield from cursor.expect("{")
        emit("{")
        separator = ""
        while True:
            yield from cursor.skip_whitespace()
            if (yield from cursor.literal("}")):
                break
            if (yield from cursor.literal(self.quote)):
                key, _ = yield from cursor.collect_until((self.quote,), _MOST_WORD_CHARACTERS)
            else:
                key = (yield from _read_word(cursor, ":,{}[]")).strip().strip('"')
            yield from cursor.expect(":")
            yield from cursor.skip_whitespace()
            emit(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
            yield from self._read_value(cursor, emit, depth + 1)
            separator = ", "
            yield from cursor.skip_whitespace()
            if not (yield from cursor.literal(",")):
                yield from cursor.expect("}")
                break
        emit("}")

    def _read_items(self, cursor: Cursor, emit: Callable[[str], None], depth: int) -> Reading[None]:
        yield from cursor.expect("[")
        emit("[")
        separator = ""
        while True:
            yield from cursor.skip_whitespace()
            if (yield from cursor.literal("]")):
                break
            emit(separator)
            yield from self._read_value(cursor, emit, depth + 1)
            separator = ", "
            yield from cursor.skip_whitespace()
            if not (yield from cursor.literal(",")):
                yield from cursor.expect("]")
                break
        emit("]")

    def spell(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat`."""
        return "".join(f"{self.begins[0]}call:{name}{self._spelled(arguments)}{self.end}" for name, arguments in calls)

    def _spelled(self, value: object) -> str:
        if isinstance(value, str):
            return f"{self.quote}{value}{self.quote}"
        if isinstance(value, Mapping):
            return f"{{{','.join(f'{key}:{self._spelled(inner)}' for key, inner in value.items())}}}"
        if isinstance(value, list):
            return f"[{','.join(map(self._spelled, value))}]"
        return json.dumps(value)

    def write_calls(self, writer: GrammarWriter, tools: tuple[Tool, ...], *, parallel: bool, required: bool) -> str:
        """See `ToolFormat`. Where a schema refers to another, any value is allowed."""
        calls = []
        for index, tool in enumerate(tools):
            arguments = self._write_value(writer, f"arguments_{index}", parameters_of(tool))
            calls.append(f"{literal(f'call:{tool.name}')} {arguments}")
        writer.rule("any_call", " | ".join(calls))
        body = writer.rule("call_body", f"any_call {writer.marker(self.end)}")
        return writer.calls(self.begins[0], body, "", parallel=parallel, required=required)

    def _write_value(self, writer: GrammarWriter, rule: str, schema: Any) -> str:
        """Add the rule `rule` for a value that `schema` allows."""
        quote = writer.marker(self.quote)
        types = types_of(schema)
        choices = schema.get("enum", [schema["const"]] if "const" in schema else []) if isinstance(schema, dict) else []
        if types == {"string"} and choices:
            return writer.rule(rule, " | ".join(f"{quote} {literal(choice)} {quote}" for choice in choices))
        if types == {"string"}:
            return writer.rule(rule, f"{quote} {writer.until('string_rest', self.quote)}")
        if types == {"object"} and "properties" in schema:
            return writer.rule(rule, self._object(writer, rule, schema))
        if types == {"array"} and "items" in schema:
            item = self._write_value(writer, f"{rule}_item", schema["items"])
            return writer.rule(rule, f'"[" ({item} ("," {item})*)? "]"')
        if types and types <= {"integer", "number", "boolean", "null"}:
            return writer.rule(rule, json_value(schema))
        return self._any_value(writer)

    def _object(self, writer: GrammarWriter, rule: str, schema: dict[str, Any]) -> str:
        needed: list[str] = []
        optional: list[str] = []
        for index, (key, value) in enumerate(schema["properties"].items()):
            member = f"{literal(key + ':')} {self._write_value(writer, f'{rule}_{index}', value)}"
            (needed if key in schema.get("required", []) else optional).append(member)
        if needed:
            members = ' "," '.join(needed) + "".join(f' ("," {member})?' for member in optional)
        else:
            members = f"(({' | '.join(optional)}))?" if optional else ""
        return f'"{{" {members} "}}"'

    def _any_value(self, writer: GrammarWriter) -> str:
        quote = writer.marker(self.quote)
        writer.rule("any_string", f"{quote} {writer.until('string_rest', self.quote)}")
        writer.rule("any_plain", json_value({"type": ["number", "boolean", "null"]}))
        writer.rule("any_key", r"/[A-Za-z_][A-Za-z0-9_-]*/")
        writer.rule("any_object", '"{" (any_key ":" any_value ("," any_key ":" any_value)*)? "}"')
        writer.rule("any_list", '"[" (any_value ("," any_value)*)? "]"')
        return writer.rule("any_value", "any_string | any_plain | any_object | any_list")


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _read_word(cursor: Cursor, ends: str) -> Reading[str]:
    word = ""
    while (character := (yield from cursor.peek())) and character not in ends and len(word) < _MOST_WORD_CHARACTERS:
        word += cursor.take_run(lambda each: each not in ends, _MOST_WORD_CHARACTERS - len(word))
    return word


GEMMA4 = GemmaCalls("gemma4", ("<|tool_call>",), "<tool_call|>", '<|"|>')
FUNCTION_GEMMA = GemmaCalls("function-gemma", ("<start_function_call>",), "<end_function_call>", "<escape>")
