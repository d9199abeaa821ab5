"""Calls whose arguments are plain text between markers: Qwen3-Coder, GLM, MiniMax, DeepSeek V3.2 and their like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlx_manager.ir import Tool
from mlx_manager.parsing.cursor import Cursor, Malformed, Reading
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.grammar import GrammarWriter, json_value, literal, parameters_of, with_definitions
from mlx_manager.parsing.style import MOST_NAME_CHARACTERS, Call, ToolFormat
from mlx_manager.parsing.tool_formats.text_values import choices_of, is_text, properties_of, value_of


@dataclass(frozen=True, kw_only=True)
class TextCalls(ToolFormat):
    """One section of calls, or one section for each call; the markers are data."""

    name: str  # type: ignore[misc]
    begins: tuple[str, ...]
    end: str
    call_begin: str = ""
    """Before the tool's name; "" where the section's marker stands directly before it."""
    name_end: str = ""
    """After the tool's name; "" where the name ends with the line or with the next marker."""
    call_end: str = ""
    """After the last argument; "" where the section ends with its one call."""
    key_begin: str
    key_end: str
    text_key_end: str = ""
    """After the key of an argument that is a string, where the model says so itself."""
    value_begin: str = ""
    value_end: str
    token: str = ""
    """A special token that is a part of the markers."""
    gap: str = "\n"
    """Between markers, as the model writes it."""
    value_gap: str = ""
    """Between a value and the markers around it; not part of the value."""

    @property
    def markers(self) -> tuple[str, ...]:
        """See `ToolFormat`."""
        between = (self.key_begin, self.key_end, self.text_key_end, self.value_begin, self.value_end)
        spelled = (*self.begins, self.end, self.call_begin, self.call_end, *between, self.token)
        return tuple(dict.fromkeys(marker for marker in spelled if marker))

    def read_calls(self, begin: str, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> Reading[None]:
        """See `ToolFormat`."""
        is_begun = begin == self.call_begin
        while True:
            if not is_begun:
                yield from cursor.skip_whitespace()
                yield from cursor.expect(self.call_begin)
            yield from self._read_call(cursor, out, tools)
            yield from cursor.skip_whitespace()
            if not self.call_end or (yield from cursor.end_marker(self.end)) or not (yield from cursor.peek()):
                return
            if not (yield from cursor.literal(self.call_begin)):
                return
            is_begun = True

    def _read_call(self, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> Reading[None]:
        last = self.call_end or self.end
        if self.name_end:
            name, stop = yield from cursor.collect_until((self.name_end,), MOST_NAME_CHARACTERS)
        else:
            name, stop = yield from cursor.collect_until(("\n", self.key_begin, last), MOST_NAME_CHARACTERS)
        name = name.strip()
        if not name or any(character in name for character in "\n<>{}"):
            raise Malformed
        out.start_call(name)
        schemas = properties_of(tools, name)
        opening = "{"
        while stop != last:
            if stop != self.key_begin:
                yield from cursor.skip_whitespace()
                if (yield from cursor.literal(last)):
                    break
                yield from cursor.expect(self.key_begin)
            yield from self._read_argument(cursor, out, schemas, opening)
            opening, stop = ", ", ""
        out.arguments("{}" if opening == "{" else "}")
        out.end_call()

    def _read_argument(self, cursor: Cursor, out: Emitter, schemas: Mapping[str, Any], opening: str) -> Reading[None]:
        ends = (self.key_end, self.text_key_end) if self.text_key_end else (self.key_end,)
        key, stop = yield from cursor.collect_until(ends, MOST_NAME_CHARACTERS)
        key = key.strip()
        out.arguments(f"{opening}{json.dumps(key, ensure_ascii=False)}: ")
        if self.value_begin:
            yield from cursor.skip_whitespace()
            yield from cursor.expect(self.value_begin)
        if self.value_gap:
            yield from cursor.literal(self.value_gap)
        schema = schemas.get(key)
        if stop == self.text_key_end or is_text(schema):
            yield from self._read_text(cursor, out)
        else:
            text, _ = yield from cursor.collect_until((self.value_end,))
            out.arguments(value_of(text.removesuffix(self.value_gap) if self.value_gap else text, schema))

    def _read_text(self, cursor: Cursor, out: Emitter) -> Reading[None]:
        """A string, as it comes. One gap before the marker that ends it is not part of it, so that one is held back."""
        held = ""

        def emit(text: str) -> None:
            nonlocal held
            text = held + text
            held = self.value_gap if self.value_gap and text.endswith(self.value_gap) else ""
            out.arguments(json.dumps(text[: len(text) - len(held)], ensure_ascii=False)[1:-1])

        out.arguments('"')
        if not (yield from cursor.until((self.value_end,), emit)):
            raise Malformed
        out.arguments('"')

    def spell(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat`."""
        spelled = [self._spell_call(name, arguments) for name, arguments in calls]
        if not self.call_end:
            return "\n".join(f"{self.begins[0]}{call}{self.end}" for call in spelled)
        if self.is_section_per_call:
            return "\n".join(f"{self.begins[0]}{self.gap}{call}{self.gap}{self.end}" for call in spelled)
        return f"{self.begins[0]}{self.gap}{self.gap.join(spelled)}{self.gap}{self.end}"

    def _spell_call(self, name: str, arguments: Mapping[str, Any]) -> str:
        lines = [f"{self.call_begin}{name}{self.name_end}"]
        for key, value in arguments.items():
            is_string = isinstance(value, str)
            text = value if is_string else json.dumps(value, ensure_ascii=False)
            begin = f"{self.key_begin}{key}{self._key_end(is_string)}"
            if self.value_begin:
                begin += self.gap + self.value_begin
            lines.append(f"{begin}{self.value_gap}{text}{self.value_gap}{self.value_end}")
        return self.gap.join([*lines, self.call_end])

    def _key_end(self, is_string: bool) -> str:
        return self.text_key_end if self.text_key_end and is_string else self.key_end

    def write_calls(self, writer: GrammarWriter, tools: tuple[Tool, ...], *, parallel: bool, required: bool) -> str:
        """See `ToolFormat`. Of what a schema says of strings, only `enum` and `const` are enforced."""
        gap = writer.optional(self.gap)
        calls = [self._write_call(writer, f"call_{index}", tool) for index, tool in enumerate(tools)]
        writer.rule("any_call", " | ".join(calls))
        if not self.call_end:
            body = writer.rule("call_body", f"any_call {writer.marker(self.end)}")
            return writer.calls(self.begins[0], body, gap, parallel=parallel, required=required)
        calls_in_it = writer.several("any_call", gap, parallel=parallel)
        section = writer.rule("section", f"{gap} {calls_in_it} {gap} {writer.marker(self.end)}")
        if parallel and self.is_section_per_call:
            section = f"{section} ({gap} {writer.marker(self.begins[0])} {section})*"
        return writer.after_text(self.begins[0], section, required=required)

    @property
    def is_section_per_call(self) -> bool:
        """Whether the model writes a section for each call, though sections could hold several."""
        return self.call_begin in self.begins

    def _write_call(self, writer: GrammarWriter, rule: str, tool: Tool) -> str:
        schema = parameters_of(tool)
        needed = schema.get("required", [])
        gap = writer.optional(self.gap)
        arguments = []
        for index, (key, value) in enumerate(schema.get("properties", {}).items()):
            argument = self._write_argument(writer, f"{rule}_{index}", key, with_definitions(value, schema))
            arguments.append(f"{argument} {gap}" if key in needed else f"({argument} {gap})?")
        parts = [writer.marker(self.call_begin + tool.name + self.name_end), gap, *arguments]
        if self.call_end:
            parts.append(writer.marker(self.call_end))
        return writer.rule(rule, " ".join(parts))

    def _write_argument(self, writer: GrammarWriter, rule: str, key: str, schema: Any) -> str:
        is_string = is_text(schema)
        begin = f"{writer.marker(self.key_begin)} {literal(key)} {writer.marker(self._key_end(is_string))}"
        if self.value_begin:
            begin += f" {writer.optional(self.gap)} {writer.marker(self.value_begin)}"
        gap = writer.optional(self.value_gap)
        end = writer.marker(self.value_end)
        if is_string and (choices := choices_of(schema)):
            value = f"{gap} ({' | '.join(literal(choice) for choice in choices)}) {gap} {end}"
        elif is_string:
            writer.until("text_value", self.value_end)
            value = "text_value"
        else:
            value = f"{gap} {json_value(schema if isinstance(schema, dict) else {})} {gap} {end}"
        return writer.rule(rule, f"{begin} {value}")


QWEN3_CODER = TextCalls(
    name="qwen3-coder",
    begins=("<tool_call>", "<function="),
    end="</tool_call>",
    call_begin="<function=",
    name_end=">",
    call_end="</function>",
    key_begin="<parameter=",
    key_end=">",
    value_end="</parameter>",
    value_gap="\n",
)
"""Also Qwen3.5, Nemotron 3, Step 3.5."""
SEED = replace(
    QWEN3_CODER, name="seed-oss", begins=("<seed:tool_call>", QWEN3_CODER.call_begin), end="</seed:tool_call>"
)
GLM = TextCalls(
    name="glm",
    begins=("<tool_call>",),
    end="</tool_call>",
    key_begin="<arg_key>",
    key_end="</arg_key>",
    value_begin="<arg_value>",
    value_end="</arg_value>",
)
LONGCAT = TextCalls(
    name="longcat",
    begins=("<longcat_tool_call>",),
    end="</longcat_tool_call>",
    key_begin="<longcat_arg_key>",
    key_end="</longcat_arg_key>",
    value_begin="<longcat_arg_value>",
    value_end="</longcat_arg_value>",
)
MINIMAX_M2 = TextCalls(
    name="minimax-m2",
    begins=("<minimax:tool_call>",),
    end="</minimax:tool_call>",
    call_begin='<invoke name="',
    name_end='">',
    call_end="</invoke>",
    key_begin='<parameter name="',
    key_end='">',
    value_end="</parameter>",
)
DEEPSEEK_V32 = TextCalls(
    name="deepseek-v3.2",
    begins=("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"),
    end="</｜DSML｜function_calls>",
    call_begin='<｜DSML｜invoke name="',
    name_end='">',
    call_end="</｜DSML｜invoke>",
    key_begin='<｜DSML｜parameter name="',
    key_end='" string="false">',
    text_key_end='" string="true">',
    value_end="</｜DSML｜parameter>",
    token="｜DSML｜",
)
DEEPSEEK_V4 = replace(DEEPSEEK_V32, name="deepseek-v4", begins=DEEPSEEK_V32.begins[::-1], end="</｜DSML｜tool_calls>")
