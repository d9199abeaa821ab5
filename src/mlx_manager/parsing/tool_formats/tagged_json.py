"""JSON calls between markers: Hermes and Qwen, and the formats that differ from them in their markers alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mlx_manager.ir import Tool
from mlx_manager.parsing.cursor import Cursor, Reading
from mlx_manager.parsing.emitter import Emitter
from mlx_manager.parsing.grammar import GrammarWriter
from mlx_manager.parsing.json_text import skip_space
from mlx_manager.parsing.style import Call, ToolFormat
from mlx_manager.parsing.tool_formats.json_calls import JsonCallKeys, read_calls_json


class ListKind(Enum):
    """How several calls stand together."""

    EACH = "each"
    """A pair of markers around every call."""
    LIST = "list"
    """One JSON list between the markers, also of a single call."""
    LINES = "lines"
    """One call a line between the markers."""


@dataclass(frozen=True)
class TaggedJson(ToolFormat):
    """`begin {"name": …, "arguments": {…}} end`, or a list of such objects."""

    name: str  # type: ignore[misc]
    begins: tuple[str, ...]
    end: str
    name_key: str = "name"
    arguments_key: str = "arguments"
    kind: ListKind = ListKind.EACH
    """How the model writes several calls. All ways are understood."""
    space: str = "\n"
    """Between the markers and the JSON, and between calls, as the model writes it."""

    @property
    def markers(self) -> tuple[str, ...]:
        """See `ToolFormat`."""
        return (*self.begins, self.end) if self.end else self.begins

    def read_calls(self, begin: str, cursor: Cursor, out: Emitter, tools: tuple[Tool, ...]) -> Reading[None]:
        """See `ToolFormat`."""
        keys = JsonCallKeys(frozenset({self.name_key}), frozenset({self.arguments_key, "arguments", "parameters"}))
        while True:
            yield from skip_space(cursor)
            yield from read_calls_json(cursor, out, keys)
            while (yield from cursor.peek()) in (" ", "\n", "}"):  # a brace too many is forgiven
                yield from cursor.take()
            if (self.end and (yield from cursor.end_marker(self.end))) or (yield from cursor.peek()) != "{":
                return

    def spell(self, calls: Sequence[Call]) -> str:
        """See `ToolFormat`."""
        spelled = [
            json.dumps({self.name_key: name, self.arguments_key: arguments}, ensure_ascii=False)
            for name, arguments in calls
        ]
        if self.kind is ListKind.EACH:
            return self.space.join(f"{self.begins[0]}{self.space}{call}{self.space}{self.end}" for call in spelled)
        inside = "\n".join(spelled) if self.kind is ListKind.LINES else f"[{', '.join(spelled)}]"
        return f"{self.begins[0]}{self.space}{inside}{self.space}{self.end}"

    def write_calls(self, writer: GrammarWriter, tools: tuple[Tool, ...], *, parallel: bool, required: bool) -> str:
        """See `ToolFormat`."""
        space = writer.optional(self.space)
        call = writer.call_object(tools, self.name_key, self.arguments_key)
        end = writer.marker(self.end) if self.end else ""
        if self.kind is not ListKind.EACH:
            begin, between, close = ('"["', '"," " "?', '"]"') if self.kind is ListKind.LIST else ("", '"\\n"', "")
            calls = writer.several(call, between, parallel=parallel)
            writer.rule("call_body", f"{space} {begin} {calls} {close} {space} {end}")
            return writer.after_text(self.begins[0], "call_body", required=required)
        writer.rule("call_body", f"{space} {call} {space} {end}")
        return writer.calls(self.begins[0], "call_body", space, parallel=parallel, required=required)


HERMES = TaggedJson("hermes", ("<tool_call>",), "</tool_call>")
"""Hermes 2 Pro and 3, Qwen 2.5 and 3, SmolLM3, Granite 4, and whatever copied them."""
GRANITE = TaggedJson("granite", ("<|tool_call|>", "<tool_call>"), "</tool_call>", kind=ListKind.LIST, space="")
"""Granite 3; Granite 4 writes as Hermes does."""
PHI4_MINI = TaggedJson("phi4-mini", ("<|tool_call|>", "functools"), "<|/tool_call|>", kind=ListKind.LIST, space="")
COMMAND_R = TaggedJson(
    "command-r", ("<|START_ACTION|>",), "<|END_ACTION|>", "tool_name", "parameters", kind=ListKind.LIST
)
NEMOTRON = TaggedJson("nemotron", ("<TOOLCALL>",), "</TOOLCALL>", kind=ListKind.LIST, space="")
MINIMAX_M1 = TaggedJson("minimax-m1", ("<tool_calls>",), "</tool_calls>", kind=ListKind.LINES)
