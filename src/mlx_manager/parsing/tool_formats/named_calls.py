"""Calls written as a name, a marker and the JSON of the arguments: Mistral, DeepSeek R1 to V3.1, Kimi K2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlx_manager.ir import Tool
from mlx_manager.parsing.cursor import Cursor, Malformed, Reading
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.grammar import GrammarWriter, json_value, literal, parameters_of
from mlx_manager.parsing.json_text import read_value, skip_space
from mlx_manager.parsing.style import MOST_NAME_CHARACTERS, Call, ToolFormat
from mlx_manager.parsing.tool_formats.json_calls import JsonCallKeys, read_calls_json

_FENCE = "\n```json\n"


@dataclass(frozen=True)
class MistralCalls(ToolFormat):
    """`[TOOL_CALLS]` and a list of objects (7B v0.3, Nemo), or, since v11, `[TOOL_CALLS]name[ARGS]{…}` for each call.

    Both are understood; which of them is written is told when a grammar is made.
    """

    name: str  # type: ignore[misc]
    is_list: bool
    begins: tuple[str, ...] = ("[TOOL_CALLS]",)

    @property
    def markers(self) -> tuple[str, ...]:
        """See `ToolFormat`."""
        return (*self.begins, "[ARGS]", "[CALL_ID]")

    def read_calls(self, begin: str, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> Reading[None]:
        """See `ToolFormat`."""
        yield from skip_space(cursor)
        if (yield from cursor.peek()) in ("[", "{"):
            yield from read_calls_json(cursor, out, JsonCallKeys())
            return
        name = yield from _read_name(cursor)
        yield from skip_space(cursor)
        call_id: str | None = None
        if (yield from cursor.literal("[CALL_ID]")):
            call_id = yield from _read_name(cursor)
        yield from cursor.literal("[ARGS]")
        yield from skip_space(cursor)
        yield from _read_arguments(cursor, out, name, call_id)

    def spell(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat`."""
        if self.is_list:
            spelled = [{"name": name, "arguments": arguments} for name, arguments in calls]
            return self.begins[0] + json.dumps(spelled, ensure_ascii=False)
        return "".join(
            f"{self.begins[0]}{name}[ARGS]{json.dumps(arguments, ensure_ascii=False)}" for name, arguments in calls
        )

    def write_calls(self, writer: GrammarWriter, tools: tuple[Tool, ...], *, parallel: bool, required: bool) -> str:
        """See `ToolFormat`."""
        if self.is_list:
            calls = writer.several(writer.call_object(tools, "name", "arguments"), '"," " "?', parallel=parallel)
            writer.rule("call_body", f'" "? "[" {calls} "]"')
            return writer.after_text(self.begins[0], "call_body", required=required)
        each = [f"{literal(tool.name)} {writer.marker('[ARGS]')} {json_value(parameters_of(tool))}" for tool in tools]
        writer.rule("call_body", " | ".join(each))
        return writer.calls(self.begins[0], "call_body", "", parallel=parallel, required=required)


@dataclass(frozen=True, kw_only=True)
class SectionCalls(ToolFormat):
    """A section of calls, each of them between markers: a head that names the tool, a separator, the arguments."""

    name: str  # type: ignore[misc]
    section_begin: str
    call_begin: str
    separator: str
    call_end: str
    section_end: str
    kind_word: str = ""
    """What stands in the place of the name where the name follows the separator, and the arguments are fenced code."""
    has_ids: bool = False
    """The head is an id made of the name and the number of the call: functions.NAME:0."""

    @property
    def begins(self) -> tuple[str, ...]:  # type: ignore[override]
        """See `ToolFormat`."""
        return (self.section_begin, self.call_begin)

    @property
    def markers(self) -> tuple[str, ...]:
        """See `ToolFormat`."""
        return (self.section_begin, self.call_begin, self.separator, self.call_end, self.section_end)

    def read_calls(self, begin: str, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> Reading[None]:
        """See `ToolFormat`. Both ways of DeepSeek are understood, whichever of them the format writes."""
        if begin == self.section_begin:
            yield from cursor.skip_whitespace()
            yield from cursor.expect(self.call_begin)
        while True:
            yield from self._read_call(cursor, out)
            yield from cursor.skip_whitespace()
            if (yield from cursor.end_marker(self.section_end)) or not (yield from cursor.literal(self.call_begin)):
                return

    def _read_call(self, cursor: Cursor, out: Emitter) -> Reading[None]:
        head, _ = yield from cursor.collect_until((self.separator,), MOST_NAME_CHARACTERS)
        name, call_id = head.strip(), None
        is_fenced = False
        if self.has_ids:
            name, call_id = _name_in_id(name), name
        elif name == "function":
            yield from cursor.skip_whitespace()
            name, _ = yield from cursor.collect_until(("\n",), MOST_NAME_CHARACTERS)
            name = name.strip()
            is_fenced = yield from cursor.literal("```json")
        if not name:
            raise Malformed
        yield from cursor.skip_whitespace()
        yield from _read_arguments(cursor, out, name, call_id)
        yield from cursor.skip_whitespace()
        if is_fenced:
            yield from cursor.end_marker("```")
            yield from cursor.skip_whitespace()
        yield from cursor.end_marker(self.call_end)

    def spell(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat`."""
        spelled = []
        for index, (name, arguments) in enumerate(calls):
            text = json.dumps(arguments, ensure_ascii=False)
            if self.kind_word:
                head, text = self.kind_word, f"{name}{_FENCE}{text}\n```"
            else:
                head = f"functions.{name}:{index}" if self.has_ids else name
            spelled.append(f"{self.call_begin}{head}{self.separator}{text}{self.call_end}")
        return self.section_begin + ("\n" if self.kind_word else "").join(spelled) + self.section_end

    def write_calls(self, writer: GrammarWriter, tools: tuple[Tool, ...], *, parallel: bool, required: bool) -> str:
        """See `ToolFormat`."""
        calls = []
        for tool in tools:
            arguments = json_value(parameters_of(tool))
            separator = writer.marker(self.separator)
            if self.kind_word:
                name = literal(tool.name + _FENCE)
                calls.append(f'{literal(self.kind_word)} {separator} {name} {arguments} "\\n```"')
            elif self.has_ids:
                head = literal("functions." + tool.name + ":")
                calls.append(f"{head} /[0-9]{{1,3}}/ {separator} {arguments}")
            else:
                calls.append(f"{literal(tool.name)} {separator} {arguments}")
        writer.rule("any_call", " | ".join(calls))
        call = writer.rule("call", f"{writer.marker(self.call_begin)} any_call {writer.marker(self.call_end)}")
        several = writer.several(call, '"\\n"?', parallel=parallel)
        section = f"{several} {writer.marker(self.section_end)}"
        return writer.after_text(self.section_begin, section, required=required)


def _read_arguments(cursor: Cursor, out: Emitter, name: str, call_id: str | None) -> Reading[None]:
    if (yield from cursor.peek()) != "{":
        raise Malformed
    out.start_call(name, call_id)
    yield from read_value(cursor, out.arguments)
    out.end_call()


def _read_name(cursor: Cursor) -> Reading[str]:
    name = ""
    while _is_of_name((yield from cursor.peek())) and len(name) < MOST_NAME_CHARACTERS:
        name += cursor.take_run(_is_of_name, MOST_NAME_CHARACTERS - len(name))
    if not name:
        raise Malformed
    return name


def _is_of_name(character: str) -> bool:
    return character.isalnum() or (character != "" and character in "_-.")


def _name_in_id(call_id: str) -> str:
    name, _, number = call_id.rpartition(":")
    return (name if name and number.isdigit() else call_id).removeprefix("functions.")


MISTRAL_LIST = MistralCalls("mistral-list", is_list=True)
MISTRAL_ARGS = MistralCalls("mistral-args", is_list=False)
DEEPSEEK_R1 = SectionCalls(
    name="deepseek-r1",
    section_begin="<｜tool▁calls▁begin｜>",
    call_begin="<｜tool▁call▁begin｜>",
    separator="<｜tool▁sep｜>",
    call_end="<｜tool▁call▁end｜>",
    section_end="<｜tool▁calls▁end｜>",
    kind_word="function",
)
DEEPSEEK_V31 = replace(DEEPSEEK_R1, name="deepseek-v3.1", kind_word="")
KIMI_K2 = SectionCalls(
    name="kimi-k2",
    section_begin="<|tool_calls_section_begin|>",
    call_begin="<|tool_call_begin|>",
    separator="<|tool_call_argument_begin|>",
    call_end="<|tool_call_end|>",
    section_end="<|tool_calls_section_end|>",
    has_ids=True,
)
